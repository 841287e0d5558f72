"""The board on which a run posts tasks, for all its executors to take one after the other.

A hundred small tasks are trained in less time than it takes to tell a process of them over a socket
and to wake it. So they lie as columns in memory that all map, executors write statistics where the
tasks are, and who waits for news looks at a word of that memory for a while before it sleeps.
Nobody deals tasks out: an executor takes the next ones by counting a word up, so none is idle while
another has some left, whatever they cost and whatever else the cores do.
"""

import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulation.executors.compiled.atomic import becomes, loses, read_word, write_word
from simulation.executors.executor import ClientOutputs
from simulation.executors.shared_rows import SharedRows, new_memory
from simulation.executors.task_columns import StatisticsColumns, TaskColumns, TaskIds

LOOK_S = 0.001
"""For so long a word is looked at before its reader sleeps. A core that sleeps is woken in about a
tenth of that, and an aggregation follows another by some tenths."""

_LOOKS = 1000
"""Half a microsecond; after so many, whoever else wants the core may have it."""
_LINE = 8
"""Words of a line of a cache: what different executors write is on different ones."""

_POSTED, _NEXT, _TASKS = 0, _LINE, 2 * _LINE
_VERSIONS, _FIRST_SUM, _OLDEST, _CAPACITY = range(_TASKS + 1, _TASKS + 5)
_OF_EXECUTORS = 3 * _LINE
_DONE, _SLEEPS, _PROGRESS, _IS_AWAITED = 0, 1, 2, 3

_TASK: dict[str, DTypeLike] = {
    "data_client": np.int64,
    "base_version": np.int64,
    "weight": np.float64,
    "learning_rate": np.float64,
    "shuffle_seed": np.uint64,
}
_STATISTICS: dict[str, DTypeLike] = {
    "num_examples": np.int64,
    "train_loss": np.float64,
    "is_finite": np.bool_,
    "diverged_step": np.int64,
}
_OUTPUTS: dict[str, DTypeLike] = {
    "update_norm": np.float64,
    "loss_before": np.float64,
    "loss_after": np.float64,
}
_COLUMNS = _TASK | _STATISTICS | _OUTPUTS | dict.fromkeys(("taker", "version", "row", "stamp"), np.int64)
_LEAST_CAPACITY = 512


class Claims(NamedTuple):
    """Where the kernel sees which tasks are next, and says that it takes them.

    Attributes:
        next: Address of the number of the next ones, int64.
        taker: Address of the executor of each task, int64; -1 for none yet.
        number: Of this executor.
    """

    next: int
    taker: int
    number: int


@dataclass(frozen=True, slots=True)
class Posted:
    """What is on the board; the arrays are the board's own.

    Attributes:
        tasks: All of them.
        statistics: Where their statistics go.
        taker: Executor that has taken each task, or -1.
        weights_of: See `TaskBoard.post`.
        first_sum: Row of an executor's sums for the first of these.
        oldest: No smaller version is used any more.
        claims: For the kernel.
    """

    tasks: TaskColumns
    statistics: StatisticsColumns
    taker: NDArray[np.int64]
    weights_of: Mapping[int, tuple[int, int]]
    first_sum: int
    oldest: int
    claims: Claims


class TaskBoard:
    """One executor's view of the board; the run's own is that of executor 0, and it alone posts.

    Args:
        number: Of the executor.
        executors: How many there are.
        outputs: What is computed of each update besides.
        descriptors: Of the memory that the run has made; None: the run makes it.
    """

    def __init__(
        self,
        number: int,
        executors: int,
        outputs: ClientOutputs,
        descriptors: tuple[int, int] | None = None,
    ) -> None:
        self._number, self._executors = number, executors
        asked = {"update_norm": outputs.norms}
        asked |= dict.fromkeys(("loss_before", "loss_after"), outputs.losses)
        self._outputs = tuple(name for name, is_asked in asked.items() if is_asked)
        words, self._memory = descriptors or (new_memory(), new_memory())
        self._rows = SharedRows(words, _OF_EXECUTORS + _LINE * executors, np.int64)
        self._words: NDArray[np.int64] = self._rows.row(0)
        self._first_word: int = self._words.ctypes.data
        self._columns: dict[str, NDArray[Any]] = {}
        self._capacity = 0

    @property
    def descriptors(self) -> tuple[int, int]:
        """Of the memory that all map."""
        return self._rows.descriptor, self._memory

    @property
    def progress(self) -> NDArray[np.int64]:
        """Of this executor: counted up with each task it has trained, shape ``(1,)``."""
        at = _OF_EXECUTORS + _LINE * self._number + _PROGRESS
        return self._words[at : at + 1]

    def progress_of(self, number: int) -> int:
        """The same of another one."""
        return int(self._words[_OF_EXECUTORS + _LINE * number + _PROGRESS])

    def post(
        self,
        tasks: TaskColumns,
        weights_of: Mapping[int, tuple[int, int]],
        *,
        first_sum: int,
        oldest: int,
    ) -> None:
        """Let executors take tasks; all must be done with those posted before.

        Args:
            weights_of: Of each version that a task starts from, ascending: row of its weights, and
                a number that is another one when the weights are.
            first_sum: Row of each executor's sums in which that of the first of these versions
                goes; those of the others follow.
            oldest: No smaller version is used any more.
        """
        count, versions = len(tasks), len(weights_of)
        if count > self._capacity:
            self._words[_CAPACITY] = max(_LEAST_CAPACITY, 1 << count.bit_length())
        self._map()
        for name in _TASK:
            self._columns[name][:count] = getattr(tasks, name)
        self._columns["taker"][:count] = -1
        self._columns["version"][:versions] = list(weights_of)
        for at, name in enumerate(("row", "stamp")):
            self._columns[name][:versions] = [each[at] for each in weights_of.values()]
        self._words[_NEXT] = 0
        self._words[_TASKS:_CAPACITY] = count, versions, first_sum, oldest
        write_word(self._first_word + 8 * _POSTED, int(self._words[_POSTED]) + 1)

    def is_asleep(self, number: int) -> bool:
        """Whether an executor has to be rung for what is posted."""
        return read_word(self._of(number, _SLEEPS)) != 0

    def is_done(self, number: int) -> bool:
        """Whether an executor finds nothing to take any more; looks for a while."""
        return _comes(self._of(number, _DONE), int(self._words[_POSTED]))

    def must_be_awaited(self, number: int) -> bool:
        """Have an executor ring when it is done; returns False if it is and does not."""
        write_word(self._of(number, _IS_AWAITED), 1)
        if read_word(self._of(number, _DONE)) != self._words[_POSTED]:
            return True
        return write_word(self._of(number, _IS_AWAITED), 0) == 0

    def admit(self, number: int) -> None:
        """An executor begins: it has nothing to do with what is posted now."""
        write_word(self._of(number, _SLEEPS), 0)
        write_word(self._of(number, _IS_AWAITED), 0)
        write_word(self._of(number, _DONE), int(self._words[_POSTED]))

    def is_news(self, *, look: bool) -> bool:
        """Whether something is posted that this executor has not done.

        Args:
            look: Whether to look for a while.
        """
        done = read_word(self._of(self._number, _DONE))
        if look:
            return _changes(self._first_word + 8 * _POSTED, done)
        return read_word(self._first_word + 8 * _POSTED) != done

    def must_sleep(self) -> bool:
        """Have the run ring this executor with what it posts next, unless there is news already."""
        write_word(self._of(self._number, _SLEEPS), 1)
        done = read_word(self._of(self._number, _DONE))
        return read_word(self._first_word + 8 * _POSTED) == done

    def wake(self) -> None:
        """This executor looks at the board again."""
        write_word(self._of(self._number, _SLEEPS), 0)

    def posted(self) -> "Posted":
        """What there is to take."""
        self._map()
        count, versions, first_sum, oldest = self._words[_TASKS:_CAPACITY].tolist()
        column = {name: values[:count] for name, values in self._columns.items()}
        ids = TaskIds(column["data_client"])  # whose they are does not matter here
        version, row, stamp = (
            self._columns[name][:versions].tolist() for name in ("version", "row", "stamp")
        )
        return Posted(
            TaskColumns(ids, *(column[name] for name in _TASK), column["data_client"]),
            StatisticsColumns(
                ids,
                *(column[name] for name in _STATISTICS),
                **{name: column[name] for name in self._outputs},
            ),
            column["taker"],
            dict(zip(version, zip(row, stamp, strict=True), strict=True)),
            first_sum,
            oldest,
            Claims(self._first_word + 8 * _NEXT, column["taker"].ctypes.data, self._number),
        )

    def finish(self) -> bool:
        """Nothing is left to take, and sums are written; returns whether the run has to be rung."""
        mine = self._number
        write_word(self._of(mine, _DONE), read_word(self._first_word + 8 * _POSTED))
        return write_word(self._of(mine, _IS_AWAITED), 0) != 0

    def close(self) -> None:
        """Let go of the memory."""
        self._columns.clear()
        self._rows.close()
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1

    def _of(self, number: int, word: int) -> int:
        """Address of a word of an executor's."""
        return self._first_word + 8 * (_OF_EXECUTORS + _LINE * number + word)

    def _map(self) -> None:
        """Map the columns, where there is more room now."""
        capacity = int(self._words[_CAPACITY])
        if capacity == self._capacity:
            return
        size = 8 * capacity * len(_COLUMNS)
        if os.fstat(self._memory).st_size < size:
            os.ftruncate(self._memory, size)
        mapped = np.frombuffer(mmap.mmap(self._memory, size), np.int64).reshape(-1, capacity)
        self._columns = {
            name: row.view(kind)[:capacity]
            for row, (name, kind) in zip(mapped, _COLUMNS.items(), strict=True)
        }
        self._capacity = capacity


def _comes(address: int, value: int) -> bool:
    """Whether a word gets a value while it is looked at."""
    end_s = time.perf_counter() + LOOK_S
    while not becomes(address, value, _LOOKS):
        os.sched_yield()
        if time.perf_counter() > end_s:
            return False
    return True


def _changes(address: int, value: int) -> bool:
    """Whether a word loses a value while it is looked at."""
    end_s = time.perf_counter() + LOOK_S
    while not loses(address, value, _LOOKS):
        os.sched_yield()
        if time.perf_counter() > end_s:
            return False
    return True
