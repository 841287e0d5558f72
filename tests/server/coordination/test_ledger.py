from hypothesis import given
from hypothesis import strategies as st

from server.coordination.events import TaskCompleted, TaskEnded, TaskStarted
from server.coordination.ledger import RecentTasks, TaskLedger
from server.coordination.tasks import Outcome, UpdateReference

MOST = 100
TASKS = ["t1", "t2", "t3", "t4"]


def started(task_id, base_version=0):
    return TaskStarted(0.0, task_id, "g1", "d1", base_version)


def completed(task_id, base_version=0):
    return TaskCompleted(0.0, UpdateReference(task_id, "d1", base_version, 5, 1.0))


def ended(task_id, outcome=Outcome.FAILED):
    return TaskEnded(0.0, task_id, "d1", 0, outcome, "engine")


steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "complete", "end", "lose", "succeed"]), st.sampled_from(TASKS)
    ),
    max_size=60,
)


@given(steps)
def test_every_task_ends_in_exactly_one_outcome_whatever_is_repeated_or_lost(events):
    ledger = TaskLedger({}, {})
    seen = set()
    for kind, task_id in events:
        if kind == "start":
            ledger.start(started(task_id))
        elif kind == "complete":
            ledger.complete(completed(task_id))
        elif kind == "end":
            ledger.end(ended(task_id))
        elif kind == "lose":
            ledger.lose([task_id])
        elif task_id in ledger.held:
            ledger.succeed(task_id, 1)
        if kind in {"start", "complete", "end"}:
            seen.add(task_id)
    ledger.end_running(Outcome.OVER_COMMITTED, "job_ended")
    ledger.end_held(Outcome.OVER_COMMITTED, "job_ended")
    ledger.end_lost()
    results = ledger.take_unsaved()
    assert sorted(result.task_id for result in results) == sorted(seen)
    assert sum(ledger.outcomes.values()) == len(seen)
    assert not ledger.running
    assert not ledger.held


def test_a_lost_update_that_comes_again_is_held_once():
    ledger = TaskLedger({}, {})
    ledger.start(started("t1"))
    ledger.complete(completed("t1"))
    ledger.lose(["t1"])
    assert not ledger.held
    assert ledger.complete(completed("t1"))
    assert not ledger.complete(completed("t1"))
    assert list(ledger.held) == ["t1"]


def test_a_lost_task_ends_as_gateway_lost_once_its_base_version_is_dead():
    ledger = TaskLedger({}, {})
    ledger.start(started("t1", base_version=2))
    ledger.lose(["t1"])
    ledger.expire(2, Outcome.STALE, "max_staleness")
    assert not ledger.outcomes
    ledger.expire(3, Outcome.STALE, "max_staleness")
    assert ledger.outcomes == {"failed": 1}
    assert ledger.reasons == {"gateway_lost": 1}


def test_held_updates_of_dead_versions_name_the_buckets_to_drop():
    ledger = TaskLedger({}, {})
    for task_id, base in (("t1", 1), ("t2", 2), ("t3", 3)):
        ledger.complete(completed(task_id, base))
    assert ledger.expire(3, Outcome.STALE, "max_staleness") == {1, 2}
    assert list(ledger.held) == ["t3"]


def test_an_end_that_an_earlier_coordinator_stored_is_no_news():
    ledger = TaskLedger({"failed": 1}, {"engine": 1}, ended=["t1"])
    end = TaskEnded(0.0, "t1", "c", 0, Outcome.FAILED, "engine")
    assert not ledger.start(started("t1"))
    assert not ledger.end(end)
    assert ledger.outcomes == {"failed": 1}
    assert ledger.take_unsaved() == []


def test_counts_go_on_from_a_stored_version():
    ledger = TaskLedger({"succeeded": 40}, {})
    ledger.complete(completed("t9"))
    ledger.succeed("t9", 3)
    assert ledger.outcomes["succeeded"] == 41


@given(st.lists(st.sampled_from([f"t{i}" for i in range(9)]), max_size=40))
def test_at_least_the_last_four_new_tasks_are_remembered_and_at_most_two_more(tasks):
    recent, plain = RecentTasks(4, block=3), []
    for task_id in tasks:
        is_new = task_id not in recent
        recent.add(task_id)
        plain = [*plain, task_id] if is_new else plain
        known = {task for task in set(tasks) if task in recent}
        assert known == set(plain[-len(recent) :])
        assert min(len(plain), 4) <= len(recent) <= 6


def test_the_last_ten_thousand_tasks_are_found_and_older_ones_and_strangers_are_not():
    recent = RecentTasks(10_000, (f"t{i}" for i in range(30_000)))
    assert all(f"t{i}" in recent for i in range(20_000, 30_000))
    assert not any(f"t{i}" in recent for i in range(17_000))
    assert not any(f"other{i}" in recent for i in range(20_000))
    assert len(recent) < 10_000 + 2048


def test_a_ledger_of_many_tasks_holds_no_more_than_its_running_ones_and_the_last_ends(monkeypatch):
    monkeypatch.setattr("server.coordination.ledger._REMEMBERED_ENDS", MOST)
    ledger = TaskLedger({}, {}, [f"before-{i}" for i in range(2 * MOST)])
    for number in range(50 * MOST):
        task_id = f"t{number}"
        ledger.start(started(task_id, base_version=number))
        ledger.complete(completed(task_id, base_version=number))
        ledger.succeed(task_id, number + 1)
        ledger.take_unsaved()
    assert MOST <= len(ledger._ended) < MOST + 2048
    assert not any((ledger.running, ledger.held, ledger.lost, ledger.take_unsaved()))
    assert not ledger.complete(completed(f"t{49 * MOST}"))
    assert ledger.outcomes == {"succeeded": 50 * MOST}
