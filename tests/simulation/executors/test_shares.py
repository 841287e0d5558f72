"""How tasks are dealt out to processes."""

import numpy as np
import pytest

from simulation.executors.compiled.training import LANES
from simulation.executors.paths import TrainingPath
from simulation.executors.records import ClientRecords
from simulation.executors.shares import OWN_WEIGHTS_ROWS, Shares
from simulation.executors.task_columns import TaskColumns
from simulation.executors.training import LocalPlan

CLIENTS = 2_000
NOBODY = np.full(100, -1)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Records of clients as cross-device data has them: log-normal, twenty on average."""
    sizes = np.exp(np.random.default_rng(5).normal(0.0, 1.2, CLIENTS)) * 10
    return np.clip(sizes.round(), 1, 400).astype(np.int64)


def shares(counts, processes, in_samples=None, *, ties_clients=False) -> Shares:
    in_samples = np.zeros(CLIENTS, np.bool_) if in_samples is None else in_samples
    none = np.zeros((0, 1), np.float32)
    records = ClientRecords(none, none, np.cumsum(counts) - counts, counts)
    path = TrainingPath("compiled", "of a test", in_samples)
    return Shares(processes, path, LocalPlan(1, 20, 400), records, ties_clients=ties_clients)


def tasks_of(clients, versions=1) -> TaskColumns:
    count = len(clients)
    return TaskColumns(
        [f"t{i}" for i in range(count)],
        np.asarray(clients, np.int64),
        np.arange(count) % versions,
        *(np.ones(count) for _ in range(2)),
        np.zeros(count, np.uint64),
        np.arange(count),
    )


@pytest.mark.parametrize("processes", [2, 3])
def test_a_hundred_uneven_clients_are_even_work(counts, processes):
    for seed in range(20):
        clients = np.random.default_rng(seed).choice(CLIENTS, 100, replace=False)
        process = shares(counts, processes).of(tasks_of(clients), NOBODY, kept=False)
        work = np.bincount(process, counts[clients] + OWN_WEIGHTS_ROWS, processes)
        assert work.max() <= 1.02 * work.mean()


def test_one_lane_of_one_version_goes_to_one_process_and_lanes_are_spread(counts):
    in_samples = counts < 40
    clients = np.random.default_rng(1).choice(CLIENTS, 100, replace=False)
    tasks = tasks_of(clients, versions=2)
    process = shares(counts, 3, in_samples).of(tasks, NOBODY, kept=False)
    lanes = clients % LANES
    for version in (0, 1):
        together = in_samples[clients] & (tasks.base_version == version)
        of_lane = [set(process[together & (lanes == lane)]) for lane in range(LANES)]
        assert all(len(found) <= 1 for found in of_lane)
        assert set.union(*of_lane) == {0, 1, 2}


def test_what_is_kept_is_summed_where_it_is_kept(counts):
    in_samples = counts < 15
    clients = np.random.default_rng(2).choice(CLIENTS, 100, replace=False)
    dealer = shares(counts, 4, in_samples)
    trained = dealer.of(tasks_of(clients), NOBODY, kept=True)
    keeper = np.where(np.arange(100) % 3 == 0, trained, -1)
    summed = dealer.of(tasks_of(clients), keeper, kept=False)
    np.testing.assert_array_equal(summed[keeper >= 0], trained[keeper >= 0])
    lanes, sampled = clients % LANES, in_samples[clients]
    assert all(len(set(summed[sampled & (lanes == lane)])) <= 1 for lane in range(LANES))


def test_clients_with_error_feedback_stay_where_they_are(counts):
    clients = np.random.default_rng(3).choice(CLIENTS, 100, replace=False)
    process = shares(counts, 3, ties_clients=True).of(tasks_of(clients), NOBODY, kept=False)
    np.testing.assert_array_equal(process, clients % 3)
