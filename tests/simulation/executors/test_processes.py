"""Executor processes: the same results for any number of them, and their deaths."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest

from device_runtime.update_codec import flatten
from modeling.zoo import get_model
from simulation.executors.local import LocalExecutor
from simulation.executors.lost_executors import ExecutorLost
from simulation.executors.processes import ProcessExecutors
from tests.simulation.executors.child_processes import ZEROS, start
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import PLAN, make_tasks
from tests.simulation.executors.contract import ExecutorContract, assert_same

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def processes(spec, records):
    """Started once: importing torch takes seconds."""
    started = ProcessExecutors(2, spec, PLAN, records)
    yield started
    started.close()


@pytest.fixture
def executor(processes) -> ProcessExecutors:
    return processes


class TestProcessExecutors(ExecutorContract):
    """Two processes."""


@pytest.fixture
def local(spec, records, weights) -> LocalExecutor:
    executor = LocalExecutor(spec, PLAN, records)
    set_versions(executor, weights)
    return executor


def set_versions(executor, weights) -> None:
    for version in (1, 2, 3):
        executor.set_weights(version, weights(version))


def test_any_number_of_processes_gives_the_same_statistics_and_sums(executor, local, weights):
    set_versions(executor, weights)
    tasks = make_tasks(14)
    one, two = local.reduce(tasks), executor.reduce(tasks)
    assert list(two.statistics) == list(one.statistics)
    for ours, theirs in zip(two.sums, one.sums, strict=True):
        assert (ours.base_version, ours.weight) == (theirs.base_version, theirs.weight)
        assert ours.task_ids == theirs.task_ids
        np.testing.assert_array_equal(ours.total, theirs.total)


def test_clients_in_sample_space_are_summed_alike_by_any_number_of_processes():
    records = records_of(WIDE)
    tasks = make_tasks(14, base_version=1)
    here, there = LocalExecutor(WIDE, PLAN, records), ProcessExecutors(3, WIDE, PLAN, records)
    try:
        assert here.path.in_samples.any()
        for executor in (here, there):
            executor.set_weights(1, flatten(WIDE.initial_parameters(1)))
        lazy = there.reduce(tasks)
        there.train(tasks[5:])
        for found in (lazy, there.reduce(tasks)):
            assert list(found.statistics) == list(here.reduce(tasks).statistics)
            np.testing.assert_array_equal(found.sums[0].total, here.reduce(tasks).sums[0].total)
    finally:
        there.close()


def test_another_process_leaves_the_bits_alone_and_maps_the_records_itself(mapped):
    tasks = make_tasks(8, base_version=1)
    tasks = [replace(task, data_client=task.data_client % 4) for task in tasks]
    here = LocalExecutor(get_model("tiny_mlp"), PLAN, mapped)
    here.set_weights(1, ZEROS)
    there, (child,) = start(mapped)
    try:
        assert_same(there.reduce(tasks), here.reduce(tasks))
        assert str(mapped.path) in {region.path for region in child.memory_maps()}
    finally:
        there.close()


def test_a_process_that_fails_shows_the_end_of_its_log(mapped):
    executor, _ = start(mapped)
    with pytest.raises(ExecutorLost, match=r"2 of 2 ended with exit code 1;(.|\n)*IndexError"):
        executor.train([*make_tasks(1, base_version=1), BEYOND])


def test_closing_twice_leaves_no_process(mapped):
    executor, children = start(mapped)
    executor.close()
    executor.close()
    assert [child for child in children if child.is_running()] == []


BEYOND = replace(make_tasks(1, base_version=1)[0], task_id="beyond", data_client=1_000_000)

RUN = textwrap.dedent(
    """
    import signal

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if started in background
    import numpy as np
    from modeling.zoo import get_model
    from simulation.executors import TrainingTask
    from simulation.executors.processes import ProcessExecutors
    from simulation.executors.records import ClientRecords
    from simulation.executors.training import LocalPlan

    model = get_model("tiny_mlp")
    x, y = np.zeros((10, 40), np.float32), np.zeros((10, 1), np.float32)
    records = ClientRecords(x, y, np.array([0, 5]), np.array([5, 5]))
    executor = ProcessExecutors(2, model, LocalPlan(10**6, 20, 10), records)
    executor.set_weights(1, np.zeros(model.parameter_count, np.float32))
    print("started", flush=True)
    executor.train([TrainingTask(f"t-{i}", i, 1, 1.0, 0.1, 0) for i in range(2)])
    """
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_executors_do_not_outlive_a_run_that_is_killed_or_interrupted_while_they_train(number):
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "started\n"
    children = psutil.Process(run.pid).children()
    assert len(children) == 1
    idle_s = [child.cpu_times().user for child in children]
    deadline_s = time.monotonic() + 60
    while any(
        child.cpu_times().user < before_s + 0.1
        for child, before_s in zip(children, idle_s, strict=True)
    ):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    os.kill(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
