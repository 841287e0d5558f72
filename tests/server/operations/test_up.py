import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from feature_catalog.embedded import EmbeddedPostgres
from server.operations.home_claim import AlreadyRunning, claim_home
from server.operations.memory import FEW_HEAPS, HEAPS_GIVE_BACK
from server.operations.ports import PortInUse, is_accepting
from server.operations.settings import ServerSettings
from server.operations.supervisor import read_status
from server.operations.up import ServerOptions, prepare, run_up, server_processes, start_up
from tests.server.operations.conftest import eventually
from tests.server.operations.test_supervisor import is_alive

pytestmark = pytest.mark.integration

FREE_PORTS = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
)
FAMILY = ["superlink", "coordinator", "gateway"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory that the system user of an embedded Postgres can enter, too."""
    monkeypatch.delenv("FLINT_DATABASE_URL", raising=False)
    path = Path(tempfile.mkdtemp(prefix="flint-test-"))
    path.chmod(0o755)
    yield path
    EmbeddedPostgres(path / "postgres").stop()
    shutil.rmtree(path)


def postgres_pid(home: Path) -> int:
    return int((home / "postgres" / "pgdata" / "postmaster.pid").read_text().split()[0])


def test_one_call_starts_everything_and_one_call_ends_it(home):
    supervisor = start_up(home, FREE_PORTS)
    try:
        settings = ServerSettings.load(home)
        assert [(p.name, p.state) for p in supervisor.status().processes] == [
            (name, "ready") for name in FAMILY
        ]
        assert is_accepting(settings.gateway_address)
        assert is_accepting(settings.superlink_address)
        with pytest.raises(AlreadyRunning):
            run_up(home, FREE_PORTS)
        assert ServerSettings.load(home) == settings
        pids = [p.pid for p in supervisor.status().processes] + [postgres_pid(home)]
    finally:
        supervisor.stop()
    assert not any(is_alive(pid) for pid in pids)
    assert not read_status(home).running


def test_the_coordinators_threads_share_heaps_and_a_gateways_do_not(home):
    at = [f"127.0.0.1:{port}" for port in (1, 2, 3)]
    settings = ServerSettings(home, "postgresql://", "file:///nowhere", *at, 0, 0)
    environments = {spec.name: spec.environment for spec in server_processes(settings)}
    assert environments["coordinator"].items() >= (HEAPS_GIVE_BACK | FEW_HEAPS).items()
    assert environments["gateway"].items() >= HEAPS_GIVE_BACK.items()
    assert not environments["gateway"].keys() & FEW_HEAPS.keys()


def test_killing_it_outright_leaves_no_orphan_not_even_postgres(home):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from server.operations.up import run_up\n"
        "from tests.server.operations.test_up import FREE_PORTS\n"
        "run_up(Path(sys.argv[1]), FREE_PORTS, quiet=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(home)], stderr=subprocess.PIPE)
    try:
        eventually(
            lambda: [p.state for p in read_status(home).processes] == ["ready"] * 3, within_s=90
        )
        family = [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
        family.append(postgres_pid(home))
    finally:
        process.kill()
        process.communicate()
    assert len(family) >= 5  # three servers, the guardian, Postgres
    eventually(lambda: not any(is_alive(pid) for pid in family), within_s=30)
    with claim_home(home):
        assert not EmbeddedPostgres(home / "postgres").is_running()


def test_a_taken_port_is_refused_before_anything_is_made(home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"port {port} on 127\.0\.0\.1.*--superlink-port"):
            run_up(home, replace(FREE_PORTS, superlink_port=port))
    assert not (home / "postgres").exists()
    assert not (home / "secrets").exists()


def test_a_dead_database_is_one_sentence_and_nothing_is_left_running(home):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from device_runtime.errors import FlintError\n"
        "from server.operations.up import run_up\n"
        "from tests.server.operations.test_up import FREE_PORTS\n"
        "try:\n"
        "    run_up(Path(sys.argv[1]), FREE_PORTS)\n"
        "except FlintError as error:\n"
        "    sys.exit(f'{error}')\n"
    )
    url = "postgresql+psycopg2://flint@127.0.0.1:1/flint"
    result = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        env={**os.environ, "FLINT_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    assert "[FLN-1202]" in result.stderr
    assert "Traceback" not in result.stderr
    with claim_home(home):
        pass


def test_preparing_again_keeps_keys_and_follows_new_options(home):
    first = prepare(home, FREE_PORTS)
    token = first.token_key.read_bytes()
    second = prepare(home, ServerOptions(**(_fields(FREE_PORTS) | {"check_ins_per_s": 7.0})))
    assert second.token_key.read_bytes() == token
    assert ServerSettings.load(home).check_ins_per_s == 7.0
    assert (home / "run" / "settings.json").stat().st_mode & 0o077 == 0


def _fields(options: ServerOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__slots__}


def test_a_signal_during_the_start_stops_it(home):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from server.operations.up import run_up\n"
        "from tests.server.operations.test_up import FREE_PORTS\n"
        "run_up(Path(sys.argv[1]), FREE_PORTS)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stderr=subprocess.PIPE, text=True
    )
    eventually((home / "logs" / "superlink.log").exists, within_s=60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "SIGINT: stopping" in said
    assert not EmbeddedPostgres(home / "postgres").is_running()
