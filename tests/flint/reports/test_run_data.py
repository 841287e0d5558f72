"""A run's tables as a report reads them; loading them from a real catalog."""

import doctest
import importlib
import io
import pkgutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flint.reports
from feature_catalog.simulation_runs import NewSimulationRun, RunInput, SimulationRuns
from flint.reports.run_data import (
    COLUMNS,
    InputUsed,
    RunWithoutResults,
    UnreadableRunFile,
    conform,
    load_run,
)
from tests.flint.reports.synthetic_runs import plausible_run

NEW = NewSimulationRun(
    name="ads",
    kind="job",
    job_json='{"name": "ads"}',
    environment_json="{}",
    inputs={"bandwidth": RunInput("b.csv", None, "ab" * 32)},
    seed=7,
    trials=1,
    executors=2,
    code_version="0.1.0",
    versions={"numpy": "2.4"},
)


def parquet(table: pa.Table) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def test_a_column_that_is_absent_reads_as_null():
    table = pa.table({"trial": [0], "version": [0], "virtual_s": [1.0]})
    found = conform("trajectory", table, where="run s-1")
    assert found.schema == COLUMNS["trajectory"]
    assert found["metric"].to_pylist() == [None]


def test_columns_are_taken_in_the_types_they_are_read_as():
    table = pa.table(
        {"virtual_s": pa.array([1, 2], pa.int32()), "available": [3, 4], "more": [0, 0]}
    )
    found = conform("availability", table, where="run s-1")
    assert found.to_pydict() == {"virtual_s": [1.0, 2.0], "available": [3, 4]}


def test_a_column_without_which_nothing_can_be_told_is_missed():
    with pytest.raises(UnreadableRunFile, match=r"run s-1: the file tasks .* no column started_s"):
        conform("tasks", pa.table({"trial": [0], "ended_s": [1.0]}), where="run s-1")


def test_a_column_of_another_type_is_named():
    table = pa.table({"virtual_s": ["soon"], "available": [3]})
    with pytest.raises(UnreadableRunFile, match="its column virtual_s is string"):
        conform("availability", table, where="run s-1")


@pytest.mark.integration
def test_a_finished_run_is_loaded_with_all_its_tables(engine, blobs):
    runs, made = SimulationRuns(engine, blobs), plausible_run(aggregations=10)
    row = runs.create(NEW)
    files = {name: parquet(getattr(made, name)) for name in COLUMNS}
    runs.finish(row.run_id, made.summary, files)
    loaded = load_run(runs, "ads")
    for name in COLUMNS:
        assert getattr(loaded, name).equals(getattr(made, name))
    assert loaded.summary == made.summary
    assert loaded.inputs == {"bandwidth": InputUsed("b.csv", None, "ab" * 32)}
    assert set(loaded.files) == set(COLUMNS)
    assert (loaded.status, loaded.seed, loaded.metric_name) == ("finished", 7, "auprc")


@pytest.mark.integration
def test_a_run_that_recorded_only_its_trajectory_is_loaded_with_empty_tables(engine, blobs):
    runs, made = SimulationRuns(engine, blobs), plausible_run(aggregations=10)
    row = runs.create(NEW)
    runs.finish(row.run_id, {}, {"trajectory": parquet(made.trajectory)})
    loaded = load_run(runs, row.run_id)
    assert loaded.tasks.num_rows == 0
    assert loaded.tasks.schema == COLUMNS["tasks"]


@pytest.mark.integration
def test_a_run_without_results_says_where_it_stands(engine, blobs):
    runs = SimulationRuns(engine, blobs)
    row = runs.create(NEW)
    with pytest.raises(RunWithoutResults, match=f"still running .*--resume {row.run_id}"):
        load_run(runs, row.run_id)
    runs.fail(row.run_id, "the disk is full")
    with pytest.raises(RunWithoutResults, match="it failed: the disk is full"):
        load_run(runs, row.run_id)


@pytest.mark.integration
def test_a_file_that_is_no_table_is_named(engine, blobs):
    runs = SimulationRuns(engine, blobs)
    row = runs.create(NEW)
    runs.finish(row.run_id, {}, {"trajectory": b"not parquet"})
    with pytest.raises(UnreadableRunFile, match=r"the file trajectory .* no Parquet file"):
        load_run(runs, row.run_id)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(flint.reports.__path__)])
def test_examples_in_docstrings_are_true(module):
    found = doctest.testmod(importlib.import_module(f"flint.reports.{module}"))
    assert found.failed == 0
