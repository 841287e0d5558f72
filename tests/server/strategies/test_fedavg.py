import pytest

from server.strategies import FedAvg, RoundState, Step
from server.strategies.fedavg import round_tasks

RULE = FedAvg(cohort_size=10, over_commitment=1.3, round_deadline_s=60, min_updates=8)


def state(**changes: float) -> RoundState:
    counts = {"version": 5, "started_s": 100, "now_s": 110, "granted": 13, "offered": 0}
    return RoundState(**({**counts, "running": 13, "held": 0} | changes))


@pytest.mark.parametrize(
    ("cohort", "factor", "tasks"), [(10, 1.0, 10), (10, 1.1, 11), (10, 1.3, 13), (3, 1.3, 4)]
)
def test_over_commitment_rounds_up_but_keeps_whole_products_whole(cohort, factor, tasks):
    assert round_tasks(cohort, factor) == tasks


def test_a_round_starts_all_its_tasks_once():
    assert RULE.tasks_to_start(state(granted=0, running=0)) == 13
    assert RULE.tasks_to_start(state()) == 0


def test_tasks_lost_with_a_gateway_are_replaced_once():
    assert RULE.tasks_to_start(state(running=9, lost=4)) == 4
    assert RULE.tasks_to_start(state(granted=17, running=9, offered=4, lost=4)) == 0
    assert RULE.tasks_to_start(state(granted=17, running=11, lost=2)) == 0, (
        "two were heard of again"
    )
    assert RULE.tasks_to_start(state(granted=17, running=6, lost=7)) == 3, "another is lost"


def test_the_first_cohort_size_updates_make_the_round():
    assert RULE.next_step(state(held=9, running=4)) is Step.WAIT
    assert RULE.next_step(state(held=10, running=3)) is Step.AGGREGATE


def test_the_deadline_takes_what_is_there_if_it_is_enough():
    assert RULE.next_step(state(now_s=159.9, held=8, running=5)) is Step.WAIT
    assert RULE.next_step(state(now_s=160, held=8, running=5)) is Step.AGGREGATE
    assert RULE.next_step(state(now_s=160, held=7, running=6)) is Step.ABANDON
    assert RULE.deadline_s(state()) == 160


def test_a_clock_that_stops_at_the_deadline_is_at_the_deadline():
    """100,000 + 60.2 is less than 60.2 away from 100,000, in binary."""
    rule = FedAvg(cohort_size=10, over_commitment=1.3, round_deadline_s=60.2, min_updates=8)
    begun = state(started_s=1e5, now_s=1e5, held=8, running=5)
    deadline_s = rule.deadline_s(begun)
    assert deadline_s - 1e5 < 60.2
    assert rule.next_step(begun._replace(now_s=deadline_s)) is Step.AGGREGATE


def test_a_round_is_decided_as_soon_as_no_task_is_left():
    assert RULE.next_step(state(held=8, running=0)) is Step.AGGREGATE
    assert RULE.next_step(state(held=7, running=0)) is Step.ABANDON
    assert RULE.next_step(state(held=8, running=0, lost=2)) is Step.WAIT


def test_only_the_newest_version_is_live():
    assert RULE.oldest_live_version(7) == 7
    assert RULE.base_weight(0) == 1.0
