"""Rows of numbers that a run and its executor processes all see: weights of versions, sums."""

import mmap
import os
import tempfile
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


def new_memory() -> int:
    """Descriptor of memory without a name, of no bytes yet."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("flint-executors")
    with tempfile.TemporaryFile(prefix="flint-executors-") as file:
        return os.dup(file.fileno())


class SharedRows:
    """Rows of one width in memory that several processes map.

    The memory has no name: a process gets at it by an inherited descriptor, and it is gone with the
    last of them however that ends. Rows come into being when they are first asked for, as zeros.

    Args:
        descriptor: Of the memory; closed with this.
        width: Numbers of a row.
    """

    def __init__(self, descriptor: int, width: int, dtype: DTypeLike) -> None:
        self.descriptor = descriptor
        self._width = width
        self._dtype = np.dtype(dtype)
        pages = -(-width * self._dtype.itemsize // mmap.ALLOCATIONGRANULARITY)
        self._stride_bytes = max(1, pages) * mmap.ALLOCATIONGRANULARITY
        self._chunks: list[NDArray[Any]] = []

    @classmethod
    def create(cls, width: int, dtype: DTypeLike) -> Self:
        """Take new memory, of no rows yet."""
        return cls(new_memory(), width, dtype)

    def row(self, number: int) -> NDArray[Any]:
        """A row, from 0, shape ``(width,)``; what one process writes all others see."""
        # A chunk holds twice the rows of the one before: each is a mapping of its own.
        at = (number + 1).bit_length() - 1
        while len(self._chunks) <= at:
            self._chunks.append(self._mapped(len(self._chunks)))
        row: NDArray[Any] = self._chunks[at][number + 1 - (1 << at)]
        return row

    def close(self) -> None:
        """Let go of the memory; rows already handed out stay valid."""
        self._chunks.clear()
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def _mapped(self, chunk: int) -> NDArray[Any]:
        rows, before = 1 << chunk, (1 << chunk) - 1
        end = (before + rows) * self._stride_bytes
        if os.fstat(self.descriptor).st_size < end:
            os.ftruncate(self.descriptor, end)
        mapped = mmap.mmap(
            self.descriptor, rows * self._stride_bytes, offset=before * self._stride_bytes
        )
        wide = np.frombuffer(mapped, self._dtype).reshape(rows, -1)
        return wide[:, : self._width]
