"""``flint simulate-flower``: an unmodified Flower app, from the command line to the catalog."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_catalog.simulation_runs import SimulationRuns, UnknownSimulationRun
from flint.catalog_session import open_catalog
from flint.run_view import figures, status
from simulation.environment import parse_environment
from simulation.flower.app_folder import read_flower_app
from simulation.flower.recorded_run import (
    new_flower_run,
    notes,
    prepare_flower_run,
    run_flower_trials,
)
from simulation.flower.trial import FlowerAppFailed
from simulation.inputs import FileInputs
from simulation.task_log import TASK_SCHEMA
from simulation.traces.generate import write_world
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.trajectory import TRAJECTORY_SCHEMA

APP = Path(__file__).parents[1] / "simulation" / "flower" / "apps" / "quickstart_numpy"
ENVIRONMENT = """
population: {clients: 40, seed: 3}
availability: sessions.parquet
device_profiles: device_profiles.parquet
device_population: device_population.parquet
bandwidth: bandwidth.parquet
trials: 2
"""
PROMISED = {
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


@pytest.fixture
def world(tmp_path) -> Path:
    write_world(tmp_path, GeneratedAvailability(100), seed=1)
    path = tmp_path / "environment.yaml"
    path.write_text(ENVIRONMENT)
    return path


def flint(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flint", "simulate-flower", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "FLINT_HOME": str(home), "COLUMNS": "200"},
    )


def prepared(world: Path, *overrides: str):
    environment = parse_environment(world.read_text())
    app = read_flower_app(APP, overrides)
    return prepare_flower_run(app, environment, FileInputs(world.parent), seed=5)


@pytest.fixture
def runs(engine, blobs) -> SimulationRuns:
    return SimulationRuns(engine, blobs)


@pytest.mark.integration
def test_a_run_is_recorded_with_all_a_report_needs(world, runs):
    dry_run = prepared(world, "num-server-rounds=2")
    row = runs.create(new_flower_run(dry_run, trials=2))
    told = []
    row = run_flower_trials(dry_run, runs, row, lambda trial, progress: told.append(trial))
    assert (row.kind, row.status, row.name) == ("flower_app", "finished", "quickstart-numpy")
    assert {"availability", "device_profiles", "bandwidth"} <= set(row.inputs)
    assert row.versions["flwr"] == "1.41.0"
    started = json.loads(row.job_json)
    assert started["run_config"]["num-server-rounds"] == 2
    assert len(started["code_sha256"]) == 64
    assert row.summary["metric_name"] == "eval_acc"
    assert [trial["trial"] for trial in row.summary["trials"]] == [0, 1]
    assert set(told) == {0, 1}

    tables = {
        name: pq.read_table(io.BytesIO(runs.file(row, name)))
        for name in ("trajectory", "tasks", "population", "availability")
    }
    assert tables["trajectory"].schema.equals(TRAJECTORY_SCHEMA)
    assert tables["tasks"].schema.equals(TASK_SCHEMA)
    assert tables["population"]["client"].to_pylist() == list(range(40))
    assert tables["trajectory"]["version"].to_pylist() == [0, 1, 2] * 2
    trial = row.summary["trials"][1]
    of_it = tables["tasks"].filter([value == 1 for value in tables["tasks"]["trial"].to_pylist()])
    assert trial["tasks_started"] == len(of_it) == sum(trial["outcomes"].values())
    assert trial["device_hours"] * 3600 == pytest.approx(sum(of_it["device_s"].to_pylist()))
    assert trial["bytes_up"] == sum(of_it["bytes_up"].to_pylist())
    arrays = np.load(io.BytesIO(runs.file(row, "arrays-1")))
    assert [arrays[name].shape for name in arrays.files] == [(8,)]
    told = figures(row)
    json.dumps(told, allow_nan=False)
    assert told["tasks_started"] == pytest.approx(sum(told["outcomes"].values()))


@pytest.mark.integration
def test_a_run_that_fails_says_why_in_its_record(world, runs):
    dry_run = prepared(world, "strategy='fedsgd'")
    row = runs.create(new_flower_run(dry_run, trials=1))
    with pytest.raises(FlowerAppFailed, match="KeyError: 'fedsgd'"):
        run_flower_trials(dry_run, runs, row)
    failed = runs.get(row.run_id)
    assert failed.status == "failed"
    assert "stopped after 0.00 virtual hours with KeyError" in failed.detail


@pytest.mark.integration
def test_a_run_that_is_asked_to_end_has_not_failed(world, runs):
    def stop(trial, progress):
        raise KeyboardInterrupt

    dry_run = prepared(world, "num-server-rounds=2")
    row = runs.create(new_flower_run(dry_run, trials=1))
    with pytest.raises(KeyboardInterrupt):
        run_flower_trials(dry_run, runs, row, stop)
    assert status(runs.get(row.run_id), runs.driven()) == "interrupted"


def test_what_of_an_environment_an_app_does_not_use_is_said(world):
    text = world.read_text() + "dataset: clicks.parquet\nexecutors: {count: 2}\n"
    said = notes(parse_environment(text))
    assert [sentence.split(" ")[0] for sentence in said] == ["dataset", "executors"]
    assert notes(parse_environment(world.read_text())) == []


@pytest.mark.integration
def test_the_command_prints_json_alone_and_keeps_the_run(world, flint_home):
    arguments = (APP, "-e", world, "-c", "num-server-rounds=2", "--trials", "1", "--json")
    result = flint(flint_home, *arguments)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert set(answer) >= PROMISED | {"run_id"}
    assert answer["aggregations"] == 2
    assert answer["outcomes"]["succeeded"] > 0
    again = json.loads(flint(flint_home, *arguments).stdout)
    assert again["trajectory_sha256"] == answer["trajectory_sha256"]
    assert again["run_id"] != answer["run_id"]
    with open_catalog(flint_home) as catalog:
        assert catalog.simulation_runs.get(answer["run_id"]).status == "finished"
        with pytest.raises(UnknownSimulationRun):
            catalog.simulation_runs.get("s-ffffffffffff")


@pytest.mark.integration
def test_the_command_shows_rounds_and_a_table(world, flint_home):
    result = flint(flint_home, APP, "-e", world, "--seed", 3)
    assert result.returncode == 0, result.stderr
    assert "eval_acc" in result.stdout
    assert "virtual hours" in result.stderr
    assert "[ROUND 3/3]" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["/nowhere"], "FLN-1760"),
        ([str(Path(__file__).parent)], "FLN-1760"),
        ([str(APP), "-c", "num-rounds=5"], "FLN-1762"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_starts(world, tmp_path, arguments, code):
    home = tmp_path / "home"
    result = flint(home, *arguments, "-e", world)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("flint: ")
    assert line.endswith(f"[{code}]")
    assert not home.exists()
