import math

import pytest

from server.strategies import FedBuff, RoundState, Step
from server.strategies.fedbuff import missing_tasks, staleness_weight


def state(**changes: float) -> RoundState:
    counts = {"version": 5, "started_s": 0, "now_s": 1, "granted": 0, "offered": 0, "running": 0}
    return RoundState(**({**counts, "held": 0} | changes))


@pytest.mark.parametrize("staleness", range(11))
def test_staleness_weight_is_one_over_the_square_root_of_one_plus_staleness(staleness):
    assert staleness_weight(staleness) == pytest.approx(1 / math.sqrt(1 + staleness), abs=1e-15)


def test_update_three_versions_old_counts_exactly_half():
    assert FedBuff(20, 100, 10).base_weight(3) == 0.5


def test_concurrency_counts_offered_and_running_tasks():
    assert missing_tasks(offered=10, running=85, concurrency=100) == 5
    assert missing_tasks(offered=10, running=95, concurrency=100) == 0


def test_buffer_is_aggregated_when_full_and_not_before():
    rule = FedBuff(buffer_size=20, concurrency=100, max_staleness=10)
    assert rule.next_step(state(held=19)) is Step.WAIT
    assert rule.next_step(state(held=20)) is Step.AGGREGATE


def test_versions_older_than_max_staleness_are_not_live():
    rule = FedBuff(buffer_size=20, concurrency=100, max_staleness=10)
    assert rule.oldest_live_version(25) == 15
    assert rule.oldest_live_version(3) == 0
