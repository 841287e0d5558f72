"""The executor of this process: one thread, one task after the other."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from device_runtime.compression import UpdateCodec
from modeling.spec import ModelSpec
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.client_residuals import ClientResiduals
from simulation.executors.compiled.training import BaseVersion, CompiledTraining
from simulation.executors.compressed import compressed
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.grid_sum import GridSum, GridSums
from simulation.executors.paths import TrainingPath, choose_path
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan, LocalUpdate, one_thread, train_locally


class LocalExecutor:
    """An `Executor` that trains in this process as the clients' devices would.

    The same bits come out whatever else the process does and however many cores it has: every
    task is trained on one thread, from aligned copies of its records.
    """

    def __init__(
        self,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        path: TrainingPath | None = None,
    ) -> None:
        """Prepare.

        Args:
            path: How to train; None means `choose_path`'s choice.
        """
        self._model = model
        self._parameters = model.parameter_count
        self._plan = plan
        self._records = records
        self._weights: dict[int, Tensor] = {}
        self.path = path or choose_path(model, plan, records)
        self._compiled: CompiledTraining | None = None
        if self.path.name == "compiled":
            self._compiled = CompiledTraining(model, plan, records, self.path.in_samples)
        self._bases: dict[int, BaseVersion] = {}
        self._kept: dict[str, _Trained] = {}
        self._spare: list[NDArray[np.float64]] = []
        self._residuals = ClientResiduals()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from; see `Executor.set_weights`."""
        if weights.shape != (self._parameters,):
            raise ValueError(
                f"weights of shape {weights.shape}; {self._model.name} has {self._parameters} "
                "parameters"
            )
        if self._compiled is None:
            self._weights[version] = torch.tensor(weights)
        else:
            self._bases[version] = self._compiled.base(weights)

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._weights = {v: weights for v, weights in self._weights.items() if v >= before}
        self._bases = {v: base for v, base in self._bases.items() if v >= before}
        self.forget([i for i, kept in self._kept.items() if kept.base_version < before])
        if not self._weights and not self._bases:
            self._residuals.clear()

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now and keep the updates; see `Executor.train`."""
        with one_thread():
            for task in tasks:
                if task.task_id not in self._kept:
                    self._kept[task.task_id] = self._trained(task)
        return [self._kept[task.task_id].statistics for task in tasks]

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates; see `Executor.reduce`."""
        sums = self.sum_on_grid(tasks)
        reduced = sums.reduced(tasks)
        self._spare = [each.total for each in sums.by_version.values()]
        return reduced

    def sum_on_grid(self, tasks: Sequence[TrainingTask]) -> GridSums:
        """`reduce`, as it can still be added to what others sum."""
        sums: dict[int, GridSum] = {}
        found: dict[str, UpdateStatistics] = {}
        together: dict[int, list[TrainingTask]] = {}
        again: dict[int, tuple[BaseVersion, list[TrainingTask]]] = {}
        in_groups = self._compiled is not None and self._plan.codec is None
        with contextlib.nullcontext() if in_groups else one_thread():
            for task in tasks:
                trained = self._kept.pop(task.task_id, None) if self._kept else None
                if trained is None and in_groups:
                    together.setdefault(task.base_version, []).append(task)
                    continue
                if trained is not None and trained.again_from is not None:
                    base = trained.again_from
                    if base is self._bases.get(task.base_version):
                        together.setdefault(task.base_version, []).append(task)
                    else:
                        again.setdefault(id(base), (base, []))[1].append(task)
                    continue
                trained = trained or self._trained(task)
                found[task.task_id] = trained.statistics
                if trained.update is not None and trained.statistics.is_finite:
                    self._sum_of(task.base_version, sums).add_terms(trained.update, task.weight)
            groups = [(self._bases[version], group) for version, group in together.items()]
            for base, group in [*groups, *again.values()]:
                total = self._sum_of(group[0].base_version, sums).total
                for statistics in self._kernel().sum(base, group, total):
                    found[statistics.task_id] = statistics
        for task in tasks:
            if found[task.task_id].is_finite:
                sums[task.base_version].count(task.task_id, task.weight)
        counted = {version: each for version, each in sums.items() if each.task_ids}
        return GridSums(counted, tuple([found[task.task_id] for task in tasks]))

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates that were trained and are not wanted."""
        for task_id in task_ids:
            self._kept.pop(task_id, None)
            for later in self._residuals.forget(task_id):
                self._kept.pop(later, None)

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        self._residuals.count(task_ids)

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        self._residuals.forget_clients(clients)

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        return self._residuals.state()

    def restore_residuals(self, state: Mapping[str, Any], *, share: int = 0, of: int = 1) -> None:
        """Go on after `residuals`; see `ClientResiduals.restore`."""
        self._residuals.restore(state, share=share, of=of)

    def close(self) -> None:
        """Let go of everything."""
        self._weights.clear()
        self._bases.clear()
        self._kept.clear()
        self._spare.clear()
        self._residuals.clear()

    def _sum_of(self, version: int, sums: dict[int, GridSum]) -> GridSum:
        if version not in sums:
            if self._spare:  # memory that is mapped already
                self._spare[-1].fill(0.0)
                sums[version] = GridSum(self._spare.pop())
            else:
                sums[version] = GridSum.empty(self._parameters)
        return sums[version]

    def _trained(self, task: TrainingTask) -> "_Trained":
        if self._compiled is not None and self.path.in_samples[task.data_client]:
            # Its update is rounded as part of its group's, so the group is trained again.
            base = self._bases[task.base_version]
            (statistics,) = self._compiled.sum(base, [task], None)
            return _Trained(task.base_version, statistics, None, base)
        update = self.learned(task)
        if self._plan.codec is not None and update.is_finite:
            update = self._compressed(task, update, self._plan.codec)
        norm = update.norm if self._plan.outputs.norms else None
        statistics = UpdateStatistics(
            task.task_id,
            update.num_examples,
            update.train_loss,
            # Beyond this the gate refuses an update, lest the sum overflow.
            update.is_finite and task.weight * update.norm <= SUMMABLE_NORM,
            update.diverged_step,
            norm,
            update.loss_before,
            update.loss_after,
        )
        return _Trained(task.base_version, statistics, update)

    def learned(self, task: TrainingTask) -> LocalUpdate:
        """What one task changes, before its update is compressed."""
        if self._compiled is not None:
            return self._compiled.learned(self._bases[task.base_version], task)
        x, y = self._records.of(task.data_client, newest=self._plan.max_records)
        if len(x) == 0:
            raise ValueError(f"data client {task.data_client} has no records to train on")
        return train_locally(
            self._model,
            self._plan,
            self._weights[task.base_version],
            x,
            y,
            learning_rate=task.learning_rate,
            shuffle_seed=task.shuffle_seed,
        )

    def _kernel(self) -> CompiledTraining:
        if self._compiled is None:
            raise ValueError(f"{self._model.name} is not trained by the compiled kernel")
        return self._compiled

    def _compressed(
        self, task: TrainingTask, update: LocalUpdate, codec: UpdateCodec
    ) -> LocalUpdate:
        """The update as the server decodes it; what it leaves out is kept for the client's next."""
        if not codec.error_feedback:
            return compressed(self._model, update, codec, task.shuffle_seed)
        carried = self._residuals.of(task)
        whole = update.delta if carried is None else update.delta + carried
        sent = compressed(self._model, replace(update, delta=whole), codec, task.shuffle_seed)
        self._residuals.keep(task, update.delta - sent.delta)
        return sent


@dataclass(frozen=True, slots=True)
class _Trained:
    """A task whose update is wanted.

    Attributes:
        update: None for one that is trained again with those that it is summed with.
        again_from: The version that is done from.
    """

    base_version: int
    statistics: UpdateStatistics
    update: LocalUpdate | None
    again_from: BaseVersion | None = None
