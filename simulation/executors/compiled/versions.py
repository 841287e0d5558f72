"""Versions' weights where the kernel reads them, in memory that is used again."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.buffers import zeros
from simulation.executors.compiled.layout import Layout
from simulation.executors.compiled.packing import pack

_NOBODY = np.iinfo(np.int64).min
"""Number of a row that no version has."""
_LINE = 16
"""Floats of a line of the cache."""


def version_floats(layout: Layout) -> int:
    """Floats of memory that a version takes: norms, padded dense parameters and the table."""
    return _norms_floats(layout) + layout.padded + layout.table_rows * layout.table_width


def _norms_floats(layout: Layout) -> int:
    return -(-2 * (1 + len(layout.layers)) // _LINE) * _LINE


class Versions:
    """The versions that tasks start from.

    Attributes:
        rows: Of each, its number and where its parameters are; see `network.network_of`. Shape
            ``(versions, 4)``; some rows may be nobody's.

    Args:
        fixed: See `network.network_of`, as ``layers``.
        new_room: Gives zeros for a version's parameters, shape ``(version_floats(layout),)``;
            None: memory of its own.
    """

    def __init__(
        self,
        layout: Layout,
        fixed: NDArray[np.int64],
        layers: NDArray[np.int64],
        new_room: Callable[[], NDArray[np.float32]] | None = None,
    ) -> None:
        self._layout, self._fixed, self._layers = layout, fixed, layers
        self._new_room = new_room or (lambda: zeros(version_floats(layout), np.float32))
        self._rooms: list[NDArray[np.float32]] = []
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._displaced: list[tuple[int, int]] = []
        self.rows = np.empty((0, 4), np.int64)

    def __contains__(self, version: int) -> bool:
        """Whether it can be started from."""
        return version in self._row_of

    def __len__(self) -> int:
        """How many there are."""
        return len(self._row_of)

    def set(self, version: int, weights: NDArray[np.float32], *, is_replaced: bool = True) -> None:
        """Copy a version's parameters, in wire order, shape ``(parameters,)``.

        Args:
            is_replaced: Whether memory of other parameters of this version may be used for them;
                else those stay, for whoever has their `row`, until the version is forgotten.
        """
        row = self._row_of.get(version)
        if row is not None and not is_replaced:
            self._displaced.append((version, row))
            self.rows[row, 0] = _NOBODY
            row = None
        if row is None:
            if not self._free:
                self._add_row()
            row = self._row_of[version] = self._free.pop()
            self.rows[row, 0] = version
        pack(np.ascontiguousarray(weights, np.float32), self._fixed, self._layers, self.rows[row])

    def place(self, version: int) -> int:
        """Number of a version's row."""
        return self._row_of[version]

    def adopt(self, version: int, place: int) -> None:
        """Know a version that another process has put into the memory of a row, which this maps."""
        while len(self._rooms) <= place:
            self._add_row()
        before = self._row_of.get(version)
        if before is not None and self.rows[before, 0] == version:
            self.rows[before, 0] = _NOBODY
        self._row_of[version] = place
        self.rows[place, 0] = version

    def adopt_all(self, numbers: NDArray[np.int64]) -> None:
        """Know the versions of all rows that another process has put into memory which this maps.

        Args:
            numbers: Of the versions of its rows, shape ``(rows,)``.
        """
        while len(self._rooms) < len(numbers):
            self._add_row()
        self.rows[: len(numbers), 0] = numbers

    def row(self, version: int) -> NDArray[np.int64]:
        """`rows` with this version alone.

        Raises:
            KeyError: If it is not known.
        """
        row = self._row_of[version]
        return self.rows[row : row + 1].copy()

    def forget(self, before: int) -> None:
        """Forget all smaller versions."""
        for version in [version for version in self._row_of if version < before]:
            row = self._row_of.pop(version)
            if self.rows[row, 0] == version:
                self.rows[row, 0] = _NOBODY
            self._free.append(row)
        if self._displaced:
            self._free += [row for version, row in self._displaced if version < before]
            self._displaced = [each for each in self._displaced if each[0] >= before]

    def _add_row(self) -> None:
        room = self._new_room()
        norms = room.ctypes.data
        packed = norms + 4 * _norms_floats(self._layout)
        row = [_NOBODY, packed, packed + 4 * self._layout.padded, norms]
        self._free.append(len(self._rooms))
        self._rooms.append(room)
        self.rows = np.concatenate([self.rows, np.array([row], np.int64)])
