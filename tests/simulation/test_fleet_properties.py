"""What the virtual fleet does with any small world and job; every claim recomputed here."""

import math
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.gateway.population import Population
from tests.simulation.small_worlds import (
    BYTES,
    Phone,
    make_dry_run,
    make_job,
    system_only,
)

TICK_S = 2.0**-20
HOUR_S = 3600.0


@st.composite
def windows(draw):
    cuts = draw(st.lists(st.integers(0, 5000), min_size=2, max_size=8, unique=True))
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    return tuple(zip(cuts[::2], cuts[1::2], strict=True))


PHONES = st.builds(
    Phone,
    windows=windows(),
    per_example_s=st.floats(0.01, 30.0),
    records=st.integers(1, 40),
    down_kbps=st.sampled_from([0.4, 8.0, 100.0]),
    up_kbps=st.sampled_from([0.2, 8.0, 70.0]),
)
STRATEGIES = st.builds(
    lambda buffer, more, staleness: {
        **{"name": "fedbuff", "buffer_size": buffer, "concurrency": buffer + more},
        "max_staleness": staleness,
    },
    st.integers(1, 4),
    st.integers(0, 6),
    st.integers(0, 3),
) | st.builds(
    lambda cohort, over, deadline, least: {
        **{"name": "fedavg", "cohort_size": cohort, "over_commitment": over},
        **{"round_deadline_s": deadline, "min_updates": min(least, cohort)},
    },
    st.integers(1, 4),
    st.floats(1.0, 3.0),
    st.floats(20.0, 900.0),
    st.integers(1, 4),
)
JOBS = st.builds(
    lambda strategy, records, timeout_s, hours, rest_hours, selection: make_job(
        strategy,
        client={
            "max_records": records,
            "task_timeout_s": timeout_s,
            "optimizer": {"learning_rate": 0.1},
        },
        participation={
            "state": {"allowed_hours": hours},
            "user": {"min_hours_between_participations": rest_hours},
        },
        selection={"name": selection},
        stop={"max_hours": 1.6, "max_aggregations": 40},
    ),
    STRATEGIES,
    st.integers(1, 30),
    st.floats(10.0, 2000.0),
    st.sampled_from([None, "00:10-00:45", "23:30-00:20"]),
    st.sampled_from([None, 0.1, 0.0333]),
    st.sampled_from(["arrival", "uniform"]),
)
WORLDS = st.fixed_dictionaries(
    {
        "period_s": st.floats(30.0, 600.0),
        "jitter": st.sampled_from([0.0, 0.2, 0.9]),
        "check_ins_per_s": st.sampled_from([200.0, 0.05]),
        "dropout_per_hour": st.sampled_from([None, 20.0]),
        "seed": st.integers(0, 99),
    }
)


class CheckIns:
    """Every check-in of a run, seen where gateways count them too."""

    def __init__(self, monkeypatch):
        self.seen = []
        see = Population.see

        def noted(population, device_id, now_s, open_slots):
            self.seen.append((int(device_id), now_s))
            return see(population, device_id, now_s, open_slots)

        monkeypatch.setattr(Population, "see", noted)


def inside(phone: Phone, hours: str | None, t: float) -> float:
    """Until when the phone may work from ``t`` on, by looking everywhere; 0 if it may not."""
    ends = [end_s for start_s, end_s in phone.windows if start_s <= t < end_s]
    allowed = {None: (0, 86_400), "00:10-00:45": (600, 2700), "23:30-00:20": (-1800, 1200)}[hours]
    return min(ends[0], allowed[1]) if ends and allowed[0] <= t < allowed[1] else 0.0


def joined(spans):
    """Windows that touch are one."""
    merged = []
    for start_s, end_s in spans:
        touches = merged and merged[-1][1] == start_s
        merged.append((merged.pop()[0] if touches else start_s, end_s))
    return tuple(merged)


def planned(phone: Phone, job) -> tuple[float, float, float]:
    examples = min(phone.records, job.client.max_records)
    return (
        BYTES * 8 / (phone.down_kbps * 1000),
        phone.per_example_s * examples,
        BYTES * 8 / (phone.up_kbps * 1000),
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PHONES, min_size=1, max_size=8), JOBS, WORLDS)
def test_any_run_adds_up(monkeypatch, phones, job, world):
    with monkeypatch.context() as patch:
        check_ins = CheckIns(patch)
        result = system_only(make_dry_run(phones, job, **world)).run()
    tasks, trajectory = result.tasks.to_pylist(), result.trajectory.to_pylist()

    hours = job.participation.state.allowed_hours
    may_work_until = {
        (client, at): inside(Phone(joined(phones[client].windows)), hours, at)
        for client, at in check_ins.seen
    }
    assert all(until_s > at for (_, at), until_s in may_work_until.items())

    rest_s = 3600.0 * (job.participation.user.min_hours_between_participations or 0.0)
    timeout_s = min(job.client.task_timeout_s, getattr(job.strategy, "round_deadline_s", math.inf))
    free_s = dict.fromkeys(range(len(phones)), 0.0)
    rested_s = dict.fromkeys(range(len(phones)), 0.0)
    for task in tasks:
        client, began_s, ended_s = task["client"], task["started_s"], task["ended_s"]
        phone, reason = phones[client], task["reason"]

        # Started at a check-in, in a window and the allowed hours, alone and rested.
        assert (client, began_s) in may_work_until
        assert began_s >= free_s[client]
        assert began_s >= rested_s[client]

        # Ended in one outcome, when device, window, server or job ended it.
        phases = planned(phone, job)
        assert [task["download_s"], task["train_s"], task["upload_s"]] == pytest.approx(phases)
        done_s, deadline_s = began_s + sum(phases), began_s + timeout_s
        window_s = may_work_until[client, began_s]
        completed = ended_s >= done_s - TICK_S
        ends_s = {
            "window": window_s,
            "deadline": deadline_s,
            "dropout": ended_s if ended_s < min(done_s, window_s, deadline_s) + TICK_S else -1,
        }
        least_s = min(done_s, window_s, deadline_s)
        assert ended_s <= least_s + TICK_S
        match task["outcome"]:
            case "succeeded" | "stale":
                assert ended_s == pytest.approx(done_s, abs=TICK_S)
                assert completed
            case "interrupted":
                assert ended_s == pytest.approx(ends_s[reason], abs=TICK_S)
            case "over_committed":
                assert reason in {"round_closed", "job_ended"}
            case "failed":
                assert reason == "round_abandoned"
                assert completed
            case other:
                raise AssertionError(other)
        if ended_s < least_s - TICK_S and reason != "dropout":
            # Cut off: the job ended, or the device dropped out of a round that was over already.
            assert ended_s == result.virtual_s or world["dropout_per_hour"] is not None

        # What it cost.
        spent_s = ended_s - began_s
        assert task["device_s"] == spent_s
        sent = [spent_s / phases[0], (spent_s - phases[0] - phases[1]) / phases[2]]
        moved = [BYTES * min(1.0, max(0.0, share)) for share in sent]
        assert [task["bytes_down"], task["bytes_up"]] == pytest.approx(moved, abs=1.01)
        silent = world["dropout_per_hour"] is not None and not completed
        free_s[client] = ended_s if not silent else began_s
        if completed:
            rested_s[client] = ended_s + rest_s
        if reason == "dropout":
            free_s[client] = deadline_s

    # The trajectory adds up to the tasks.
    assert len(trajectory) == 1 + max((task["version"] or 0 for task in tasks), default=0)
    for row in trajectory:
        check_row(row, tasks)
    assert Counter(task["version"] for task in tasks if task["outcome"] == "succeeded") == {
        row["version"]: row["updates"] for row in trajectory[1:]
    }
    assert all(task["outcome"] is not None for task in tasks)


def check_row(row, tasks):
    """A row's counts and sums, as far as tasks that began or ended at that very time allow."""
    at_s, version = row["virtual_s"], row["version"]
    surely = [task for task in tasks if task["ended_s"] < at_s]
    maybe = [task for task in tasks if task["ended_s"] <= at_s]
    assert row["succeeded"] == sum(1 for t in tasks if t["version"] and t["version"] <= version)
    started = [task["started_s"] for task in tasks]
    assert (
        sum(began < at_s for began in started)
        <= row["tasks_started"]
        <= sum(began <= at_s for began in started)
    )
    for name in ("device_s", "bytes_down", "bytes_up"):
        low, high = (sum(task[name] for task in some) for some in (surely, maybe))
        assert low - 1e-6 <= row[name] <= high + 1e-6
    decided = sum(row[o] for o in ("succeeded", "interrupted", "stale", "over_committed", "failed"))
    assert decided <= row["tasks_started"]
    assert row["wasted_device_s"] <= row["device_s"] + 1e-9
    assert row["in_flight"] <= row["tasks_started"]
