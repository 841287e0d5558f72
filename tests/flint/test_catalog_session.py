"""Commands reach the catalog with a server, without one, and while one comes or goes."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from feature_catalog.embedded import EmbeddedPostgres
from feature_catalog.simulation_runs import NewSimulationRun, RunInput
from flint.catalog_session import open_catalog
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.trace_statistics import read_statistics
from modeling.zoo import SPARSE_MLP
from server.operations.home_claim import claim_home
from server.operations.settings import ServerSettings
from server.operations.up import ServerOptions, start_up

pytestmark = pytest.mark.integration

PORTS = dict.fromkeys(
    (
        "gateway_port",
        "coordinator_port",
        "superlink_port",
        "gateway_metrics_port",
        "coordinator_metrics_port",
    ),
    0,
)
RUN = NewSimulationRun(
    name="ads",
    kind="job",
    job_json='{"name": "ads"}',
    environment_json='{"trials": 2}',
    inputs={"bandwidth": RunInput("links", 1, "ab" * 32)},
    seed=7,
    trials=2,
    executors=1,
    code_version="0.1.0",
)


@pytest.fixture
def postgres(flint_home: Path):
    server = EmbeddedPostgres(flint_home / "postgres")
    yield server
    server.stop()


@pytest.fixture
def links(tmp_path: Path) -> Path:
    path = tmp_path / "links.csv"
    path.write_text("kbps\n100\n200\n")
    return path


def flint(home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flint", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "FLINT_HOME": str(home), "COLUMNS": "150", **environment},
    )


def answer(home: Path, *arguments: object, **environment: str):
    result = flint(home, *arguments, "--json", **environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_commands_work_without_a_server_and_leave_nothing_running(flint_home, postgres, links):
    added = answer(flint_home, "trace", "add", links, "--kind", "bandwidth")
    assert (added["name"], added["version"], added["kind"]) == ("links", 1, "bandwidth")
    assert added["statistics"]["links"] == 2
    assert answer(flint_home, "trace", "add", links, "--kind", "bandwidth") == added
    assert answer(flint_home, "trace", "show", "links@1") == added
    assert answer(flint_home, "trace", "list") == [added]
    assert "medians 150 kbit/s" in flint(flint_home, "trace", "list").stdout
    assert "median_up_kbps" in flint(flint_home, "trace", "show", "links").stdout
    assert answer(flint_home, "dataset", "list") == []
    assert not postgres.is_running()


def test_a_model_and_a_data_set_are_added_before_any_server(flint_home, tmp_path):
    data = generate_demo_data(tmp_path, training_clients=12, seed=2)
    fields = ("--client-field", "client_id", "--label-field", "clicked")
    added = answer(flint_home, "dataset", "add", data.path, *fields)
    assert answer(flint_home, "dataset", "show", added["name"]) == added
    names = [parameter.name for parameter in SPARSE_MLP.parameters]
    arrays = dict(zip(names, SPARSE_MLP.initial_parameters(11), strict=True))
    np.savez(tmp_path / "central.npz", **arrays)
    model = ("--name", "central", "--model", "sparse_mlp")
    stored = answer(flint_home, "models", "import", tmp_path / "central.npz", *model)
    assert answer(flint_home, "models", "list") == [stored]
    answer(flint_home, "models", "export", "central", tmp_path / "back.npz")
    with np.load(tmp_path / "back.npz") as back:
        assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    assert "central@1 now" in flint(flint_home, "models", "promote", "central").stdout
    assert answer(flint_home, "models", "show", "central@production") == stored


def test_a_server_started_afterwards_has_what_was_added(flint_home, links):
    answer(flint_home, "trace", "add", links, "--kind", "bandwidth")
    server = start_up(flint_home, ServerOptions(insecure=True, **PORTS))
    try:
        with open_catalog(flint_home) as catalog:
            assert [row.name for row in catalog.environment_inputs.list()] == ["links"]
        (row,) = answer(flint_home, "trace", "list")
        assert row["name"] == "links"
        # and commands did not stop the server's database
        assert Deployment.attach(flint_home).jobs.list() == ()
    finally:
        server.stop()
    with open_catalog(flint_home) as catalog:
        assert [row.name for row in catalog.environment_inputs.list()] == ["links"]
    assert not EmbeddedPostgres(flint_home / "postgres").is_running()


def test_the_last_to_leave_stops_the_database(flint_home, postgres):
    with open_catalog(flint_home) as outer:
        with open_catalog(flint_home) as inner:
            assert inner.datasets.list() == ()
        assert postgres.is_running()
        assert outer.datasets.list() == ()
    assert not postgres.is_running()


def test_commands_at_once_all_work(flint_home, postgres, tmp_path):
    paths = [tmp_path / f"links-{n}.csv" for n in range(4)]
    for n, path in enumerate(paths):
        path.write_text(f"kbps\n{n + 1}\n")
    with ThreadPoolExecutor(len(paths)) as pool:
        added = list(
            pool.map(
                lambda path: answer(
                    flint_home, "trace", "add", path, "--kind", "bandwidth", "--name", "links"
                ),
                paths,
            )
        )
    assert sorted(row["version"] for row in added) == [1, 2, 3, 4]
    assert not postgres.is_running()


def test_sessions_that_come_and_go_in_turn_never_lose_the_database(flint_home, postgres):
    def visit(_: int) -> None:
        for _ in range(3):
            with open_catalog(flint_home) as catalog:
                assert catalog.simulation_runs.list() == ()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(visit, range(3)))
    assert not postgres.is_running()


def test_a_killed_command_keeps_nobody_from_stopping_the_database(flint_home, postgres):
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flint.catalog_session import open_catalog\n"
        "with open_catalog(Path(sys.argv[1])):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", program, str(flint_home)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "open\n"
        killed.send_signal(signal.SIGKILL)
    assert postgres.is_running()
    with open_catalog(flint_home) as catalog:
        assert catalog.datasets.list() == ()
    assert not postgres.is_running()


def test_a_server_that_stops_leaves_the_database_to_who_uses_it(flint_home, postgres):
    with claim_home(flint_home):
        with open_catalog(flint_home) as catalog:
            postgres.stop()  # as the supervisor does
            assert catalog.datasets.list() == ()
        assert postgres.is_running()  # it is the server's again
        postgres.stop()
    assert not postgres.is_running()


def test_a_database_that_is_being_stopped_is_waited_for(flint_home, postgres):
    postgres.start()
    stopping = threading.Thread(target=postgres.stop)
    stopping.start()
    with open_catalog(flint_home) as catalog:
        assert catalog.datasets.list() == ()
        stopping.join()
        assert catalog.datasets.list() == ()


def test_a_configured_database_is_used_and_never_stopped(
    flint_home, database_url, links, postgres_server, tmp_path
):
    store = {"FLINT_DATABASE_URL": database_url, "FLINT_BLOB_URL": str(tmp_path / "store")}
    answer(flint_home, "trace", "add", links, "--kind", "bandwidth", **store)
    assert not (flint_home / "postgres").exists()
    assert not (flint_home / "blobs").exists()
    assert any((tmp_path / "store").iterdir())
    assert postgres_server.is_running()
    # A server once used them: commands without the variables still do.
    settings = ServerSettings(
        home=flint_home,
        database_url=database_url,
        blob_url=str(tmp_path / "store"),
        gateway_address="127.0.0.1:1",
        coordinator_address="127.0.0.1:2",
        superlink_address="127.0.0.1:3",
        gateway_metrics_port=4,
        coordinator_metrics_port=5,
    )
    settings.save()
    (row,) = answer(flint_home, "trace", "list")
    assert row["name"] == "links"


def test_a_data_directory_that_was_moved_is_used_where_it_is_now(flint_home, links):
    before, after = flint_home / "before", flint_home / "after"
    server = start_up(before, ServerOptions(insecure=True, **PORTS))
    server.stop()
    answer(before, "trace", "add", links, "--kind", "bandwidth")
    before.rename(after)
    with open_catalog(after) as catalog:
        (row,) = catalog.environment_inputs.list()
        statistics = read_statistics(catalog.environment_inputs.local_file(row), "bandwidth")
    assert statistics == row.statistics
    assert not before.exists()


def test_wrong_traces_are_one_sentence_and_nothing_is_stored(flint_home, links, tmp_path):
    (tmp_path / "Bad.csv").write_text("kbps\n0\n")
    for arguments, code in (
        (("add", tmp_path / "Bad.csv", "--kind", "bandwidth"), "FLN-1706"),
        (("add", tmp_path / "none.csv", "--kind", "bandwidth"), "FLN-1101"),
        (("add", links, "--kind", "availability"), "FLN-1103"),
        (("add", links, "--kind", "bandwidth", "--name", "Links"), "FLN-1116"),
        (("show", "links"), "FLN-1115"),
    ):
        result = flint(flint_home, "trace", *arguments)
        assert result.returncode == 2
        assert f"[{code}]" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert flint(flint_home, "trace", "add", links, "--kind", "speed").returncode == 2
    assert "no traces yet" in flint(flint_home, "trace", "list").stdout


def test_overlapping_spans_are_stored_with_a_note(flint_home, tmp_path):
    path = tmp_path / "sessions.csv"
    path.write_text("client_id,start_s,end_s\na,0,10\na,5,20\n")
    result = flint(flint_home, "trace", "add", path, "--kind", "availability", "--json")
    assert "merge: true" in result.stderr
    assert json.loads(result.stdout)["statistics"]["overlapping"] is True


def test_runs_are_listed_and_shown(flint_home):
    assert "no dry-runs yet" in flint(flint_home, "runs").stdout
    with open_catalog(flint_home) as catalog:
        runs = catalog.simulation_runs
        first, second = runs.create(RUN), runs.create(RUN)
        trials = [
            {"trial": n, "metric": 0.4 + n / 10, "virtual_hours": 10, "trajectory_sha256": "c" * 64}
            for n in range(2)
        ]
        summary = {"trials": trials, "metric_name": "auprc"}
        runs.finish(first.run_id, summary, {"trajectory": b"PAR1"})
    listed = answer(flint_home, "runs")
    assert [row["run_id"] for row in listed] == [second.run_id, first.run_id]
    assert [row["status"] for row in listed] == ["interrupted", "finished"]
    with open_catalog(flint_home) as catalog, catalog.simulation_runs.driving(second.run_id):
        assert answer(flint_home, "runs")[0]["status"] == "running"
    shown = answer(flint_home, "runs", "show", first.run_id)
    assert shown == listed[1]
    assert shown["summary"] == summary
    assert shown["job"] == {"name": "ads"}
    assert shown["inputs"]["bandwidth"]["version"] == 1
    table = flint(flint_home, "runs").stdout
    assert first.run_id in table
    assert "0.45" in table
    text = flint(flint_home, "runs", "show", first.run_id).stdout
    assert "links@1 (SHA-256 abababababab)" in text
    assert "auprc" in text
    assert "cccccccccccc" in text
    assert flint(flint_home, "runs", "show", "ads").returncode == 0
    unknown = flint(flint_home, "runs", "show", "s-zz")
    assert unknown.returncode == 2
    assert "[FLN-1310]" in unknown.stderr
