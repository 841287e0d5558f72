"""The trajectory of a run, and the digests that say that two runs are the same."""

import math

import numpy as np
import pyarrow as pa
import pytest

from simulation.trajectory import TRAJECTORY_SCHEMA, events_sha256, trajectory_sha256
from tests.simulation.small_worlds import (
    EVERY_VERSION,
    FEDBUFF,
    Phone,
    make_job,
    run_training,
)

PHONES = [Phone([(9.0 * i, 5000.0)], records=4 + i) for i in range(6)]


@pytest.fixture(scope="module")
def run():
    job = make_job(FEDBUFF, stop={"max_aggregations": 5}, evaluation=EVERY_VERSION | {"every": 2})
    return run_training(PHONES, job)[0]


def changed(table: pa.Table, column: str, value) -> pa.Table:
    values = table[column].to_pylist()
    values[-1] = value
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table[column].type))


def test_there_is_one_row_a_version_with_the_columns_promised(run):
    assert run.trajectory.schema == TRAJECTORY_SCHEMA
    assert run.trajectory["version"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert run.trajectory["updates"].to_pylist() == [0, 3, 3, 3, 3, 3]
    wall_s = run.trajectory["wall_s"].to_pylist()
    assert wall_s == sorted(wall_s)


def test_versions_are_measured_when_the_job_says_and_at_the_end(run):
    assert [metric is not None for metric in run.trajectory["metric"].to_pylist()] == [
        *(True, False, True, False, True, True)
    ]


def test_train_loss_is_the_mean_over_the_updates_of_a_version(run):
    losses = run.trajectory["train_loss"].to_pylist()
    assert losses[0] is None
    assert all(math.isfinite(loss) for loss in losses[1:])
    assert losses[5] < losses[1]


def test_available_counts_open_windows(run):
    for row in run.trajectory.to_pylist():
        open_ = [
            start_s <= row["virtual_s"] < end_s for ((start_s, end_s),) in map(windows, PHONES)
        ]
        assert row["available"] == sum(open_)


def windows(phone: Phone):
    return phone.windows


@pytest.mark.parametrize("column", TRAJECTORY_SCHEMA.names)
def test_the_digest_covers_every_column_but_the_wall_clock(run, column):
    other = changed(run.trajectory, column, 77)
    assert (trajectory_sha256(other) == trajectory_sha256(run.trajectory)) == (column == "wall_s")
    same_events = events_sha256(other, run.tasks) == events_sha256(run.trajectory, run.tasks)
    assert same_events == (column in {"wall_s", "metric", "loss", "train_loss"})


@pytest.mark.parametrize(
    "column", ["client", "version", "ended_s", "outcome", "reason", "bytes_up", "trial"]
)
def test_the_events_digest_covers_the_tasks(run, column):
    value = "x" if pa.types.is_string(run.tasks[column].type) else 99
    other = changed(run.tasks, column, value)
    assert events_sha256(run.trajectory, other) != events_sha256(run.trajectory, run.tasks)
    none = changed(run.tasks, column, None)
    assert events_sha256(run.trajectory, none) != events_sha256(run.trajectory, other)


def test_nothing_and_zero_have_different_digests(run):
    zero, none = (changed(run.trajectory, "staleness_max", value) for value in (0, None))
    assert trajectory_sha256(zero) != trajectory_sha256(none)
    zero, none = (changed(run.trajectory, "metric", value) for value in (0.0, math.nan))
    assert trajectory_sha256(zero) != trajectory_sha256(none)


def test_texts_cannot_run_into_each_other():
    """``a, bc`` and ``ab, c`` are other tasks."""
    trajectory = TRAJECTORY_SCHEMA.empty_table()
    tables = [pa.table({"reason": texts}) for texts in (["a", "bc"], ["ab", "c"], ["a\0b", "c"])]
    assert len({events_sha256(trajectory, table) for table in tables}) == 3


def test_a_digest_does_not_depend_on_how_a_table_is_cut_into_chunks(run):
    pieces = pa.concat_tables([run.trajectory.slice(0, 2), run.trajectory.slice(2)])
    assert trajectory_sha256(pieces) == trajectory_sha256(run.trajectory)
    assert trajectory_sha256(run.trajectory.slice(1)) != trajectory_sha256(run.trajectory)
    assert np.unique(run.trajectory["trial"].to_numpy()).tolist() == [0]
