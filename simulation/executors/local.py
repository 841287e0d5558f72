"""The executor of this process: one thread, one task after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.spec import ModelSpec
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.grid_sum import GridSum, GridSums
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan, LocalUpdate, one_thread, train_locally


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
        """Sum the tasks' updates; see `Executor.reduce`."""
        return self.sum_on_grid(tasks).reduced(tasks)

    def sum_on_grid(self, tasks: Sequence[TrainingTask]) -> GridSums:
        """`reduce`, as it can still be added to what others sum."""
        sums: dict[int, GridSum] = {}
        statistics = []
        with one_thread():
            for task in tasks:
                trained = self._kept.pop(task.task_id, None) or self._trained(task)
                statistics.append(trained.statistics)
                if trained.statistics.is_finite:
                    bucket = sums.get(task.base_version)
                    if bucket is None:
                        bucket = sums[task.base_version] = GridSum.empty(
                            self._model.parameter_count
                        )
                    bucket.add(task.task_id, trained.update, task.weight)
        return GridSums(sums, tuple(statistics))

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
