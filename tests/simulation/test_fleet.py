"""The virtual fleet, behaviour by behaviour: drop-outs, ends, who gets a slot."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from server.coordination.selection import draw
from simulation.durations import dropout_after_s
from simulation.random_streams import RandomStreams
from tests.simulation.small_worlds import (
    BYTES,
    FEDAVG,
    FEDBUFF,
    Phone,
    make_dry_run,
    make_job,
    rows,
    system_only,
)

ONE_BY_ONE = FEDBUFF | {"buffer_size": 1, "concurrency": 1}
DAY_S = 86_400.0


def run(phones, strategy, *, stop, client=None, at_completion=False, **world):
    job = make_job(strategy, stop=stop, client=client or {})
    return system_only(make_dry_run(phones, job, **world), at_completion=at_completion).run()


# -- drop-outs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dropouts():
    """Tasks of 52 s, of which about half drop out; the server waits 300 s for each."""
    phones = [Phone(records=50)] * 3
    return run(
        phones,
        ONE_BY_ONE,
        stop={"max_hours": 3.0},
        client={"task_timeout_s": 300.0},
        dropout_per_hour=50.0,
    )


def test_a_device_drops_out_when_its_draw_says(dropouts):
    draws = RandomStreams(7)["dropout"]
    tasks_of = Counter()
    reasons = Counter()
    for task in dropouts.tasks.to_pylist():
        draw = draws.exponential(task["client"], tasks_of[task["client"]])
        works_s = dropout_after_s(draw, 50.0)
        tasks_of[task["client"]] += 1
        reasons[task["reason"]] += 1
        if task["reason"] == "job_ended":
            continue
        assert task["reason"] == ("dropout" if works_s < 52.0 else "aggregated")
        assert task["device_s"] == pytest.approx(min(works_s, 52.0), abs=2.0**-20)
        expected = [min(1.0, works_s), min(1.0, max(0.0, works_s - 51.0))]
        moved = [task["bytes_down"] / BYTES, task["bytes_up"] / BYTES]
        assert moved == pytest.approx(expected, abs=2 / BYTES)
    assert min(reasons["dropout"], reasons["aggregated"]) > 10


def test_the_server_starts_another_only_when_it_gives_up_waiting(dropouts):
    """One task at a time: the next one starts at the first check-in after the timeout."""
    tasks = dropouts.tasks.to_pylist()
    for task, after in pairwise(tasks):
        waited_s = 300.0 if task["reason"] == "dropout" else 52.0
        assert after["started_s"] >= task["started_s"] + waited_s
        assert after["started_s"] <= task["started_s"] + waited_s + 100.0


def test_a_device_that_dropped_out_takes_nothing_before_the_server_gives_up():
    result = run(
        [Phone(records=50)] * 3,
        FEDBUFF | {"concurrency": 9},  # slots enough for everyone all the time
        stop={"max_hours": 3.0},
        client={"task_timeout_s": 300.0},
        dropout_per_hour=50.0,
    )
    for client in range(3):
        tasks = [task for task in result.tasks.to_pylist() if task["client"] == client]
        assert {"dropout", "aggregated"} <= {task["reason"] for task in tasks}
        for task, after in pairwise(tasks):
            busy_s = 300.0 if task["reason"] == "dropout" else 52.0
            assert after["started_s"] == task["started_s"] + busy_s + 100.0


def test_what_dropped_out_is_wasted_at_once_and_counted_when_it_is_noticed():
    """c0 drops out of the first task; meanwhile c1 makes versions, and c0's seconds are known."""
    works_s = dropout_after_s(RandomStreams(7)["dropout"].exponential(0, 0), 30.0)
    phones = [Phone(records=1000), Phone(records=1)]
    result = run(
        phones,
        FEDBUFF | {"buffer_size": 1, "concurrency": 2},
        stop={"max_hours": 1.0},
        client={"task_timeout_s": 700.0, "max_records": 2000},
        dropout_per_hour=30.0,
    )
    first = result.tasks.to_pylist()[0]
    assert (first["client"], first["reason"], first["bytes_up"]) == (0, "dropout", 0)
    assert first["ended_s"] == pytest.approx(works_s, abs=2.0**-20)
    seen = rows(result.trajectory, "virtual_s", "interrupted", "in_flight", "device_s")
    unheard = [row for row in seen if first["ended_s"] < row[0] < 700.0]
    assert unheard
    assert {row[1] for row in unheard} == {0}
    others_s = {
        s: sum(t["device_s"] for t in result.tasks.to_pylist()[1:] if t["ended_s"] <= s)
        for s, *_ in unheard
    }
    assert all(row[3] == others_s[row[0]] + first["device_s"] for row in unheard)


# -- the end of a fleet ------------------------------------------------------------------------


def test_a_trace_that_ends_ends_an_asynchronous_run():
    """Three updates are one aggregate; the fourth waits for two that never come."""
    result = run([Phone([(0, 150)])] * 2, FEDBUFF, stop={"max_aggregations": 9})
    assert result.is_exhausted
    assert result.stop_reason == (
        "after 0.0 virtual hours no client can check in any more: the availability trace has "
        "ended; set availability.repeat_every_s to begin it anew"
    )
    assert rows(result.tasks, "client", "started_s", "outcome", "reason") == [
        (0, 0.0, "succeeded", "aggregated"),
        (1, 0.0, "succeeded", "aggregated"),
        (0, 112.0, "succeeded", "aggregated"),
        (1, 112.0, "over_committed", "job_ended"),
    ]
    assert result.virtual_s == 124.0


def test_what_a_round_holds_as_the_trace_ends_is_taken_at_its_deadline():
    result = run(
        [Phone([(0, 50)])] * 2,
        FEDAVG | {"cohort_size": 3, "over_commitment": 1.0},
        stop={"max_aggregations": 9},
    )
    assert rows(result.trajectory, "virtual_s", "updates") == [(0.0, 0), (300.0, 2)]
    assert result.is_exhausted
    assert result.virtual_s == 300.0


def test_only_the_hours_a_job_allows_may_have_ended():
    phones = [Phone([(0, 90_000)])] * 2
    job = make_job(
        FEDBUFF,
        stop={"max_aggregations": 9999},
        participation={"state": {"allowed_hours": "23:00-00:05"}},
    )
    result = system_only(make_dry_run(phones, job)).run()
    assert "has ended, within participation.state.allowed_hours; set" in result.stop_reason


def test_a_fleet_that_never_finishes_a_task_is_given_up_after_thirty_days():
    phones = [Phone([(0, 60)], per_example_s=100.0)] * 3
    result = run(
        phones, FEDBUFF, stop={"max_aggregations": 1}, repeat_every_s=14_400.0, period_s=3600.0
    )
    assert result.is_exhausted
    assert result.stop_reason == (
        "no update has arrived for 30 virtual days (tasks that ended meanwhile: 540 by window); "
        "lower what a task asks of a device, or raise client.task_timeout_s"
    )
    assert 29 * DAY_S < result.virtual_s <= 30 * DAY_S


def test_rounds_that_are_abandoned_for_ever_come_to_an_end():
    phones = [Phone(per_example_s=100.0)] * 3
    strategy = FEDAVG | {"round_deadline_s": 7200.3}
    result = run(phones, strategy, stop={"max_aggregations": 1}, period_s=3600.0)
    assert result.is_exhausted
    assert "for 30 virtual days" in result.stop_reason


def test_rounds_that_are_never_full_are_given_up_though_updates_arrive():
    # Half a day apart: whoever has finished waits in vain for the other.
    phones = [Phone([(0, 3600)]), Phone([(43_200, 46_800)])]
    strategy = FEDAVG | {"cohort_size": 2, "min_updates": 2, "round_deadline_s": 7200.0}
    result = run(phones, strategy, stop={"max_aggregations": 1}, repeat_every_s=DAY_S)
    assert result.is_exhausted
    abandoned = [row for row in rows(result.tasks, "reason") if row == ("round_abandoned",)]
    assert result.stop_reason == (
        f"no aggregation has come about for 30 virtual days: {len(abandoned)} updates arrived, in "
        "rounds that were abandoned for want of others; lower strategy.min_updates, lengthen "
        "strategy.round_deadline_s, or give more clients"
    )
    assert 30 * DAY_S < result.virtual_s + 7200.0 <= 30.5 * DAY_S


@pytest.mark.parametrize("deadline_s", [60.2, 0.7, 300.1, 1 / 3])
def test_a_round_ends_at_its_deadline_however_that_rounds(deadline_s):
    phones = [Phone([(300.0 * i, 10**6)], records=1) for i in range(20)]
    strategy = FEDAVG | {"round_deadline_s": deadline_s}
    result = run(phones, strategy, stop={"max_hours": 2.0})
    assert result.virtual_s == 2 * 3600.0


def test_after_its_task_a_device_comes_back_when_a_gateway_would_have_told_it():
    """One device at a rate of one check-in in 1,000 s, with a slot of its own just set free."""
    result = run([Phone()], ONE_BY_ONE, stop={"max_aggregations": 6}, check_ins_per_s=0.001, seed=5)
    for number, (task, after) in enumerate(pairwise(result.tasks.to_pylist()), start=1):
        jitter = draw(5, "0", number, purpose="pace")
        told_s = 1000.0 * (1.0 + 0.3 * (2.0 * jitter - 1.0))
        assert after["started_s"] == pytest.approx(task["ended_s"] + told_s, abs=2.0**-19)


def test_a_client_without_records_never_asks():
    result = run([Phone(records=0), Phone()], ONE_BY_ONE, stop={"max_aggregations": 5})
    assert set(result.tasks["client"].to_pylist()) == {1}


# -- who gets a slot ---------------------------------------------------------------------------


def tasks_of_each(selection: str) -> np.ndarray:
    """Tasks of 60 phones in 100 hours, half of them quick, so that they are back sooner.

    All check in as pace steering asks: seldom while there is no work, more often while there is.
    """
    phones = [Phone(per_example_s=1.0 if i < 30 else 60.0) for i in range(60)]
    strategy = FEDAVG | {"cohort_size": 5, "over_commitment": 1.0, "round_deadline_s": 3000.0}
    job = make_job(strategy, stop={"max_hours": 100.0}, selection={"name": selection})
    world = {"period_s": 60.0, "jitter": 0.2, "check_ins_per_s": 0.1}
    result = system_only(make_dry_run(phones, job, **world)).run()
    return np.bincount(result.tasks["client"].to_numpy(), minlength=60)


def test_uniform_selection_gives_every_client_nearly_the_same_chance():
    tasks = tasks_of_each("uniform")
    assert tasks.sum() > 1000
    chi_squared = ((tasks - tasks.mean()) ** 2 / tasks.mean()).sum()
    assert chi_squared < 59 + 3 * (2 * 59) ** 0.5
    quick, slow = tasks[:30].sum(), tasks[30:].sum()
    assert abs(quick - slow) < 3 * (quick + slow) ** 0.5


def test_selection_by_arrival_favours_clients_that_come_often():
    tasks = tasks_of_each("arrival")
    assert tasks[:30].sum() > 1.15 * tasks[30:].sum()
    assert ((tasks - tasks.mean()) ** 2 / tasks.mean()).sum() > 1.5 * 59
