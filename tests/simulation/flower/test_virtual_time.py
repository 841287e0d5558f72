"""Inside, sleeping passes virtual time at once; outside, and for all others, nothing changes."""

import queue
import threading
import time

import flwr.app.message.message as flower_message
import pytest
from flwr.serverapp.strategy import strategy_utils

from simulation.flower.client_runs import DeviceClock
from simulation.flower.virtual_time import EPOCH_S, on_clock, virtual_time


class Stopped:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_s(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_sleeping_moves_every_clock_by_what_was_asked():
    clock = Stopped()
    with virtual_time(clock):
        assert time.time() == EPOCH_S
        assert time.monotonic() == time.perf_counter() == 0.0
        time.sleep(86_400)
        assert time.time() == EPOCH_S + 86_400
        assert time.monotonic_ns() == time.perf_counter_ns() == 86_400 * 10**9
        assert time.time_ns() == int(EPOCH_S + 86_400) * 10**9
        with pytest.raises(ValueError, match="non-negative"):
            time.sleep(-1)


def test_names_that_flower_took_before_are_virtual_too_and_put_back():
    kept = strategy_utils.sleep, flower_message.now, time.sleep, time.time
    clock = Stopped()
    with virtual_time(clock):
        strategy_utils.sleep(10)
        assert flower_message.now().timestamp() == EPOCH_S + 10
    assert kept == (strategy_utils.sleep, flower_message.now, time.sleep, time.time)
    assert clock.seconds == 10


def test_everything_is_put_back_after_an_error():
    before = time.sleep
    with pytest.raises(RuntimeError, match="app"), virtual_time(Stopped()):
        raise RuntimeError("app")
    assert time.sleep is before


def test_names_an_app_took_inside_are_real_again_outside():
    with virtual_time(Stopped()):
        from time import time as taken
    assert abs(taken() - time.time()) < 60


def test_other_threads_and_the_standard_library_keep_real_time():
    clock = Stopped()
    found = []
    with virtual_time(clock):
        thread = threading.Thread(target=lambda: found.append(time.time()))
        thread.start()
        thread.join()
        with pytest.raises(queue.Empty):
            queue.Queue().get(timeout=0.01)
        assert threading.Event().wait(0.01) is False
    assert found[0] != EPOCH_S
    assert clock.seconds == 0.0


def test_a_device_has_a_clock_of_its_own():
    server = Stopped()
    with virtual_time(server), on_clock(DeviceClock(100.0)):
        begun_s = time.time()
        time.sleep(30)
        assert time.time() - begun_s == pytest.approx(30.0, abs=1e-4)
        first, second = time.perf_counter(), time.perf_counter()
        assert second > first
    assert server.seconds == 0.0


def test_one_virtual_clock_at_a_time():
    with virtual_time(Stopped()), pytest.raises(RuntimeError), virtual_time(Stopped()):
        pass
