"""Executor processes that are killed, hang or run out of memory: replaced, or one sentence."""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import psutil
import pytest

from device_runtime.compression import UpdateCodec
from simulation.executors.local import LocalExecutor
from simulation.executors.lost_executors import (
    ExecutorLost,
    ExecutorOutOfMemory,
    ExecutorStalled,
)
from simulation.executors.messages import Forget
from simulation.executors.whole_files import UnusableRecords
from tests.simulation.executors.child_processes import MODEL, ZEROS, newest, start
from tests.simulation.executors.conftest import PLAN, make_tasks
from tests.simulation.executors.contract import assert_same

pytestmark = pytest.mark.integration

TASKS = [replace(task, data_client=task.data_client % 4) for task in make_tasks(12, base_version=1)]
DONE_AGAIN = "executor process 2 of 2 {}; another one does its tasks again"

LONG = replace(PLAN, local_epochs=10_000)
"""A task is some hundredths of a second."""


@pytest.fixture
def local(mapped) -> LocalExecutor:
    executor = LocalExecutor(MODEL, PLAN, mapped)
    executor.set_weights(1, ZEROS)
    return executor


@pytest.fixture
def said() -> list[str]:
    return []


def when(is_so: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Act once something is so, while this thread goes on."""

    def wait() -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            if is_so():
                act()
                return
            time.sleep(0.002)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def when_waiting_for_an_answer(act: Callable[[], object]) -> threading.Thread:
    """Act once this thread waits for a process."""
    main = threading.get_ident()

    def is_waiting() -> bool:
        frame = sys._current_frames()[main]
        while frame is not None and frame.f_code.co_name != "receive":
            frame = frame.f_back
        return frame is not None

    return when(is_waiting, act)


def when_it_trains(process: psutil.Process, act: Callable[[], object]) -> threading.Thread:
    """Act once a process has begun to compute."""
    idle_s = process.cpu_times().user
    return when(lambda: process.cpu_times().user > idle_s + 0.02, act)


def test_tasks_of_killed_and_starved_processes_are_trained_again_and_none_counts_twice(
    mapped, local, said
):
    others = set(psutil.Process().children())
    executor, (victim,) = start(mapped, on_replaced=said.append)
    try:
        statistics = executor.train(TASKS[:6])
        victim.suspend()
        killing = when_waiting_for_an_answer(victim.kill)
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        killing.join()
        assert said == [DONE_AGAIN.format("was ended by SIGKILL")]

        # What it kept is gone with it, and all the same when it is trained again.
        assert list(executor.train(TASKS[:6])) == list(statistics)
        (second,) = newest(others | {victim})
        size = second.memory_info().vms
        resource.prlimit(second.pid, resource.RLIMIT_AS, (size, size))
        for version in range(2, 40):
            executor.set_weights(version, ZEROS)
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        assert said[1:] == [DONE_AGAIN.format("was refused memory")]
    finally:
        executor.close()


def test_what_a_killed_and_a_stopped_process_have_taken_is_posted_again(mapped, said):
    local = LocalExecutor(MODEL, LONG, mapped)
    local.set_weights(1, ZEROS)
    expected = local.reduce(TASKS)
    others = set(psutil.Process().children())
    executor, (first,) = start(mapped, 2, LONG, on_replaced=said.append, stall_timeout_s=0.5)
    try:
        killing = when_it_trains(first, first.kill)
        assert_same(executor.reduce(TASKS), expected)
        killing.join()
        (second,) = newest(others | {first})
        stopping = when_it_trains(second, second.suspend)
        assert_same(executor.reduce(TASKS), expected)
        stopping.join()
        assert said == [
            DONE_AGAIN.format("was ended by SIGKILL"),
            DONE_AGAIN.format("finished no task for 0.5 s and was stopped"),
        ]
        assert not second.is_running()
    finally:
        executor.close()


def test_a_process_that_dies_while_nothing_is_asked_of_it_is_replaced(mapped, local, said):
    executor, (victim,) = start(mapped, on_replaced=said.append)
    try:
        victim.kill()
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        assert said == [DONE_AGAIN.format("was ended by SIGKILL")]
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
    finally:
        executor.close()


def test_the_third_death_of_the_same_tasks_stops_the_run_and_all_processes(mapped):
    others = set(psutil.Process().children())
    children: list[psutil.Process] = []

    def kill_the_newest(_: str) -> None:
        children.extend(newest(others | set(children)))
        children[-1].kill()

    executor, first = start(mapped, on_replaced=kill_the_newest)
    children.extend(first)
    first[0].kill()
    with pytest.raises(
        ExecutorOutOfMemory,
        match=r"process 2 of 2 was ended by SIGKILL, 3 times on the same tasks, most likely "
        r"because memory ran out; go on with fewer executors \(there are 2\)",
    ):
        executor.train(TASKS)
    assert len(children) == 3
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_the_second_that_hangs_on_the_same_tasks_stops_the_run(mapped):
    others = set(psutil.Process().children())

    endings = [psutil.Process.kill, psutil.Process.suspend]  # a death is no second standstill

    def end_the_newest(_: str) -> None:
        (process,) = newest(others)
        endings.pop(0)(process)

    executor, (first,) = start(mapped, on_replaced=end_the_newest, stall_timeout_s=0.5)
    first.suspend()
    # More than its connection holds, so that the run cannot even ask; the next one is asked.
    executor._crew.tell_all(Forget(("none",) * 1_000_000))
    with pytest.raises(
        ExecutorStalled,
        match=r"2 of 2 finished no task for 0\.5 s and was stopped, 2 times on the same tasks; if "
        r"its tasks may take longer, set executors\.stall_timeout_s",
    ):
        executor.train(TASKS)
    assert newest(others) == []


def test_with_error_feedback_a_death_ends_the_run_as_residuals_die_too(mapped):
    codec = UpdateCodec("top_k", 0.05, "int8", error_feedback=True)
    executor, (victim,) = start(mapped, 2, replace(PLAN, codec=codec))
    executor.reduce(TASKS)
    os.kill(victim.pid, signal.SIGSEGV)
    with pytest.raises(
        ExecutorLost, match=r"ended by SIGSEGV; what its clients' compressed updates had left out"
    ):
        executor.residuals()


def test_records_that_are_cut_off_while_they_are_used_are_named_with_their_bytes(mapped):
    executor, children = start(mapped)
    whole = mapped.path.stat().st_size
    os.truncate(mapped.path, 4096)
    with pytest.raises(
        UnusableRecords, match=rf"{mapped.path} is cut off: it has 4096 of {whole} bytes; put"
    ):
        executor.reduce(TASKS)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
