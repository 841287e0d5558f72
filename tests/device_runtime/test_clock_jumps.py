"""Clocks that are set, by an hour either way: on the device, on the server, while they run."""

import time

import pytest

from device_runtime import steady_time as steady_time_module
from device_runtime.steady_time import steady_time

HOUR_S = 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])


class SetClock:
    """A clock somebody sets."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def gateway(gateway):
    gateway.tolerance_ms = 300_000
    return gateway


def test_the_default_clock_does_not_follow_the_systems(monkeypatch):
    before_s = steady_time()
    monkeypatch.setattr(time, "time", lambda: before_s + HOUR_S)
    assert 0 <= steady_time() - before_s < 60
    assert steady_time_module._BEGAN_S > 0


@JUMPS
def test_a_device_started_with_a_clock_that_was_set_mends_it_at_its_first_check_in(
    gateway, start_device, jump_s
):
    device = start_device()
    device.step_until_idle()
    device.store.close()
    clock = SetClock()
    clock.ahead_s = jump_s
    again = start_device(token=None, clock=clock)
    known = len(gateway.check_ins)
    again.step_until(lambda: len(gateway.check_ins) > known)
    assert again.counts["refused"] == 1
    assert again.waits[0] == 0.0, "it asked again at once"
    assert len(gateway.enrolments) == 1


@JUMPS
def test_a_server_started_with_a_clock_that_was_set_is_followed_without_enrolling_again(
    gateway, start_device, jump_s
):
    device = start_device(token=None) if gateway.public_keys else start_device()
    device.step_until_idle()
    gateway.clock_ahead_ms = int(jump_s * 1000)
    known = len(gateway.check_ins)
    device.step_until(lambda: len(gateway.check_ins) > known)
    assert device.counts["refused"] == 1
    assert len(gateway.enrolments) == 1


@JUMPS
def test_an_update_refused_for_its_time_is_signed_and_sent_again_not_thrown_away(
    gateway, start_device, make_task, jump_s
):
    clock = SetClock()
    gateway.tasks.append(make_task())
    device = start_device(clock=clock)
    device.step_until(device.store.pending)
    clock.ahead_s = jump_s
    device.step_until(lambda: gateway.uploads)
    assert device.counts["accepted"] == 1
    assert device.counts["rejected"] == 0


def test_an_update_refused_for_another_reason_than_time_is_not_sent_again(
    gateway, start_device, make_task
):
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(device.store.pending)
    gateway.tolerance_ms = -1  # refuses whatever comes
    device.step_until(lambda: device.counts["rejected"])
    assert gateway.uploads == []
    assert device.store.pending() == []
