"""Tasks reach an executor process as they were sent, and statistics the run."""

import pickle

import numpy as np
import pytest

from simulation.executors.executor import TrainingTask
from simulation.executors.task_columns import StatisticsColumns, TaskColumns, TaskIds

NUMBERS = np.array([7, 3, 2**40])


def numbered() -> TaskColumns:
    return TaskColumns(
        TaskIds(NUMBERS),
        np.array([1, 0, 5]),
        np.array([4, 4, 3]),
        np.array([0.1, 1.0, 33.0]),
        np.array([0.05, 1e-300, np.inf]),
        np.array([2**64 - 1, 0, 12], np.uint64),
        np.array([9, 8, -1]),
    )


@pytest.mark.parametrize("tasks", [numbered(), TaskColumns.of(list(numbered())), numbered()[:0]])
def test_tasks_come_back_from_a_socket_to_the_bit(tasks):
    found = pickle.loads(pickle.dumps(tasks))
    assert list(found) == list(tasks)
    assert all(isinstance(task, TrainingTask) for task in found)


def test_what_comes_back_is_writable_as_the_kernel_wants_it():
    found = pickle.loads(pickle.dumps(numbered()))
    assert found.learning_rate.flags.writeable
    assert found.learning_rate.flags.c_contiguous
    assert found.shuffle_seed.dtype == np.uint64


@pytest.mark.parametrize("norm", [None, np.array([0.5, np.inf, 0.0])])
@pytest.mark.parametrize("ids", [TaskIds(NUMBERS), ("a", "b", "c")])
def test_statistics_come_back_from_a_socket_to_the_bit(ids, norm):
    statistics = StatisticsColumns(
        ids,
        np.array([10, 0, 3]),
        np.array([0.1, -1e-300, 7.0]),
        np.array([True, False, True]),
        np.array([0, 2, 0]),
        norm,
    )
    found = pickle.loads(pickle.dumps(statistics))
    assert list(found) == list(statistics)
    assert found.is_finite.dtype == np.bool_
