"""The executor of this process: one thread, one task after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.spec import ModelSpec
from server.aggregation.aggregator import PartialSum
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan, LocalUpdate, one_thread, train_locally

_CHUNK = 32_768  # as a gateway's: chunk, scaled copy and accumulator stay in cache


class LocalExecutor:
    """An `Executor` that trains in this process as the clients' devices would.

    The same bits come out whatever else the process does and however many cores it has: every
    task is trained on one thread, from aligned copies of its records.
    """

    def __init__(self, model: ModelSpec, plan: LocalPlan, records: ClientRecords) -> None:
        self._model = model
        self._plan = plan
        self._records = records
        self._weights: dict[int, Tensor] = {}
        self._kept: dict[str, _Trained] = {}
        self._scratch = np.empty(_CHUNK, np.float32)

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from; see `Executor.set_weights`."""
        if weights.shape != (self._model.parameter_count,):
            raise ValueError(
                f"weights of shape {weights.shape}; {self._model.name} has "
                f"{self._model.parameter_count} parameters"
            )
        self._weights[version] = torch.tensor(weights)

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._weights = {v: weights for v, weights in self._weights.items() if v >= before}
        self._kept = {i: kept for i, kept in self._kept.items() if kept.base_version >= before}

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now and keep the updates; see `Executor.train`."""
        with one_thread():
            for task in tasks:
                if task.task_id not in self._kept:
                    self._kept[task.task_id] = self._trained(task)
        return [self._kept[task.task_id].statistics for task in tasks]

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates in their order; see `Executor.reduce`."""
        sums: dict[int, _Sum] = {}
        statistics = []
        with one_thread():
            for task in tasks:
                trained = self._kept.pop(task.task_id, None) or self._trained(task)
                statistics.append(trained.statistics)
                if trained.statistics.is_finite:
                    bucket = sums.get(task.base_version)
                    if bucket is None:
                        bucket = sums[task.base_version] = _Sum(self._model.parameter_count)
                    bucket.add(task, trained.update, self._scratch)
        partials = tuple(sums[version].partial(version) for version in sorted(sums))
        return Reduced(partials, tuple(statistics))

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates that were trained and are not wanted."""
        for task_id in task_ids:
            self._kept.pop(task_id, None)

    def close(self) -> None:
        """Let go of everything."""
        self._weights.clear()
        self._kept.clear()

    def _trained(self, task: TrainingTask) -> "_Trained":
        x, y = self._records.of(task.data_client, newest=self._plan.max_records)
        if len(x) == 0:
            raise ValueError(f"data client {task.data_client} has no records to train on")
        update = train_locally(
            self._model,
            self._plan,
            self._weights[task.base_version],
            x,
            y,
            learning_rate=task.learning_rate,
            shuffle_seed=task.shuffle_seed,
        )
        statistics = UpdateStatistics(
            task.task_id,
            update.num_examples,
            update.norm,
            update.loss_before,
            update.loss_after,
            # Beyond this the gate refuses an update, lest the sum overflow.
            update.is_finite and task.weight * update.norm <= SUMMABLE_NORM,
        )
        return _Trained(task.base_version, statistics, update)


@dataclass(frozen=True, slots=True)
class _Trained:
    base_version: int
    statistics: UpdateStatistics
    update: LocalUpdate


@dataclass
class _Sum:
    """Running sum of one base version, as a gateway's bucket."""

    parameters: int
    weight: float = 0.0
    task_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.parameters, np.float32)

    def add(self, task: TrainingTask, update: LocalUpdate, scratch: NDArray[np.float32]) -> None:
        update.add_to(self.total, task.weight, scratch)
        self.weight += task.weight
        self.task_ids.append(task.task_id)

    def partial(self, base_version: int) -> PartialSum:
        return PartialSum(base_version, self.total, self.weight, tuple(self.task_ids))
