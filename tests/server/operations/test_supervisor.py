import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from server.operations.console import Console
from server.operations.guardian import Guardian
from server.operations.home_claim import AlreadyRunning, claim_home
from server.operations.ports import choose_ports, is_accepting
from server.operations.processes import (
    _BACK_OFF_HALF_LIFE_S,
    ProcessFailed,
    ProcessSpec,
    SupervisedProcess,
)
from server.operations.settings import ServerSettings
from server.operations.supervisor import Supervisor, read_status
from server.operations.tls import UnusableKeys
from tests.server.operations.conftest import eventually

pytestmark = pytest.mark.integration

PROGRAM = str(Path(__file__).with_name("child_program.py"))

Spec = Callable[..., ProcessSpec]


def child_spec(name: str, *behaviour: str, **options: float) -> ProcessSpec:
    port = choose_ports({name: ("127.0.0.1", 0)})[name]
    return ProcessSpec(
        name,
        (sys.executable, PROGRAM, str(port), *behaviour),
        lambda: is_accepting(f"127.0.0.1:{port}"),
        **options,
    )


def port_of(spec: ProcessSpec) -> int:
    return int(spec.command[2])


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def supervise(settings: ServerSettings) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def start(*specs: ProcessSpec, **options: object) -> Supervisor:
        supervisor = Supervisor(settings, specs, **options)  # type: ignore[arg-type]
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop()


def test_start_returns_when_every_process_serves(supervise):
    specs = [child_spec("superlink"), child_spec("gateway")]
    supervisor = supervise(*specs)
    assert all(is_accepting(f"127.0.0.1:{port_of(spec)}") for spec in specs)
    status = supervisor.status()
    assert status.pid == os.getpid()
    assert [(p.name, p.state, p.restarts) for p in status.processes] == [
        ("superlink", "ready", 0),
        ("gateway", "ready", 0),
    ]


def test_processes_stop_in_the_reverse_order_of_their_start(supervise, tmp_path):
    notes = tmp_path / "notes"
    specs = [child_spec(name, "note", str(notes)) for name in ("superlink", "gateway")]
    supervise(*specs).stop()
    assert notes.read_text() == f"{port_of(specs[1])}\n{port_of(specs[0])}\n"


def test_after_stop_nothing_is_left(supervise, settings):
    supervisor = supervise(child_spec("first"), child_spec("second"))
    pids = {p.name: p.pid for p in supervisor.status().processes}
    assert all(is_alive(pid) for pid in pids.values())
    supervisor.stop()
    assert not any(is_alive(pid) for pid in pids.values())
    assert not read_status(settings.home).running


def test_the_console_shows_every_process_log_under_its_name(supervise):
    said = io.StringIO()
    spec = child_spec("gateway")
    supervise(spec, console=Console(stream=said))
    eventually(lambda: f"gateway     | serving on {port_of(spec)}\n" in said.getvalue())
    assert "flint       | gateway ready after" in said.getvalue()


def test_a_quiet_console_leaves_the_logs_in_their_files(supervise, settings):
    said = io.StringIO()
    spec = child_spec("gateway")
    supervise(spec, console=Console(quiet=True, stream=said))
    assert "serving on" not in said.getvalue()
    assert (settings.logs / "gateway.log").read_text() == f"serving on {port_of(spec)}\n"


def test_a_crashed_process_is_started_again(supervise):
    supervisor = supervise(child_spec("gateway"))
    (before,) = supervisor.status().processes
    os.kill(before.pid, signal.SIGKILL)

    def is_back() -> bool:
        (now,) = supervisor.status().processes
        return now.restarts == 1 and now.state == "ready" and now.pid != before.pid

    eventually(is_back)


def test_one_that_ends_again_and_again_is_waited_for_longer_until_it_has_served(tmp_path):
    said: list[str] = []
    spec = child_spec("gateway", "crash")
    process = SupervisedProcess(spec, tmp_path / "log", Guardian.start(), said.append)
    for _ in range(3):
        process.restart_later()
    process._ready_s = time.monotonic() - 2 * _BACK_OFF_HALF_LIFE_S  # as if it had served since
    process.restart_later()
    process._ready_s = time.monotonic() - 3600
    process.restart_later()
    waits = [line.rpartition(" in ")[2] for line in said]
    assert waits == ["1 s", "2 s", "4 s", "2 s", "1 s"]
    process._guardian.dismiss()


def test_a_process_that_does_not_start_is_explained_with_the_end_of_its_log(supervise, settings):
    good = child_spec("superlink")
    with pytest.raises(ProcessFailed) as failure:
        supervise(good, child_spec("coordinator", "crash"))
    assert "the coordinator process did not start: it ended with exit code 3" in str(failure.value)
    assert "  cannot open the frobnicator\n" in str(failure.value)
    assert str(settings.logs / "coordinator.log") in str(failure.value)
    assert str(failure.value).endswith("[FLN-1211]")
    assert not is_accepting(f"127.0.0.1:{port_of(good)}")


def test_a_process_that_never_serves_is_given_up_at_its_deadline(supervise):
    with pytest.raises(ProcessFailed, match=r"it was not ready after 0\.5 s"):
        supervise(child_spec("gateway", "silent", start_timeout_s=0.5))


def test_a_process_that_ignores_the_request_to_stop_is_killed(supervise):
    supervisor = supervise(child_spec("gateway", "deaf", stop_timeout_s=0.2))
    (process,) = supervisor.status().processes
    supervisor.stop()
    assert not is_alive(process.pid)


def test_what_a_process_started_ends_with_it(supervise, tmp_path):
    supervisor = supervise(child_spec("gateway", "grandchild", str(tmp_path / "pid")))
    grandchild = int((tmp_path / "pid").read_text())
    assert is_alive(grandchild)
    supervisor.stop()
    eventually(lambda: not is_alive(grandchild))


def test_a_second_supervisor_in_the_same_directory_is_refused(supervise, settings):
    supervise(child_spec("gateway"))
    with pytest.raises(AlreadyRunning):
        supervise(child_spec("other"))


def test_stopping_during_the_start_stops_the_start(settings):
    supervisor = Supervisor(settings, [child_spec("gateway", "silent")])
    thread = threading.Thread(target=supervisor.start)
    thread.start()
    eventually(lambda: read_status(settings.home).processes or (settings.logs).exists())
    supervisor.stop()
    thread.join(10)
    assert not thread.is_alive()


def supervising_process(home: Path, *behaviour: str) -> "subprocess.Popen[str]":
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from server.operations.settings import ServerSettings\n"
        "from server.operations.supervisor import Supervisor\n"
        "from tests.server.operations.test_supervisor import child_spec\n"
        "home = Path(sys.argv[1])\n"
        "settings = ServerSettings(home, '', '', '', '', '', 0, 0)\n"
        "specs = [child_spec('first'), child_spec('second', *sys.argv[2:])]\n"
        "Supervisor(settings, specs).run()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(home), *behaviour], stderr=subprocess.PIPE, text=True
    )


def wait_until_ready(home: Path) -> list[int]:
    def all_ready() -> bool:
        states = [process.state for process in read_status(home).processes]
        return states == ["ready", "ready"]

    eventually(all_ready)
    return [process.pid for process in read_status(home).processes if process.pid]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(tmp_path, number):
    process = supervising_process(tmp_path)
    pids = wait_until_ready(tmp_path)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stopped" in said
    assert not any(is_alive(pid) for pid in pids)


def test_a_signal_that_arrives_twice_is_one_request(tmp_path):
    process = supervising_process(tmp_path)
    wait_until_ready(tmp_path)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "stopping at once" not in said


def test_killing_the_supervisor_outright_leaves_no_orphan(tmp_path):
    process = supervising_process(tmp_path, "grandchild", str(tmp_path / "pid"))
    pids = wait_until_ready(tmp_path)
    family = [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
    assert int((tmp_path / "pid").read_text()) in family
    assert set(pids) < set(family)  # and the guardian
    process.kill()
    process.communicate()
    eventually(lambda: not any(is_alive(pid) for pid in family))
    with claim_home(tmp_path):
        pass  # the next server may start


def test_a_process_that_reads_its_certificate_once_is_started_anew_when_it_is_renewed(
    supervise, tmp_path
):
    certificate = tmp_path / "superlink.crt"
    certificate.write_text("first")
    renewals = iter([("superlink",)])

    def renew() -> tuple[str, ...]:
        renewed = next(renewals, ())
        if renewed:
            draft = tmp_path / "new"
            draft.write_text("second")
            draft.replace(certificate)
        return renewed

    said = io.StringIO()
    once = child_spec("superlink")
    supervisor = supervise(
        replace(once, reads_once=certificate),
        child_spec("gateway"),
        renew=renew,
        renew_every_s=0.0,
        console=Console(quiet=True, stream=said),
    )
    superlink, gateway = supervisor.status().processes

    def is_renewed() -> bool:
        one, other = supervisor.status().processes
        return one.pid != superlink.pid and one.state == "ready" and other == gateway

    eventually(is_renewed, within_s=30)
    assert supervisor.status().processes[0].restarts == 0
    assert "renewed certificates: superlink" in said.getvalue()


def test_a_renewal_that_fails_ends_nothing(supervise):
    def renew() -> tuple[str, ...]:
        raise UnusableKeys("the CA's key is damaged")

    said = io.StringIO()
    supervisor = supervise(
        child_spec("gateway"),
        renew=renew,
        renew_every_s=0.0,
        console=Console(quiet=True, stream=said),
    )
    eventually(lambda: "certificates cannot be renewed: the CA's key" in said.getvalue())
    assert supervisor.status().ready
