"""Memory of an arrangement: of one process, or shared by several."""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.arranging import COLUMNS, HEADER, Arrangement
from simulation.executors.compiled.buffers import zeros


class TaskBlock:
    """Room for the arrangement of some tasks; see `simulation.executors.compiled.arranging`.

    Attributes:
        capacity: Tasks that there is room for.
        words: Shape ``(block_words(capacity),)``.
        address: Of these.
        columns: See `Arrangement`, each of shape ``(capacity,)``; also by their own names:
        version: int64.
        grouped: int64.
        group_end: int64.
        group_weight: float64.
        unasked: Room for outcomes that nobody asks for, shape ``(3, capacity)``.

    Args:
        words: Memory for it; None for memory of its own.
    """

    def __init__(self, capacity: int, words: NDArray[np.int64] | None = None) -> None:
        self.capacity = capacity
        size = block_words(capacity)
        self.words: NDArray[np.int64] = zeros(size, np.int64) if words is None else words
        self.address: int = self.words.ctypes.data
        columns = self.words[HEADER:].reshape(COLUMNS, capacity)
        self.columns = dict(zip(Arrangement._fields, columns, strict=True))
        self.version, self.grouped = self.columns["version"], self.columns["grouped"]
        self.group_end = self.columns["group_end"]
        self.group_weight: NDArray[np.float64] = self.columns["group_weight"].view(np.float64)
        self.unasked = np.empty((3, capacity), np.float64)


def block_words(capacity: int) -> int:
    """Words that the arrangement of so many tasks takes."""
    return HEADER + COLUMNS * capacity
