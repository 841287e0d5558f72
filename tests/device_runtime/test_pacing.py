import math
import random

import pytest

from device_runtime.pacing import Pacing


def test_back_off_doubles_up_to_its_limit_and_is_spread_by_half():
    pacing, source = Pacing(backoff_s=1, max_backoff_s=60), random.Random(3)
    for failures, middle_s in [(1, 1), (2, 2), (6, 32), (7, 60), (10_000, 60)]:
        waits = [pacing.after_failures(failures, source) for _ in range(200)]
        assert 0.5 * middle_s <= min(waits) < 0.6 * middle_s
        assert 1.4 * middle_s < max(waits) <= 1.5 * middle_s


def test_a_refusal_is_an_affair_of_hours():
    waits = [Pacing().after_refusal(random.Random(seed)) for seed in range(200)]
    assert 3 * 3600 <= min(waits) < max(waits) <= 5 * 3600


@pytest.mark.parametrize(
    ("told_s", "waits_s"),
    [(12.5, 12.5), (0, 1.0), (-3, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1e9, 86_400.0)],
)
def test_a_gateway_is_obeyed_within_reason(told_s, waits_s):
    assert Pacing(backoff_s=1).as_told(told_s) == waits_s
