"""The compiled kernel against the loop one writes first: a torch module, autograd and SGD."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import flatten
from modeling.spec import Dense, ModelSpec
from modeling.torch_models import build_torch, load_parameters, weighted_loss
from modeling.zoo import EMBEDDING_MLP, SPARSE_MLP, TINY_MLP
from simulation.executors.compiled.shuffles import shuffled
from simulation.executors.local import LocalExecutor
from simulation.executors.paths import TrainingPath
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import TaskColumns
from simulation.executors.training import LocalPlan
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import EVERYTHING, PLAN, make_tasks
from tests.simulation.executors.contract import ExecutorContract

LINEAR = replace(WIDE, name="linear", layers=(Dense("logits", 70, 2, "none"),))
MODELS = {spec.name: spec for spec in (TINY_MLP, SPARSE_MLP, EMBEDDING_MLP, WIDE, LINEAR)}
PLANS = {
    "one epoch in one batch": LocalPlan(1, 64, 64),
    "several batches": LocalPlan(1, 20, 64),
    "three epochs in odd batches": LocalPlan(3, 7, 30),
    "pulled back": LocalPlan(2, 20, 40, proximal_mu=0.5),
    "with all outputs": LocalPlan(1, 30, 40, outputs=EVERYTHING),
}


class TestExecutorInSampleSpace(ExecutorContract):
    """A model whose clients, or most of them, have no weights of their own."""

    @pytest.fixture
    def executor(self, spec, records) -> LocalExecutor:
        executor = LocalExecutor(spec, PLAN, records)
        assert executor.path.in_samples.any()
        return executor


class TestExecutorOfOneStep(ExecutorContract):
    """Clients that all take one step, as one batch, with nothing asked for besides."""

    meets_none_in_step = 0

    @pytest.fixture
    def executor(self, spec, records) -> LocalExecutor:
        in_samples = TrainingPath("compiled", "they take one step", np.ones(6, np.bool_))
        executor = LocalExecutor(spec, LocalPlan(1, 64, 40), records, in_samples)
        assert executor.path.in_samples.all()
        return executor

    def test_statistics_are_those_of_the_update(self, executor):
        for statistics in executor.reduce(make_tasks()).statistics:
            assert statistics.is_finite
            assert statistics[5:] == (None, None, None)


def naive_sum(spec: ModelSpec, plan: LocalPlan, records: ClientRecords, tasks, start):
    """Weighted sum of the updates, float64, and the losses during and after, client by client."""
    total = np.zeros(spec.parameter_count)
    during, after = [], []
    for task in tasks:
        x, y = map(torch.tensor, records.of(task.data_client, plan.max_records))
        model, base = build_torch(spec), build_torch(spec)
        for each in (model, base):
            load_parameters(each, start)
        optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
        during.append(0.0)
        for epoch in range(plan.local_epochs):
            order = torch.from_numpy(epoch_order(len(x), task.shuffle_seed, epoch))
            for chosen in torch.split(order, plan.batch_size):
                loss = weighted_loss(model(x[chosen]), y[chosen], torch.ones(len(chosen)))
                during[-1] += loss.item() * len(chosen) / (len(x) * plan.local_epochs)
                for parameter, anchor in zip(model.parameters(), base.parameters(), strict=True):
                    away = (parameter - anchor.detach()).square().sum()
                    loss = loss + 0.5 * plan.proximal_mu * away
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.inference_mode():
            after.append(weighted_loss(model(x), y, torch.ones(len(x))).item())
        pairs = zip(model.parameters(), base.parameters(), strict=True)
        delta = [(end - begin).detach().numpy() for end, begin in pairs]
        total += task.weight * flatten(delta).astype(np.float64)
    return total, during, after


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_sums_are_the_naive_loops_to_a_ten_thousandth_of_the_way(spec, plan):
    records = records_of(spec)
    start = spec.initial_parameters(1)
    tasks = make_tasks(6, base_version=1)
    executor = LocalExecutor(spec, plan, records)
    assert executor.path.name == "compiled"
    executor.set_weights(1, flatten(start))
    reduced = executor.reduce(tasks)
    total, during, after = naive_sum(spec, plan, records, tasks, start)
    (found,) = reduced.sums
    assert np.linalg.norm(found.total - total) <= 1e-4 * np.linalg.norm(total)
    assert [s.train_loss for s in reduced.statistics] == pytest.approx(during, abs=1e-5)
    if plan.outputs.losses:
        assert [s.loss_after for s in reduced.statistics] == pytest.approx(after, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 500, 1025])
def test_records_are_shuffled_as_on_the_device(count):
    order, block = np.empty(count, np.int64), np.empty(4, np.uint64)
    for seed in (0, 12_345, 2**64 - 1):
        for epoch in (0, 7):
            address = order.ctypes.data
            shuffled(address, count, np.uint64(seed), epoch, block.ctypes.data)
            np.testing.assert_array_equal(order, epoch_order(count, seed, epoch))


def test_a_client_that_leaves_the_numbers_says_at_which_step(spec, records, weights):
    for plan in (LocalPlan(3, 20, 10), LocalPlan(3, 5, 40)):
        executor = LocalExecutor(spec, plan, records)
        executor.set_weights(1, weights(1))
        tasks = make_tasks(6, base_version=1)
        tasks[2] = replace(tasks[2], learning_rate=1e38)
        found = executor.reduce(tasks).statistics
        assert [s.is_finite for s in found] == [i != 2 for i in range(6)]
        assert [s.diverged_step for s in found] == [0, 0, 2, 0, 0, 0]
        assert [s.diverged_step for s in executor.train(tasks)] == [0, 0, 2, 0, 0, 0]


def test_a_sum_is_the_same_for_any_order_of_tasks_and_any_grouping_by_lane(spec, records, weights):
    """As executors are given shares: those of a lane always together."""
    plan = LocalPlan(1, 20, 40)
    executor = LocalExecutor(spec, plan, records)
    executor.set_weights(1, weights(1))
    tasks = make_tasks(12, base_version=1)
    totals, statistics = executor.sum_on_grid(TaskColumns.of(tasks))
    home = executor.path.executor_of(3)
    shares = [[task for task in tasks[::-1] if home[task.data_client] == i] for i in range(3)]
    parts = [executor.sum_on_grid(TaskColumns.of(share)) for share in shares]
    np.testing.assert_array_equal(sum(part[1] for part, _ in parts), totals[1])
    assert {each for _, found in parts for each in found} == set(statistics)
