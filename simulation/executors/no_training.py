"""An executor that trains nothing: dry-runs that ask for system metrics alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics


class NoTraining:
    """An `Executor` whose updates are all zero, with the weights and ids of real ones."""

    def __init__(self, parameter_count: int, examples: NDArray[np.int64] | None = None) -> None:
        """Prepare.

        Args:
            parameter_count: Of the model.
            examples: Records a task of each data client would train on, shape ``(clients,)``;
                without it tasks report 0.
        """
        self._zeros = np.zeros(parameter_count, np.float32)
        self._zeros.flags.writeable = False
        self._examples = examples

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Weights are not needed."""

    def forget_weights(self, before: int) -> None:
        """There are none."""

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Records are not needed."""

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Statistics of zero updates; their losses are not known."""
        return tuple(
            UpdateStatistics(t.task_id, self._examples_of(t), math.nan, True, update_norm=0.0)
            for t in tasks
        )

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sums of zeros; all share one read-only array."""
        by_version: dict[int, list[TrainingTask]] = {}
        for task in tasks:
            by_version.setdefault(task.base_version, []).append(task)
        sums = tuple(
            PartialSum(
                version,
                self._zeros,
                sum(task.weight for task in by_version[version]),
                tuple(task.task_id for task in by_version[version]),
            )
            for version in sorted(by_version)
        )
        return Reduced(sums, tuple(self.train(tasks)))

    def forget(self, task_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """Nothing was left out."""

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """There are none."""

    def residuals(self) -> Mapping[str, Any]:
        """There are none."""
        return {}

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing was started."""

    def _examples_of(self, task: TrainingTask) -> int:
        return 0 if self._examples is None else int(self._examples[task.data_client])
