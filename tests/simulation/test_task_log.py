"""The task log: one row a task, whole when cost and outcome are both known, and the sums."""

from hypothesis import given
from hypothesis import strategies as st

from server.coordination.tasks import Outcome
from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.durations import TaskDuration
from simulation.task_log import TASK_SCHEMA, TaskLog

DURATION = TaskDuration(1.0, 10.0, 2.5)


def test_a_row_says_what_was_planned_what_it_cost_and_what_became_of_it():
    log = TaskLog(3)
    assert log.start(7, 2, 100.0, DURATION, 12) == 1
    assert log.start(8, 2, 101.0, DURATION, 5) == 2
    log.end(1, 113.5, 1000, 400)
    log.decide(1, Outcome.SUCCEEDED, "aggregated", 3)
    first, second = log.table().to_pylist()
    assert first == {
        **{"trial": 3, "task": 1, "client": 7, "base_version": 2, "version": 3},
        **{"started_s": 100.0, "ended_s": 113.5, "device_s": 13.5},
        **{"download_s": 1.0, "train_s": 10.0, "upload_s": 2.5, "examples": 12},
        **{"outcome": "succeeded", "reason": "aggregated", "bytes_down": 1000, "bytes_up": 400},
    }
    unknown = {name for name, value in second.items() if value is None}
    assert unknown == {"version", "ended_s", "device_s", "outcome", "reason"}
    assert (second["bytes_down"], second["bytes_up"]) == (0, 0)
    assert log.table().schema == TASK_SCHEMA


def test_a_log_without_tasks_is_an_empty_table():
    assert TaskLog(0).table().schema == TASK_SCHEMA
    assert TaskLog(0).table().num_rows == 0


STEPS = st.lists(
    st.tuples(
        st.floats(0, 1e6).map(lambda s: round(s * 2**20) / 2**20),
        st.sampled_from(Outcome),
        st.sampled_from(["aggregated", "window", "reason é"]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


@given(STEPS, st.integers(0, 30))
def test_totals_are_the_sums_of_the_rows_whichever_is_known_first(steps, kept_after):
    log = TaskLog(0)
    for at, (device_s, outcome, reason, cost_first, has_ended, is_decided) in enumerate(steps):
        if at == kept_after:
            state = decode_checkpoint("r", encode_checkpoint("r", {"log": log.state()}))
            assert TaskLog.restored(state["log"]).table().equals(log.table())
            log = TaskLog.restored(state["log"])
        number = log.start(at, 0, 5.0, DURATION, 1)
        assert not log.has_ended(number)

        version = 1 if outcome is Outcome.SUCCEEDED else None
        if has_ended and cost_first:
            log.end(number, 5.0 + device_s, 10, 3)
        if is_decided:
            log.decide(number, outcome, reason, version)
        if has_ended and not cost_first:
            log.end(number, 5.0 + device_s, 10, 3)
        assert log.has_ended(number) == has_ended
    rows = log.table().to_pylist()
    ended = [row for row in rows if row["device_s"] is not None]
    totals = log.totals
    assert totals.started == len(steps)
    assert totals.device_s == sum(row["device_s"] for row in ended)
    assert totals.wasted_device_s == sum(
        row["device_s"] for row in ended if row["outcome"] not in {None, "succeeded"}
    )
    assert (totals.bytes_down, totals.bytes_up) == (10 * len(ended), 3 * len(ended))
    decided = [row["outcome"] for row in rows if row["outcome"] is not None]
    assert totals.outcomes == {outcome: decided.count(outcome) for outcome in set(decided)}
