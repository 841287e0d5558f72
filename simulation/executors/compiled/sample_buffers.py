"""The buffers of `simulation.executors.compiled.sample_rows`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.buffers import zeros
from simulation.executors.compiled.layout import Layout, padded_columns
from simulation.executors.compiled.sample_rows import Samples
from simulation.executors.compiled.tiles import ROWS, TILE

_SEGMENT_ROWS = 128
"""Rows of a lane that are summed by one product; more do not make it faster."""
_CAPACITY_BYTES = 8 * 2**20
"""Of rows that wait for being summed; more are no faster, as they leave the caches."""


class SampleBuffers:
    """Memory for the rows of clients that are summed together, and for one in training.

    Attributes:
        rooms: For `sample_rows.samples_of`, as ``numbers``.

    Args:
        rows: Steps times records of one client, at most.
        records: Of one client, at most.
    """

    def __init__(self, layout: Layout, rows: int, records: int) -> None:
        self._buffers: list[NDArray[Any]] = []
        tasks = layout.levels[-1].width
        capacity = rows_that_wait(layout)
        square = padded_columns(rows + ROWS)
        in_block = _SEGMENT_ROWS + layout.capacity
        addresses = Samples(
            inputs=self._rooms(layout, rows_together(layout, rows)),
            gradients=self._rooms(layout, rows_together(layout, rows)),
            at_base=self._rooms(layout, records),
            base_sums=self._room(records, layout.levels[1].columns),
            square=square,
            alike=self._room(rows, square),
            alike_gradients=self._room(rows, square),
            labels=self._room(max(records, in_block), tasks),
            step_labels=self._room(records, tasks),
            ends=self._room(rows_together(layout, rows), 2),
            tile=self._room(4 * ROWS, TILE),
            capacity=capacity,
            segment=_SEGMENT_ROWS,
        )
        self.rooms = np.stack(addresses[:3])
        self.numbers = np.array(addresses[3:], np.int64)

    def _rooms(self, layout: Layout, rows: int) -> NDArray[np.int64]:
        return np.array([self._room(rows, level.columns) for level in layout.levels], np.int64)

    def _room(self, rows: int, columns: int) -> int:
        """Address of zeros, with room for a tile beyond the rows."""
        self._buffers.append(zeros((rows + 2 * ROWS) * columns, np.float32))
        return self._buffers[-1].ctypes.data


def rows_that_wait(layout: Layout) -> int:
    """After how many rows those so far are summed."""
    row_bytes = 8 * sum(level.columns for level in layout.levels)
    return max(_SEGMENT_ROWS, _CAPACITY_BYTES // row_bytes)


def rows_together(layout: Layout, rows: int) -> int:
    """Room for rows that wait and one more segment, whose last client comes when it is nearly full.

    Args:
        rows: Steps times records of one client, at most.
    """
    return rows_that_wait(layout) + _SEGMENT_ROWS + max(rows, layout.capacity)
