"""The comparison of reality and dry-run: its arithmetic, and the world both sides live in."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from flint.imposed_conditions import conditions_of_environment
from server.job_file import load_job
from simulation.environment import load_environment
from simulation.inputs import FileInputs
from simulation.world import load_world


@pytest.fixture(scope="module")
def truth():
    """The benchmark's modules, which are scripts beside each other and no package."""
    folder = str(Path(__file__).parent.parent / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("truth_figures")
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def world(truth):
    return importlib.import_module("truth_world")


def figures(truth, **changes):
    given = {
        "aggregations": 10,
        "seconds_per_aggregation": 4.0,
        "updates_per_s": 2.0,
        "outcomes": {"succeeded": 80, "interrupted": 20},
        "bytes_down": 1000,
        "bytes_up": 800,
        "device_hours": 1.0,
        "metric": None,
    }
    return truth.Figures(**given | changes)


def test_equal_sides_have_no_error(truth):
    errors = truth.relative_errors(figures(truth), figures(truth))
    assert set(errors.values()) == {0.0}
    assert len(errors) == 6


def test_errors_are_relative_to_reality(truth):
    virtual = figures(
        truth,
        seconds_per_aggregation=5.0,
        bytes_up=600,
        outcomes={"succeeded": 90, "interrupted": 10},
    )
    errors = truth.relative_errors(figures(truth), virtual)
    assert errors["seconds_per_aggregation"] == pytest.approx(0.25)
    assert errors["bytes_up"] == pytest.approx(0.25)
    assert errors["share_succeeded"] == pytest.approx(0.125)
    assert errors["share_interrupted"] == pytest.approx(0.5)


def test_an_outcome_only_the_dry_run_has_is_wrong_altogether_unless_it_is_rare(truth):
    often = figures(truth, outcomes={"succeeded": 80, "interrupted": 20, "stale": 10})
    assert truth.relative_errors(figures(truth), often)["share_stale"] == 1.0
    rare = figures(truth, outcomes={"succeeded": 800, "interrupted": 200, "stale": 1})
    assert "share_stale" not in truth.relative_errors(figures(truth), rare)


def test_the_dry_run_is_the_mean_of_its_trials(truth):
    trials = [
        figures(truth, bytes_up=600, metric=0.2),
        figures(truth, bytes_up=1000, metric=0.4),
    ]
    mean = truth.mean_of(trials)
    assert truth.relative_errors(figures(truth), mean)["bytes_up"] == 0
    assert mean.metric == pytest.approx(0.3)
    deviations = truth.deviations(trials)
    assert deviations["bytes_up"] == pytest.approx(np.std([600, 1000], ddof=1) / 800)
    assert deviations["bytes_down"] == 0


def test_the_world_has_tasks_of_seconds_and_windows_that_end(world, tmp_path):
    path = world.write_world(tmp_path, "truth@1", seed=5)
    environment = load_environment(path)
    trace = load_world(environment, FileInputs(tmp_path)).trace
    assert len(trace) == world.DEVICES
    records = np.random.default_rng(1).integers(20, 151, world.DEVICES)
    imposed = conditions_of_environment(path, FileInputs(tmp_path), records)
    model_bytes = 753_000
    for count, conditions in zip(records, imposed, strict=True):
        transfers_s = conditions.download_s(model_bytes) + conditions.upload_s(model_bytes)
        assert 0.5 < transfers_s + conditions.train_s(int(count), 1) < 40
        start_s, end_s = conditions.window(300.0)
        assert 50 <= end_s - start_s <= 150


@pytest.mark.parametrize("strategy", ["fedbuff", "fedavg"])
def test_the_jobs_are_valid(world, tmp_path, strategy):
    job = load_job(world.write_job(tmp_path, strategy, "truth@1", 4.0))
    assert job.strategy.name == strategy
    assert job.stop.max_hours == pytest.approx(4 / 60)
