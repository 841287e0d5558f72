"""Executor processes that are killed or run out of memory: replaced, or one sentence."""

import os
import resource
import signal
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest

from device_runtime.compression import UpdateCodec
from simulation.executors.local import LocalExecutor
from simulation.executors.lost_executors import ExecutorLost, ExecutorOutOfMemory
from simulation.executors.whole_files import UnusableRecords
from tests.simulation.executors.child_processes import MODEL, ZEROS, newest, start
from tests.simulation.executors.conftest import PLAN, make_tasks
from tests.simulation.executors.contract import assert_same

pytestmark = pytest.mark.integration

TASKS = [replace(task, data_client=task.data_client % 4) for task in make_tasks(12, base_version=1)]
DONE_AGAIN = "executor process 1 of 2 {}; another one does its tasks again"


@pytest.fixture
def local(mapped) -> LocalExecutor:
    executor = LocalExecutor(MODEL, PLAN, mapped)
    executor.set_weights(1, ZEROS)
    return executor


@pytest.fixture
def said() -> list[str]:
    return []


def when_waiting_for_an_answer(act) -> threading.Thread:
    """Act once this thread waits for a process."""
    main = threading.get_ident()

    def wait() -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            frame = sys._current_frames()[main]
            while frame is not None and frame.f_code.co_name != "receive":
                frame = frame.f_back
            if frame is not None:
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_tasks_of_killed_and_starved_processes_are_trained_again_and_none_counts_twice(
    mapped, local, said
):
    others = set(psutil.Process().children())
    executor, (victim, other) = start(mapped, on_replaced=said.append)
    try:
        statistics = executor.train(TASKS[:6])
        victim.suspend()
        killing = when_waiting_for_an_answer(victim.kill)
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        killing.join()
        assert said == [DONE_AGAIN.format("was ended by SIGKILL")]

        # What it kept is gone with it, and all the same when it is trained again.
        executor.train(TASKS)
        (third,) = newest(others | {victim, other})
        third.kill()
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        assert list(executor.train(TASKS[:6])) == list(statistics)
        assert said == 2 * [DONE_AGAIN.format("was ended by SIGKILL")]

        (fourth,) = newest(others | {victim, other, third})
        size = fourth.memory_info().vms
        resource.prlimit(fourth.pid, resource.RLIMIT_AS, (size, size))
        for version in range(2, 40):
            executor.set_weights(version, ZEROS)
        assert_same(executor.reduce(TASKS), local.reduce(TASKS))
        assert said[2:] == [DONE_AGAIN.format("was refused memory")]
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
        match=r"process 1 of 2 was ended by SIGKILL, 3 times on the same tasks, most likely "
        r"because memory ran out; go on with fewer executors \(there are 2\)",
    ):
        executor.reduce(TASKS)
    assert len(children) == 4
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_with_error_feedback_a_death_ends_the_run_as_residuals_die_too(mapped):
    codec = UpdateCodec("top_k", 0.05, "int8", error_feedback=True)
    executor, (victim,) = start(mapped, 1, replace(PLAN, codec=codec))
    executor.reduce(TASKS)
    os.kill(victim.pid, signal.SIGSEGV)
    with pytest.raises(
        ExecutorLost, match=r"ended by SIGSEGV; what its clients' compressed updates had left out"
    ):
        executor.residuals()


def test_records_that_are_cut_off_while_they_are_used_are_named_with_their_bytes(mapped):
    executor, children = start(mapped, 1)
    whole = mapped.path.stat().st_size
    os.truncate(mapped.path, 4096)
    with pytest.raises(
        UnusableRecords, match=rf"{mapped.path} is cut off: it has 4096 of {whole} bytes; put"
    ):
        executor.reduce(TASKS)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
