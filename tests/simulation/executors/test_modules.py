"""Any torch module against the naive loop, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from device_runtime.update_codec import flatten
from modeling.torch_models import weighted_loss
from modeling.zoo import EMBEDDING_MLP, TINY_MLP
from simulation.executors.local import LocalExecutor
from simulation.executors.modules import ModuleNotTrainable, ModuleTraining, NoSuchDevice
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.training import LocalPlan
from tests.simulation.executors.compiled.conftest import records_of
from tests.simulation.executors.compiled.test_kernel import naive_sum
from tests.simulation.executors.conftest import EVERYTHING, PLAN, make_tasks
from tests.simulation.executors.contract import ExecutorContract


class TestModuleExecutor(ExecutorContract):
    """The model's torch module on the CPU."""

    @pytest.fixture
    def executor(self, spec, records) -> LocalExecutor:
        return LocalExecutor(spec, replace(PLAN, by_module=True), records)


@pytest.mark.parametrize("spec", [TINY_MLP, EMBEDDING_MLP], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "plan",
    [LocalPlan(3, 7, 30), LocalPlan(2, 20, 40, proximal_mu=0.5, outputs=EVERYTHING)],
    ids=["three epochs", "pulled back"],
)
def test_sums_are_the_naive_loops_to_a_ten_thousandth_of_the_way(spec, plan):
    records = records_of(spec)
    start = spec.initial_parameters(1)
    tasks = make_tasks(6, base_version=1)
    executor = LocalExecutor(spec, replace(plan, by_module=True), records)
    executor.set_weights(1, flatten(start))
    reduced = executor.reduce(tasks)
    total, during, after = naive_sum(spec, plan, records, tasks, start)
    (found,) = reduced.sums
    assert np.linalg.norm(found.total - total) <= 1e-4 * np.linalg.norm(total)
    assert [s.train_loss for s in reduced.statistics] == pytest.approx(during, abs=1e-5)
    if plan.outputs.losses:
        assert [s.loss_after for s in reduced.statistics] == pytest.approx(after, abs=1e-5)


class _Normalised(nn.Module):
    """Layers that no `ModelSpec` has."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(nn.Linear(40, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.steps(inputs)


def test_a_module_of_foreign_layers_is_trained_alike_many_at_a_time_and_one_by_one():
    torch.manual_seed(0)
    module = _Normalised()
    base = torch.cat([p.detach().flatten() for p in module.parameters()])
    records = records_of(TINY_MLP)
    tasks = make_tasks(6, base_version=1)
    found = []
    for stacks in (True, False):
        training = ModuleTraining(module, weighted_loss, PLAN, records, "cpu", stacks=stacks)
        found.append(list(training.updates(base, tasks)))
    for together, alone in zip(*found, strict=True):
        assert np.linalg.norm(together.delta - alone.delta) <= 1e-4 * alone.norm
        assert together.loss_after == pytest.approx(alone.loss_after, abs=1e-5)
        assert alone.loss_after < alone.loss_before


def test_what_a_module_cannot_do_is_said():
    records = records_of(TINY_MLP)
    normed = nn.Sequential(nn.Linear(40, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ModuleNotTrainable, match=r"layer 1 keeps statistics .*BatchNorm1d"):
        ModuleTraining(normed, weighted_loss, PLAN, records, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(NoSuchDevice, match=r"training\.device .*torch finds no GPU"):
            ModuleTraining(nn.Linear(40, 1), weighted_loss, PLAN, records, "cuda")


@pytest.mark.parametrize("by_module", [False, True])
def test_a_client_without_records_is_named(by_module):
    whole = records_of(TINY_MLP)
    records = ClientRecords(
        whole.x, whole.y, whole.first_row, np.where(np.arange(6) == 3, 0, whole.records)
    )
    executor = LocalExecutor(TINY_MLP, replace(PLAN, by_module=by_module), records)
    executor.set_weights(1, flatten(TINY_MLP.initial_parameters(1)))
    with pytest.raises(ClientWithoutRecords, match="client 3 of the data set"):
        executor.reduce(make_tasks(6, base_version=1))
