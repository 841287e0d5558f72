"""The buffers of `simulation.executors.compiled.sample_space`."""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.layout import Layout, padded_columns
from simulation.executors.compiled.sample_space import Samples
from simulation.executors.compiled.tiles import ROWS


class SampleBuffers:
    """Memory for the rows of clients that are summed together, and for one in training.

    Args:
        rows: Steps times records of one client, at most.
        records: Of one client, at most.
        group_rows: See `sample_space.sum_samples`.
    """

    def __init__(self, layout: Layout, rows: int, records: int, group_rows: int) -> None:
        self._buffers: list[NDArray[np.float32]] = []
        tasks = layout.levels[-1].width
        in_group = group_rows + rows
        square = padded_columns(rows + ROWS)
        self.step_labels = self._room(records, tasks)
        self.addresses = Samples(
            inputs=self._rooms(layout, in_group),
            gradients=self._rooms(layout, in_group),
            at_base=self._rooms(layout, records),
            base_sums=self._room(records, layout.levels[1].columns),
            square=square,
            alike=self._room(rows, square),
            alike_gradients=self._room(rows, square),
            labels=self._room(records, tasks),
        )

    def _rooms(self, layout: Layout, rows: int) -> NDArray[np.int64]:
        return np.array([self._room(rows, level.columns) for level in layout.levels], np.int64)

    def _room(self, rows: int, columns: int) -> int:
        """Address of zeros, with room for a tile beyond the rows."""
        self._buffers.append(np.zeros((rows + 2 * ROWS, columns), np.float32))
        return self._buffers[-1].ctypes.data
