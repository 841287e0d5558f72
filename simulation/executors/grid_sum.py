"""Sums of updates that do not depend on who adds what first.

A dry-run is sensitive to its last bits: an Adam step and three local epochs turn a rounding into
another trajectory within a few versions. So every term is rounded to a fixed grid before it is
added, and additions are then exact: any order and any grouping over processes give the same bits
(pre-rounded summation; Demmel and Nguyen, ARITH 2013). A gateway folds in float32 in order of
arrival; the two differ by rounding only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.training import LocalUpdate

GRID = 2.0**-30
"""Terms are multiples of this; sums below 2**23 are exact in float64, larger ones are rounded."""

TO_GRID = 1.5 * 2.0**22
"""A float64 of this size has `GRID` as its last place."""


@dataclass
class GridSum:
    """Running sum of one base version.

    Attributes:
        total: Sum of ``c_i * delta_i``, shape ``(parameters,)``.
        weight: Sum of ``c_i``.
        task_ids: Whose updates are in it.
    """

    total: NDArray[np.float64]
    weight: float = 0.0
    task_ids: list[str] = field(default_factory=list)

    @classmethod
    def empty(cls, parameters: int) -> "GridSum":
        """A sum of nothing."""
        return cls(np.zeros(parameters, np.float64))

    def add(self, task_id: str, update: LocalUpdate, weight: float) -> None:
        """Add one update."""
        self.add_terms(update, weight)
        self.count(task_id, weight)

    def count(self, task_id: str, weight: float) -> None:
        """Note that ``total`` has a task's update in it."""
        self.weight += weight
        self.task_ids.append(task_id)

    def add_terms(self, update: LocalUpdate, weight: float) -> None:
        """Add one update to ``total``, and leave it to `count` to say whose it is."""
        terms = update.delta * np.float64(weight)
        terms += TO_GRID
        terms -= TO_GRID
        if update.rows is None:
            self.total += terms
        else:
            trained = update.rows.size * update.row_width
            rest = terms.size - trained
            table = self.total[: self.total.size - rest].reshape(-1, update.row_width)
            rows = torch.from_numpy(terms[:trained].reshape(-1, update.row_width))
            torch.from_numpy(table).index_add_(0, torch.from_numpy(update.rows), rows)
            self.total[self.total.size - rest :] += terms[trained:]

    def merge(self, other: "GridSum") -> None:
        """Add what another sum holds."""
        self.total += other.total
        self.weight += other.weight
        self.task_ids += other.task_ids

    def partial(self, base_version: int, order: Sequence[str]) -> PartialSum:
        """The sum as aggregators give it.

        Args:
            order: Ids of all tasks, in their order.
        """
        held = set(self.task_ids)
        task_ids = tuple(task_id for task_id in order if task_id in held)
        return PartialSum(base_version, self.total.astype(np.float32), self.weight, task_ids)


@dataclass(frozen=True, slots=True)
class GridSums:
    """What was trained of some tasks.

    Attributes:
        by_version: Sums by base version, of the finite updates.
        statistics: In the order of the tasks.
    """

    by_version: dict[int, GridSum]
    statistics: tuple[UpdateStatistics, ...]

    def merge(self, other: "GridSums") -> "GridSums":
        """Both together; this one's sums are changed in place."""
        for version, found in other.by_version.items():
            if version in self.by_version:
                self.by_version[version].merge(found)
            else:
                self.by_version[version] = found
        return GridSums(self.by_version, self.statistics + other.statistics)

    def reduced(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """As an `Executor` answers, in the order of all tasks."""
        order = [task.task_id for task in tasks]
        known = {found.task_id: found for found in self.statistics}
        sums = tuple(
            self.by_version[version].partial(version, order) for version in sorted(self.by_version)
        )
        return Reduced(sums, tuple(known[task_id] for task_id in order))
