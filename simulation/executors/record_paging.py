"""Records that are more than memory holds: read ahead by time slice, and let go of afterwards.

Which clients train next is known before they do (FLINT, section 3.4: partitions are paged by slices
of the schedule). So the rows of a slice are asked for at once, and read while its first clients
train; and a process that has come through as many bytes as it may keep unmaps them. Rows are read
from the page cache, which all processes of a machine share; what nobody maps goes when memory is
wanted for something else.
"""

import contextlib
import ctypes
import functools
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulation.executors.executor import TrainingTask
from simulation.executors.machine_memory import memory_bytes
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import TaskColumns

_SHARE_OF_MEMORY = 4
"""A file of less than one part in so many of all memory stays mapped once it is read."""
_GAP_BYTES = 128 * 1024
"""Rows nearer to each other than what a disk reads at a time are asked for together."""
_NOT_PAGED = contextlib.nullcontext()


class RecordPaging:
    """Pages of a records file, as one process comes through it.

    Records that are in no file, or in one that is small beside memory, are left alone.

    Args:
        newest: A task trains on so many of a client's records, the last ones.
        resident_bytes: That this process may have mapped; None: a quarter of memory.
    """

    def __init__(
        self, records: ClientRecords, newest: int, resident_bytes: int | None = None
    ) -> None:
        self._records = records
        self._newest = newest
        self._resident_bytes = (
            memory_bytes() // _SHARE_OF_MEMORY if resident_bytes is None else resident_bytes
        )
        self._touched_bytes = 0
        self.is_paged = (
            records.path is not None
            and records.file_bytes > self._resident_bytes
            and all(_is_mapped_from(records.path, each) for each in (records.x, records.y))
        )

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Have these clients' rows read, without waiting: tasks on them are to come.

        Args:
            data_clients: Shape ``(tasks,)``, in any order.
        """
        if not self.is_paged or len(data_clients) == 0:
            return
        begin, end = self._rows(data_clients)
        for column in (self._records.x, self._records.y):
            for at, size in _merged(column.ctypes.data, column.strides[0], begin, end):
                _advise(at, size, mmap.MADV_WILLNEED)

    def slice_of(self, tasks: Sequence[TrainingTask]) -> contextlib.AbstractContextManager[None]:
        """Train some tasks: read ahead at their begin, and let go at the end if it was much.

        Raises:
            UnusableRecords: If the file has become shorter.
        """
        self._records.require_whole()
        if not self.is_paged:
            return _NOT_PAGED
        data_clients = np.unique(TaskColumns.of(tasks).data_client)
        self.expect(data_clients)
        return self._paged(*self._rows(data_clients))

    def slice_of_rows(
        self, begin: NDArray[np.int64], records: NDArray[np.int64]
    ) -> contextlib.AbstractContextManager[None]:
        """The same of tasks whose rows are known, and are being read already.

        Args:
            begin: First row of each task, shape ``(tasks,)``; some may be of the same.
            records: How many it has.
        """
        self._records.require_whole()
        return self._paged(begin, begin + records) if self.is_paged else _NOT_PAGED

    @contextlib.contextmanager
    def _paged(self, begin: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[None]:
        yield
        columns = (self._records.x, self._records.y)
        self._touched_bytes += int((end - begin).sum()) * sum(c.strides[0] for c in columns)
        if self._touched_bytes * 2 > self._resident_bytes:
            for column in columns:
                _advise(column.ctypes.data, column.nbytes, mmap.MADV_DONTNEED)
            self._touched_bytes = 0

    def _rows(self, data_clients: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        held = self._records.records[data_clients]
        end = self._records.first_row[data_clients] + held
        return end - np.minimum(held, self._newest), end


def _merged(
    base: int, stride: int, begin: NDArray[np.int64], end: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Addresses and sizes that cover some rows, each a run of rows near each other."""
    order = np.argsort(begin, kind="stable")
    start, stop = base + begin[order] * stride, base + end[order] * stride
    stop = np.maximum.accumulate(stop)
    is_first = np.concatenate(([True], start[1:] > stop[:-1] + _GAP_BYTES))
    is_last = np.concatenate((is_first[1:], [True]))
    sizes = stop[is_last] - start[is_first]
    return list(zip(start[is_first].tolist(), sizes.tolist(), strict=True))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _advise(address: int, size: int, advice: int) -> None:
    aligned = address - address % mmap.PAGESIZE
    length = ctypes.c_size_t(address + size - aligned)
    if _libc().madvise(ctypes.c_void_p(aligned), length, ctypes.c_int(advice)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"madvise: {os.strerror(code)}")


def mapped_spans(path: Path) -> list[tuple[int, int]]:
    """Where this process has a file mapped: first addresses, and those after the last.

    Empty where the system does not say.
    """
    try:
        mappings = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    wanted = str(path.resolve())
    found = []
    for line in mappings:
        span, _, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" and name == [wanted]:
            begin, end = (int(each, 16) for each in span.split("-"))
            found.append((begin, end))
    return found


def _is_mapped_from(path: Path, column: NDArray[np.generic]) -> bool:
    """Whether an array lies in a mapping of a file: only such pages can be had again."""
    first, last = column.ctypes.data, column.ctypes.data + column.nbytes
    return any(begin <= first and last <= end for begin, end in mapped_spans(path))
