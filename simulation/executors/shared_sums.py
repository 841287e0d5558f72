"""Sums that several executor processes have made of their shares, put together."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum
from simulation.executors.executor import Reduced
from simulation.executors.shared_rows import SharedRows
from simulation.executors.task_columns import StatisticsColumns, TaskColumns

_AT_A_TIME = 16_384
"""Parameters that are added in the nearest cache."""


class SumRows:
    """Rows that the run sees, given out one after the other to be summed in.

    Args:
        rows: Of float64, a parameter each.
    """

    def __init__(self, rows: SharedRows) -> None:
        self._rows = rows
        self._given: list[NDArray[np.float64]] = []
        self._addresses = np.zeros(0, np.int64)

    def begin(self) -> None:
        """The run has read all rows."""
        self._given.clear()

    def new_total(self) -> NDArray[np.float64]:
        """A row, whatever it holds."""
        row: NDArray[np.float64] = self._rows.row(len(self._given))
        self._given.append(row)
        return row

    def row_of(self, total: NDArray[np.float64]) -> int:
        """Which row `new_total` gave."""
        return next(number for number, row in enumerate(self._given) if row is total)

    def row(self, number: int) -> NDArray[np.float64]:
        """A row, shape ``(parameters,)``."""
        row: NDArray[np.float64] = self._rows.row(number)
        return row

    def addresses(self, rows: int) -> NDArray[np.int64]:
        """Of the first rows, shape ``(rows,)``."""
        if rows > len(self._addresses):
            every = [self._rows.row(number).ctypes.data for number in range(2 * rows)]
            self._addresses = np.array(every, np.int64)
        return self._addresses[:rows]

    def close(self) -> None:
        """Let go of the memory."""
        self._given.clear()
        self._addresses = np.zeros(0, np.int64)
        self._rows.close()


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
