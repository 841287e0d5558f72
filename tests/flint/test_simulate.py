"""`flint simulate` as a user runs it: figures add up, runs resume, mistakes are one sentence."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from feature_catalog.simulation_runs import SimulationRuns
from flint.catalog_session import open_catalog
from flint.cli import run_commands, simulate_command
from server.job_file import load_job
from simulation.checkpoint import decode_checkpoint
from simulation.executors.ray_cluster import ClusterConnection

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
JOB, ENVIRONMENT = QUICKSTART / "job.yaml", QUICKSTART / "environment.yaml"
FIGURES = {
    "trajectory_sha256",
    "events_sha256",
    "virtual_hours",
    "aggregations",
    "metric",
    "tasks_started",
    "outcomes",
    "device_hours",
    "bytes_up",
    "bytes_down",
}

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A data directory the embedded Postgres's user may enter, open throughout."""
    home = Path(tempfile.mkdtemp(prefix="flint-simulate-"))
    home.chmod(0o755)
    with open_catalog(home):
        yield home
    shutil.rmtree(home, ignore_errors=True)


def flint(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flint", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "FLINT_HOME": str(home), "COLUMNS": "100"},
    )


def simulate(home, *options, job=JOB, environment=ENVIRONMENT) -> dict:
    result = flint("simulate", job, "-e", environment, "--json", *options, home=home)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def edited(path: Path, folder: Path, **changes) -> Path:
    """A copy of a YAML file with top-level keys changed; None removes one."""
    content = yaml.safe_load(path.read_text()) | changes
    for key, value in content.items():  # files lie beside the quickstart's own
        if isinstance(value, str) and value.endswith(".parquet"):
            content[key] = str(QUICKSTART / value)
    if isinstance(content.get("dataset"), dict):
        source = QUICKSTART / content["dataset"]["source"]
        content["dataset"] = content["dataset"] | {"source": str(source)}
    copy = folder / path.name
    copy.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return copy


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """The quickstart's job, over after 20 aggregations."""
    folder = tmp_path_factory.mktemp("job")
    return edited(JOB, folder, stop={"max_aggregations": 20, "max_hours": 168})


@pytest.fixture(scope="module")
def run(home, short) -> dict:
    return simulate(home, job=short)


def table(home, run_id, name) -> pa.Table:
    with open_catalog(home) as catalog:
        runs = catalog.simulation_runs
        return pq.read_table(io.BytesIO(runs.file(runs.get(run_id), name)))


def test_figures_add_up_from_the_task_table(home, run):
    assert run.keys() >= FIGURES
    tasks = table(home, run["run_id"], "tasks")
    assert len(tasks) == run["tasks_started"] == sum(run["outcomes"].values())
    for outcome, count in run["outcomes"].items():
        assert pc.sum(pc.equal(tasks["outcome"], outcome)).as_py() == count
    assert pc.sum(tasks["bytes_up"]).as_py() == run["bytes_up"]
    assert pc.sum(tasks["bytes_down"]).as_py() == run["bytes_down"]
    assert pc.sum(tasks["device_s"]).as_py() / 3600 == pytest.approx(run["device_hours"])
    trajectory = table(home, run["run_id"], "trajectory").to_pylist()
    assert [row["version"] for row in trajectory] == list(range(run["aggregations"] + 1))
    for row in trajectory[1:]:
        counted = tasks.filter(pc.equal(tasks["version"], row["version"]))
        assert len(counted) == row["updates"]
        assert max(counted["ended_s"].to_pylist()) <= row["virtual_s"]
        started = pc.sum(pc.less_equal(tasks["started_s"], row["virtual_s"])).as_py()
        assert started >= row["tasks_started"]
    assert trajectory[-1]["metric"] == run["metric"]
    assert run["metric"] > 2 * trajectory[0]["metric"]


def test_a_runs_record_says_which_way_it_was_computed_and_why(home, run):
    shown = CliRunner().invoke(run_commands.app, ["show", run["run_id"], "--home", str(home)])
    assert shown.exit_code == 0, shown.output
    fields = dict(line.split(maxsplit=1) for line in shown.output.splitlines() if "because" in line)
    assert fields["events"].startswith("compiled engine, because nothing that decides")
    assert fields["training"].startswith("compiled kernel, because every layer of sparse_mlp")


def test_tasks_that_failed_have_a_column_where_there_are_some(home, run, capsys):
    with open_catalog(home) as catalog:
        row = catalog.simulation_runs.get(run["run_id"])
    simulate_command.show(row)
    assert "failed" not in capsys.readouterr().out
    row.summary["trials"][0]["outcomes"]["failed"] = 4711
    simulate_command.show(row)
    told = capsys.readouterr().out
    assert "failed" in told
    assert "4711" in told
    assert "rejected" not in told


def test_the_same_seed_gives_the_same_run_whatever_the_number_of_executors(home, run, short):
    again = simulate(home, "--executors", 1, job=short)
    for name in ("trajectory_sha256", "events_sha256", "metric"):
        assert again[name] == run[name]
    other = simulate(home, "--seed", 8, "--no-training", job=short)
    assert other["events_sha256"] != run["events_sha256"]
    assert other["metric"] is None


def test_outputs_asked_for_are_columns_of_the_task_table_and_change_nothing_else(home, run, short):
    told = sentence(home, short, "-e", ENVIRONMENT, "--client-outputs", "norms,loss")
    assert "'loss' is not one of train_loss, losses, norms" in " ".join(told.split())
    asked = simulate(home, "--client-outputs", "losses,norms", "--executors", 2, job=short)
    for name in ("trajectory_sha256", "events_sha256"):
        assert asked[name] == run[name]
    tasks = table(home, asked["run_id"], "tasks").to_pylist()
    for task in tasks:
        counted = task["outcome"] == "succeeded"
        assert (task["update_norm"] is not None) == counted == (task["loss_after"] is not None)
    trained = [task for task in tasks if task["outcome"] == "succeeded"]
    assert sum(task["loss_after"] < task["loss_before"] for task in trained) > len(trained) / 2
    shown = json.loads(flint("runs", "show", asked["run_id"], "--json", home=home).stdout)
    assert shown["environment"]["client_outputs"] == ["losses", "norms"]


def test_training_that_leaves_the_numbers_is_told_with_client_and_step(home, tmp_path):
    client = yaml.safe_load(JOB.read_text())["client"] | {
        "optimizer": {"name": "sgd", "learning_rate": 1e38}
    }
    job = edited(JOB, tmp_path, client=client, stop={"max_aggregations": 2, "max_hours": 2})
    result = flint("simulate", job, "-e", ENVIRONMENT, home=home)
    assert "Traceback" not in result.stderr
    said = " ".join((result.stdout + result.stderr).split())
    found = re.search(r"the training of client (\d+) \(task (\d+), from version 0\) left", said)
    assert found, said
    assert "lower client.optimizer.learning_rate" in said


def test_trials_share_the_population_and_differ_in_all_else(home, run, short):
    result = simulate(home, "--trials", 3, "--no-training", job=short)
    events = {trial["events_sha256"] for trial in result["trials"]}
    assert len(events) == 3
    hours = [trial["virtual_hours"] for trial in result["trials"]]
    assert result["virtual_hours"] == pytest.approx(sum(hours) / 3)
    assert result["stdev"]["virtual_hours"] > 0
    population = table(home, result["run_id"], "population")
    assert population.equals(table(home, run["run_id"], "population"))


def started(home: Path, *arguments: object) -> tuple[subprocess.Popen[str], str]:
    """A run in the background, and its id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flint", "simulate", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FLINT_HOME": str(home)},
    )
    assert process.stderr is not None
    return process, process.stderr.readline().split()[1]


def wait_for_checkpoint(runs: SimulationRuns, run_id: str, process: subprocess.Popen[str]) -> None:
    """Wait until the run has kept its first state."""
    deadline_s = time.monotonic() + 240
    while runs.get(run_id).checkpoint_sha256 is None:
        assert time.monotonic() < deadline_s
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_very_trajectory_of_one_that_was_not(home, run, short):
    options = ("--checkpoint-every", "2", "--executors", "1")  # the file says 2
    process, run_id = started(home, short, "-e", ENVIRONMENT, *options)
    with open_catalog(home) as catalog:
        wait_for_checkpoint(catalog.simulation_runs, run_id, process)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[1]
    assert "\nevents: compiled engine, because " in f"\n{told}"
    assert "\ntraining: compiled kernel, because " in told
    told = sentence(home, short, "-e", ENVIRONMENT, "--resume", run_id, "--no-training")
    assert "was started without --no-training" in told
    told = sentence(home, short, "-e", ENVIRONMENT, "--resume", run_id, "--seed", "8")
    assert "was started with --seed 7, not 8" in told
    resumed = simulate(home, "--resume", run_id, "--executors", "2", job=short)
    assert resumed["run_id"] == run_id
    assert resumed["trajectory_sha256"] == run["trajectory_sha256"]
    assert resumed["events_sha256"] == run["events_sha256"]


def test_a_run_killed_before_its_first_checkpoint_says_that_it_begins_anew(home, short):
    options: tuple[str, ...] = ("-e", str(ENVIRONMENT), "--no-training")
    for _ in range(2):
        process, run_id = started(home, short, *options)
        assert process.stderr is not None
        told = process.stderr.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        options = (*options, "--resume", run_id)
    assert told == f"run {run_id} was stopped before its first checkpoint: it begins anew\n"


def test_a_run_whose_records_are_cut_off_says_so_and_resumes_when_they_are_back(
    home, run, short, tmp_path
):
    options = ("--checkpoint-every", "2", "--executors", "1")
    process, run_id = started(home, short, "-e", ENVIRONMENT, *options)
    with open_catalog(home) as catalog:
        wait_for_checkpoint(catalog.simulation_runs, run_id, process)
    process.send_signal(signal.SIGSTOP)
    mapped = {region.path for region in psutil.Process(process.pid).memory_maps()}
    (records,) = (Path(path) for path in mapped if Path(path).is_relative_to(home / "blobs"))
    shutil.copy(records, tmp_path / "copy")
    records.chmod(0o644)
    os.truncate(records, 4096)
    process.send_signal(signal.SIGCONT)
    told = process.communicate()[1]
    assert process.returncode == 2
    assert "Traceback" not in told
    assert re.match(rf"flint: the records file {records} (is|was) cut off", told.splitlines()[-1])
    shutil.copy(tmp_path / "copy", records)
    resumed = simulate(home, "--resume", run_id, "--executors", "1", job=short)
    assert resumed["trajectory_sha256"] == run["trajectory_sha256"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a Ray cluster that outlives the runs on it.

    It listens on loopback only, and Ray connects to it there if it is told that this machine is
    nobody's node.
    """
    pytest.importorskip("ray")
    connection = ClusterConnection("local", 2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        yield connection.address
    connection.close()


def actors() -> list[psutil.Process]:
    """Those of the cluster above; what they are doing is part of their name."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if "ray::PartitionActor" in " ".join(each.cmdline())]


def test_a_run_on_a_ray_cluster_whose_leader_is_killed_resumes_to_the_same_trajectory(
    home, run, short, cluster, tmp_path
):
    ray = {"kind": "ray", "address": cluster, "count": 2}
    environment = edited(ENVIRONMENT, tmp_path, executors=ray)
    options = ("-e", environment, "--checkpoint-every", "1")
    leader, run_id = started(home, short, *options)
    with open_catalog(home) as catalog:
        wait_for_checkpoint(catalog.simulation_runs, run_id, leader)
        trained = actors()
        leader.send_signal(signal.SIGKILL)
        leader.communicate()
        runs = catalog.simulation_runs
        kept = decode_checkpoint(run_id, runs.load_checkpoint(runs.get(run_id)))
    assert len(trained) == 2
    assert psutil.wait_procs(trained, timeout=30)[1] == []
    done = kept["trial"]["versions"]["number"]
    assert 0 < done < run["aggregations"]
    resumed = simulate(home, "--resume", run_id, job=short, environment=environment)
    for name in ("trajectory_sha256", "events_sha256", "metric"):
        assert resumed[name] == run[name]
    assert psutil.wait_procs(actors(), timeout=30)[1] == []


def sentence(home, *arguments, exit_code=2) -> str:
    result = flint("simulate", *arguments, home=home)
    assert result.returncode == exit_code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("flint: ")
    return line


SESSIONS = {
    "overlapping": ("a,0,100\na,50,150\n", "overlap"),
    "negative": ("a,-5,100\n", "-5"),
    "not a number": ("a,nan,100\n", "start_s"),
    "backwards": ("a,100,50\n", "100"),
}


@pytest.mark.parametrize("case", SESSIONS)
def test_spans_that_cannot_be_are_refused_and_nothing_is_recorded(home, tmp_path, case):
    rows, told = SESSIONS[case]
    sessions = tmp_path / "sessions.csv"
    sessions.write_text("client_id,start_s,end_s\n" + rows)
    environment = edited(
        ENVIRONMENT,
        tmp_path,
        availability=str(sessions),
        population={"clients": 1, "resample": {"availability": True}},
    )
    with open_catalog(home) as catalog:
        before = len(catalog.simulation_runs.list())
    assert told in sentence(home, JOB, "-e", environment)
    with open_catalog(home) as catalog:
        assert len(catalog.simulation_runs.list()) == before


def test_device_models_without_a_measured_speed_are_named(home, tmp_path):
    shares = tmp_path / "shares.csv"
    shares.write_text("device_model,share\nmodel-01,0.5\nmodle-02,0.5\n")
    environment = edited(ENVIRONMENT, tmp_path, device_population=str(shares))
    told = sentence(home, JOB, "-e", environment)
    assert "modle-02" in told
    assert "model-02" in told


def test_an_environment_that_can_never_start_a_task_says_whom_it_excludes(home, tmp_path):
    sessions = tmp_path / "sessions.csv"
    sessions.write_text("client_id,start_s,end_s,repeat_every_s\na,36000,39600,86400\n")
    everyone = {"resample": {"availability": True}}
    environment = edited(ENVIRONMENT, tmp_path, availability=str(sessions), population=everyone)
    job = edited(JOB, tmp_path, participation={"state": {"allowed_hours": "00:00-06:00"}})
    told = sentence(home, job, "-e", environment)
    assert "allowed_hours" in told
    assert "00:00-06:00" in told


def test_a_run_is_not_resumed_with_another_job(home, run, short, tmp_path):
    other = edited(short, tmp_path, seed=8)
    told = sentence(home, other, "-e", ENVIRONMENT, "--resume", run["run_id"])
    assert "seed" in told
    finished = sentence(home, short, "-e", ENVIRONMENT, "--resume", run["run_id"])
    assert "finished" in finished


def test_names_that_nothing_has_say_where_they_were_used(home, tmp_path):
    job = edited(JOB, tmp_path, evaluation={"dataset": "nowhere"})
    assert "evaluation.dataset" in sentence(home, job, "-e", ENVIRONMENT)
    environment = edited(ENVIRONMENT, tmp_path, dataset=None)
    assert "dataset" in sentence(home, JOB, "-e", environment)
    environment = edited(ENVIRONMENT, tmp_path, bandwidth="nowhere@3")
    assert "bandwidth" in sentence(home, JOB, "-e", environment)


def test_without_training_the_number_of_records_is_enough(home, run, short, tmp_path):
    with_dataset = simulate(home, "--no-training", job=short)
    assert with_dataset["events_sha256"] == run["events_sha256"]
    counts = tmp_path / "population.parquet"
    pq.write_table(table(home, run["run_id"], "population"), counts)
    population = yaml.safe_load(ENVIRONMENT.read_text()).get("population", {})
    changed = {"dataset": None, "population": population | {"records": str(counts)}}
    environment = edited(ENVIRONMENT, tmp_path, **changed)
    counted = simulate(home, "--no-training", job=short, environment=environment)
    assert counted["events_sha256"] == with_dataset["events_sha256"]
    assert "--no-training" in sentence(home, short, "-e", environment)
    page = tmp_path / "report.html"
    result = flint("report", counted["run_id"], "--output", page, home=home)
    assert result.returncode == 0, result.stderr
    assert "Nothing was trained (--no-training), so there is no curve." in page.read_text()


def test_a_fleet_that_never_brings_an_update_ends_the_run_with_the_reason(home, tmp_path):
    sessions = tmp_path / "sessions.csv"
    sessions.write_text("client_id,start_s,end_s\n" + "".join(f"d{i},0,700\n" for i in range(5)))
    environment = edited(
        ENVIRONMENT,
        tmp_path,
        availability=str(sessions),
        population={"resample": {"availability": True}},
        check_in={"period_s": 300, "jitter": 0},
    )
    job = edited(JOB, tmp_path, strategy={"name": "fedbuff", "buffer_size": 5000, "concurrency": 9})
    told = sentence(home, job, "-e", environment)
    assert "no client can check in any more" in told
    with open_catalog(home) as catalog:
        newest = catalog.simulation_runs.list()[-1]
    assert newest.status == "failed"
    assert "no client can check in" in newest.detail


def test_the_quickstarts_job_file_is_one_that_submit_takes():
    assert load_job(JOB).name == "quickstart"
