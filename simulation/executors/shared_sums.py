"""Sums that several executor processes have made of their shares, put together."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum
from simulation.executors.executor import Reduced
from simulation.executors.task_columns import StatisticsColumns, TaskColumns

_AT_A_TIME = 16_384
"""Parameters that are added in the nearest cache."""


def reduced(
    tasks: TaskColumns,
    totals: Mapping[int, Sequence[NDArray[np.float64]]],
    statistics: StatisticsColumns,
) -> Reduced:
    """As an `Executor` answers.

    Args:
        totals: By base version that has a finite update: a sum on the grid of each process that
            trained from it, shape ``(parameters,)``.
        statistics: In the order of the tasks.
    """
    sums = []
    for version in sorted(totals):
        is_counted = statistics.is_finite & (tasks.base_version == version)
        weights, ids = tasks.weight, tasks.task_ids
        if not is_counted.all():
            counted = np.flatnonzero(is_counted)
            weights, ids = weights[counted], tasks.ids_of(counted)
        weight = float(np.add.accumulate(weights)[-1])  # one after the other
        sums.append(PartialSum(version, _added(totals[version]), weight, ids))
    return Reduced(tuple(sums), statistics)


def _added(totals: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Their sum, exact in any order as all are on the grid, rounded once."""
    first, *others = totals
    if not others:
        return first.astype(np.float32)
    whole = np.empty(len(first), np.float32)
    room = np.empty(min(_AT_A_TIME, len(first)), np.float64)  # once: new pages cost more than sums
    for begin in range(0, len(first), _AT_A_TIME):
        part = slice(begin, begin + _AT_A_TIME)
        added = np.add(first[part], others[0][part], out=room[: len(whole[part])])
        for other in others[1:]:
            added += other[part]
        whole[part] = added
    return whole
