"""Compiled times of devices, against numpy."""

import numpy as np
import pytest

from simulation.timeline.devices import time_of_period


@pytest.mark.parametrize("period_s", [1.0, 7.0, 3600.0, 86_400.0, 86_400.5, 604_800.0, 2.0**40 + 1])
def test_the_time_of_a_period_is_the_remainder_to_the_bit(period_s):
    draws = np.random.default_rng(3)
    times = draws.integers(0, 2**10, 500)
    whole = times * period_s
    t = np.concatenate(
        [
            *(whole, np.nextafter(whole, np.inf), np.maximum(np.nextafter(whole, 0.0), 0.0)),
            np.floor(draws.uniform(0.0, 1.0, 2000) * 2.0 ** draws.integers(0, 60, 2000)) / 2.0**20,
        ]
    )
    assert [time_of_period(each, period_s) for each in t.tolist()] == np.fmod(t, period_s).tolist()
