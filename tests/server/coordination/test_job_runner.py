from collections import Counter, deque

import numpy as np
import pytest

from server.coordination.events import TaskCompleted, TasksLost
from server.coordination.fleet import OpenJob
from server.coordination.job_runner import JobRunner
from server.coordination.next_version import ModelDiverged
from server.coordination.tasks import UpdateReference
from server.coordination.versions import StoredVersion
from tests.server.coordination.local_fleet import (
    MODEL,
    SIZE,
    LocalFleet,
    MemoryVersions,
    Watcher,
    local_delta,
    make_job,
    run_job,
)

FEDAVG = {"name": "fedavg", "cohort_size": 10, "over_commitment": 1.0, "round_deadline_s": 600}
FEDBUFF = {"name": "fedbuff", "buffer_size": 10, "concurrency": 10}


@pytest.fixture
def store():
    return MemoryVersions(StoredVersion(0, np.zeros(SIZE, np.float32), {}))


def outcomes(store):
    return Counter(str(result.outcome) for result in store.results)


def test_fedavg_round_is_the_example_weighted_mean_written_out(store):
    run_job(make_job(FEDAVG, max_aggregations=3), LocalFleet(store, [5.0] * 10), store)
    expected = np.zeros(SIZE)
    for _ in range(3):
        counts = np.arange(10) + 3
        deltas = np.stack([local_delta(i, expected) for i in range(10)])
        expected = expected + (counts[:, None] * deltas).sum(0) / counts.sum()
    np.testing.assert_allclose(store.newest().weights, expected, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["uniform", "examples"])
def test_fedbuff_without_staleness_and_a_cohort_sized_buffer_is_fedavg(weighting):
    finals = []
    for strategy in (FEDAVG, FEDBUFF):
        store = MemoryVersions(StoredVersion(0, np.zeros(SIZE, np.float32), {}))
        job = make_job(strategy | {"weighting": weighting}, max_aggregations=8)
        _, watcher = run_job(job, LocalFleet(store, [5.0] * 10), store)
        assert {s for a in watcher.aggregations for s in a.staleness} == {0}
        finals.append(store.newest().weights)
    np.testing.assert_allclose(finals[0], finals[1], atol=1e-6)


def test_buffer_of_one_is_a_server_step_an_update(store):
    strategy = FEDBUFF | {"buffer_size": 1, "concurrency": 1}
    run_job(make_job(strategy, max_aggregations=6), LocalFleet(store, [5.0]), store)
    weights = np.zeros(SIZE)
    for _ in range(6):
        weights = weights + local_delta(0, weights)
    np.testing.assert_allclose(store.newest().weights, weights, atol=1e-6)


def test_slow_clients_are_stale_and_count_less(store):
    strategy = FEDBUFF | {"buffer_size": 1, "concurrency": 2}
    _, watcher = run_job(
        make_job(strategy, max_aggregations=4), LocalFleet(store, [9.0, 35.0]), store
    )
    assert [a.staleness for a in watcher.aggregations] == [(0,), (0,), (0,), (3,)]
    before = store.versions[3].weights.astype(np.float64)
    expected = before + 0.5 * local_delta(1, np.zeros(SIZE))
    np.testing.assert_allclose(store.newest().weights, expected, rtol=1e-5)


def test_updates_past_max_staleness_are_discarded_and_named_stale(store):
    strategy = FEDBUFF | {"buffer_size": 1, "concurrency": 2, "max_staleness": 2}
    fleet = LocalFleet(store, [9.0, 35.0])
    _, watcher = run_job(make_job(strategy, max_aggregations=5), fleet, store)
    assert all(s <= 2 for a in watcher.aggregations for s in a.staleness)


def test_over_commitment_takes_the_first_cohort_and_names_the_rest(store):
    strategy = FEDAVG | {"over_commitment": 1.3}
    durations = [5.0] * 10 + [8.0] * 3
    run_job(make_job(strategy, max_aggregations=1), LocalFleet(store, durations), store)
    assert outcomes(store) == {"succeeded": 10, "over_committed": 3}


def test_grants_of_closed_rounds_are_remembered_up_to_a_number(store, monkeypatch):
    monkeypatch.setattr("server.coordination.job_runner._REMEMBERED_CANCELS", 3)
    job = make_job(FEDAVG | {"over_commitment": 1.5}, max_aggregations=20)
    opened = OpenJob("j-1", 1, job, MODEL, b"", b"", b"")
    runner = JobRunner(
        opened,
        LocalFleet(store, [5.0] * 15),
        store,
        Watcher(),
        evaluate=None,
        stop_requested=lambda: None,
        poll_s=None,
    )
    runner.run()
    assert list(runner._cancelled) == ["g1-18", "g1-19", "g1-20"]
    assert outcomes(store)["succeeded"] == 200


def test_a_round_below_min_updates_is_abandoned_and_leaves_the_model_alone(store):
    strategy = FEDAVG | {"min_updates": 8, "round_deadline_s": 50}
    fleet = LocalFleet(store, [5.0] * 10, fails={0, 1, 2})
    calls = iter(range(10_000))
    run_job(
        make_job(strategy, max_aggregations=1),
        fleet,
        store,
        stop_requested=lambda: "stopped" if next(calls) > 200 else None,
    )
    assert store.newest().number == 0
    reasons = Counter(r.reason for r in store.results)
    assert reasons["round_abandoned"] > 0
    assert reasons["round_abandoned"] % 7 in {0, reasons["job_ended"] % 7}


def test_every_started_task_ends_in_exactly_one_outcome(store):
    generator = np.random.default_rng(1)
    durations = list(generator.lognormal(2.0, 1.2, 40))
    strategy = FEDBUFF | {"concurrency": 25, "max_staleness": 3}
    _, watcher = run_job(
        make_job(strategy, max_aggregations=30), LocalFleet(store, durations, fails={3, 4}), store
    )
    started = {e.task_id for e in watcher.events if type(e).__name__ == "TaskStarted"}
    ended = Counter(result.task_id for result in store.results)
    assert set(ended) == started
    assert set(ended.values()) == {1}


def test_buffers_hold_whole_buckets_and_sum_to_the_stored_updates(store):
    durations = list(np.random.default_rng(2).lognormal(2.0, 1.0, 30))
    result, watcher = run_job(
        make_job(FEDBUFF | {"concurrency": 20}, max_aggregations=10),
        LocalFleet(store, durations),
        store,
    )
    assert sum(a.updates for a in watcher.aggregations) == result.progress.totals.updates
    assert all(a.updates >= 10 for a in watcher.aggregations)


def test_a_restart_goes_on_from_the_newest_version(store):
    job = make_job(FEDBUFF, max_aggregations=3)
    run_job(job, LocalFleet(store, [5.0] * 10), store)
    first = store.newest()
    result, _ = run_job(make_job(FEDBUFF, max_aggregations=6), LocalFleet(store, [5.0] * 10), store)
    assert [v.number for v in store.versions] == [0, 1, 2, 3, 4, 5, 6]
    assert result.progress.totals.updates == 60
    assert result.progress.totals.elapsed_s > first.totals.elapsed_s


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ({"max_aggregations": 2}, "max_aggregations"),
        ({"max_updates": 15}, "max_updates"),
        ({"max_hours": 0.01}, "max_hours"),
    ],
)
def test_a_job_ends_for_the_reason_it_names(store, stop, reason):
    result, _ = run_job(make_job(FEDAVG, **stop), LocalFleet(store, [5.0] * 10), store)
    assert reason in result.reason


def test_target_ends_the_job_at_the_first_version_that_reaches_it(store):
    job = make_job(FEDAVG, max_aggregations=50)
    evaluation = {"every": 2, "dataset": "d"}
    job = type(job).model_validate(
        job.model_dump()
        | {"evaluation": evaluation, "stop": {"max_aggregations": 50, "target": 0.9}}
    )
    result, _ = run_job(
        job,
        LocalFleet(store, [5.0] * 10),
        store,
        evaluate=lambda weights: {"metric": float(weights[0] / 6)},
    )
    measured = [v.metrics["metric"] for v in store.versions if v.metrics]
    assert "target" in result.reason
    assert measured[-1] >= 0.9 > measured[-2]
    assert store.newest().number % 2 == 0


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_model_that_overflows_ends_the_job_with_the_mend(store):
    job = make_job(
        FEDAVG | {"server_optimizer": {"name": "sgd", "learning_rate": 1e38}}, max_updates=99
    )
    with pytest.raises(ModelDiverged, match=r"learning_rate.*\[FLN-1006\]"):
        run_job(job, LocalFleet(store, [5.0] * 10), store)
    assert np.isfinite(store.newest().weights).all()
    assert outcomes(store)["over_committed"] > 0
    assert {r.reason for r in store.results if r.outcome == "over_committed"} == {"job_failed"}


class LosingFleet(LocalFleet):
    """Its gateway dies once with three updates; their devices upload again."""

    lost = None

    def next_event(self, timeout_s):
        if self.lost is None and len(self.held) == 3:
            self.lost, self.held = self.held, []
            for i, entry in enumerate(self.lost):
                self.later(1.0 + i, 0, "again", entry)
            return TasksLost(self.clock_s, tuple(entry[0] for entry in self.lost))
        return super().next_event(timeout_s)

    def finish(self, *what):
        if len(what) == 4 and isinstance(what[3], np.ndarray):
            self.held.append(what)
            return TaskCompleted(self.clock_s, UpdateReference(what[0], "c", what[1], 1, what[2]))
        return super().finish(*what)


def test_updates_lost_with_a_gateway_and_uploaded_again_count_once(store):
    fleet = LosingFleet(store, [5.0] * 10)
    run_job(make_job(FEDAVG, max_aggregations=1), fleet, store)
    assert fleet.lost is not None
    assert outcomes(store) == {"succeeded": 10}
    expected = np.zeros(SIZE)
    counts = np.arange(10) + 3
    deltas = np.stack([local_delta(i, expected) for i in range(10)])
    expected = (counts[:, None] * deltas).sum(0) / counts.sum()
    np.testing.assert_allclose(store.newest().weights, expected, rtol=1e-5)


class BusyFleet(LocalFleet):
    """Five minutes of events wait unheard while the coordinator asks for a release."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.waiting = deque()

    def next_event(self, timeout_s):
        if self.waiting:
            return self.waiting.popleft()
        return super().next_event(100.0 if timeout_s is None else timeout_s)

    def release(self, release):
        until_s = self.clock_s + 300
        while self.clock_s < until_s:
            event = super().next_event(until_s - self.clock_s)
            if event is not None:
                self.waiting.append(event)
        return super().release(release)


def test_tasks_summed_while_their_start_still_waits_to_be_heard_are_known_and_counted_once(store):
    turns = iter(range(5000))
    strategy = FEDBUFF | {"buffer_size": 5}
    result, watcher = run_job(
        make_job(strategy, max_aggregations=50),
        BusyFleet(store, [5.0] * 10),
        store,
        stop_requested=lambda: "starved" if next(turns) > 4000 else None,
    )
    assert result.reason == "max_aggregations 50 reached"
    started = {e.task_id for e in watcher.events if type(e).__name__ == "TaskStarted"}
    assert {r.task_id for r in store.results} == started
    assert all(r.client_id for r in store.results)


def test_a_commit_missed_two_versions_before_a_restart_is_named_by_it(store):
    fleet = LocalFleet(store, [5.0] * 10)
    run_job(make_job(FEDBUFF, max_aggregations=3), fleet, store)
    again = LocalFleet(store, [5.0] * 10)
    run_job(make_job(FEDBUFF, max_aggregations=3), again, store)
    assert set(again.job.committed_releases) == {"j-1/1/1", "j-1/1/2", "j-1/1/3"}


def test_how_tasks_ended_is_stored_while_the_next_version_is_still_to_come(store):
    opened = OpenJob("j-1", 1, make_job(FEDBUFF, max_aggregations=9), MODEL, b"", b"", b"")
    runner = JobRunner(
        opened,
        LocalFleet(store, [5.0] * 10, fails={1, 2, 3}),
        store,
        Watcher(),
        evaluate=None,
        stop_requested=lambda: None,
        poll_s=None,
        save_every_s=2.0,
    )
    runner.take_up()
    while not store.results:
        runner.turn()
    assert store.newest().number == 0
    assert outcomes(store).keys() == {"failed"}


class EmptyFleet(LocalFleet):
    """Nobody is attached: nothing ever happens, and time passes."""

    def next_event(self, timeout_s):
        self.clock_s += timeout_s or 1.0


@pytest.mark.parametrize("strategy", [FEDAVG, FEDBUFF])
def test_a_job_nobody_takes_part_in_can_be_stopped(store, strategy):
    turns = iter(range(100))
    fleet = EmptyFleet(store, [])
    result, _ = run_job(
        make_job(strategy, max_aggregations=1),
        fleet,
        store,
        stop_requested=lambda: "stopped" if next(turns) > 50 else None,
    )
    assert (result.reason, fleet.closed, store.results) == ("stopped", "stopped", [])
