"""The order in which tasks are trained, against one made by sorting."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.executors.compiled.arranging import LANES, UNITS
from simulation.executors.local import LocalExecutor
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.task_columns import TaskColumns
from simulation.executors.training import LocalPlan
from tests.simulation.executors.compiled.conftest import records_of
from tests.simulation.executors.conftest import RECORDS, make_tasks
from tests.simulation.executors.contract import assert_same

PLAN = LocalPlan(1, 20, 40)


@pytest.fixture
def executor(spec, records, weights) -> LocalExecutor:
    executor = LocalExecutor(spec, PLAN, records)
    assert executor.path.in_samples.any()
    assert not executor.path.in_samples.all()
    for version in (1, 2, 3):
        executor.set_weights(version, weights(version))
    return executor


def drawn_tasks(count: int) -> TaskColumns:
    """Of few clients, so that many are one client's from one version."""
    draws = np.random.default_rng(count)
    return TaskColumns.of(
        [
            replace(
                task,
                data_client=int(draws.integers(len(RECORDS))),
                base_version=int(draws.integers(1, 4)),
                shuffle_seed=int(draws.integers(2**63)) * 2 + 1,
            )
            for task in make_tasks(count)
        ]
    )


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40, 300])
def test_tasks_are_arranged_by_version_and_lane_then_step_client_and_seed(executor, count):
    tasks = drawn_tasks(count)
    kernel, in_samples = executor.kernel, executor.path.in_samples
    kernel.reduce(tasks)

    def key(place: int) -> tuple[int, ...]:
        task = tasks[place]
        client, sampled = task.data_client, bool(in_samples[task.data_client])
        steps = min(RECORDS[client], PLAN.max_records) > PLAN.batch_size
        rest = (client % LANES, steps, client, task.shuffle_seed) if sampled else (place,)
        return (task.base_version, not sampled, *rest)

    wanted = sorted(range(count), key=key)
    block = kernel._block
    assert block.columns["place"][:count].tolist() == wanted
    units = [key(place)[:3] if in_samples[tasks[place].data_client] else place for place in wanted]
    assert block.words[UNITS] == len(dict.fromkeys(units))


def test_a_sum_is_the_same_in_any_order_though_a_client_has_several_tasks(executor):
    tasks = drawn_tasks(60)
    shuffled = np.random.default_rng(1).permutation(60)
    whole, other = executor.reduce(tasks), executor.reduce(tasks.take(shuffled))
    for ours, theirs in zip(whole.sums, other.sums, strict=True):
        np.testing.assert_array_equal(ours.total, theirs.total)
        assert set(ours.task_ids) == set(theirs.task_ids)


def test_versions_together_are_summed_as_each_alone(executor):
    tasks = drawn_tasks(60)
    whole = executor.reduce(tasks)
    for partial in whole.sums:
        at = np.flatnonzero(tasks.base_version == partial.base_version)
        assert_same(
            executor.reduce(tasks.take(at)),
            whole._replace(sums=(partial,), statistics=[whole.statistics[i] for i in at]),
        )


def test_a_task_of_no_client_or_of_one_without_records_is_refused(spec, executor, weights):
    for client in (-1, len(RECORDS)):
        with pytest.raises(IndexError, match=f"no data client {client}"):
            executor.reduce(make_tasks(3, base_version=1, data_client=client))
    records = records_of(spec)
    counts = np.where(np.arange(len(RECORDS)) == 2, 0, records.records)
    emptied = ClientRecords(records.x, records.y, records.first_row, counts)
    executor = LocalExecutor(spec, PLAN, emptied)
    executor.set_weights(1, weights(1))
    with pytest.raises(ClientWithoutRecords, match="2"):
        executor.reduce(make_tasks(3, base_version=1))


def test_memory_of_forgotten_versions_is_used_again(executor, weights):
    before = len(executor.kernel.versions.rows)
    for version in range(4, 40):
        executor.set_weights(version, weights(1))
        executor.forget_weights(version)
    assert len(executor.kernel.versions.rows) == before + 1
