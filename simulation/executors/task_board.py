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

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.atomic import becomes, loses, read_word, write_word
from simulation.executors.compiled.task_block import TaskBlock, block_words
from simulation.executors.executor import ClientOutputs
from simulation.executors.shared_rows import SharedRows, new_memory
from simulation.executors.task_columns import StatisticsColumns

LOOK_S = 0.001
"""For so long a word is looked at before its reader sleeps. A core that sleeps is woken in about a
tenth of that, and an aggregation follows another by some tenths."""

_LOOKS = 1000
"""Half a microsecond; after so many, whoever else wants the core may have it."""
_LINE = 8
"""Words of a line of a cache: what different executors write is on different ones."""

_POSTED, _CAPACITY, _VERSIONS, _GOES_ON = 0, _LINE, _LINE + 1, _LINE + 2
_OF_EXECUTORS = 2 * _LINE
_DONE, _SLEEPS, _PROGRESS, _IS_AWAITED = range(4)

_OUTCOMES = 7
_LEAST_CAPACITY = 512


class TaskBoard:
    """One executor's view of the board; the run's own is that of executor 0, and it alone posts.

    Attributes:
        block: Where tasks are arranged.
        outcomes: Where their statistics go, at the tasks' positions; ids are elsewhere.
        versions: Version in each row of the run's weights, shape ``(capacity,)``.

    Args:
        number: Of the executor.
        executors: How many there are.
        outputs: What is computed of each update besides.
        descriptors: Of the memory that the run has made; None: the run makes it.
    """

    block: TaskBlock
    outcomes: StatisticsColumns
    versions: NDArray[np.int64]

    def __init__(
        self,
        number: int,
        executors: int,
        outputs: ClientOutputs,
        descriptors: tuple[int, int] | None = None,
    ) -> None:
        self._number, self._outputs = number, outputs
        words, self._memory = descriptors or (new_memory(), new_memory())
        self._rows = SharedRows(words, _OF_EXECUTORS + _LINE * executors, np.int64)
        self._words: NDArray[np.int64] = self._rows.row(0)
        self._first_word: int = self._words.ctypes.data
        self._capacity = 0
        if descriptors is None:
            self._words[_CAPACITY] = _LEAST_CAPACITY
            self._map()

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

    def make_room(self, tasks: int) -> None:
        """Have room for so many tasks, and for so many rows of weights."""
        if tasks > self._capacity:
            self._words[_CAPACITY] = 1 << tasks.bit_length()
            self._map()

    def post(self, versions: NDArray[np.int64], *, goes_on: bool = False) -> None:
        """Let executors take what has been arranged; all must be done with what was posted before.

        Args:
            versions: In each row of the run's weights, shape ``(rows,)``.
            goes_on: Whether sums of what was posted before go on.
        """
        self.versions[: len(versions)] = versions
        self._words[_VERSIONS], self._words[_GOES_ON] = len(versions), goes_on
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

    def read(self) -> bool:
        """See what is posted; returns whether sums of what was posted before go on."""
        self._map()
        return bool(self._words[_GOES_ON])

    @property
    def posted_versions(self) -> NDArray[np.int64]:
        """Those that were posted, see `post`."""
        return self.versions[: self._words[_VERSIONS]]

    def finish(self) -> bool:
        """Nothing is left to take, and sums are written; returns whether the run has to be rung."""
        mine = self._number
        write_word(self._of(mine, _DONE), read_word(self._first_word + 8 * _POSTED))
        return write_word(self._of(mine, _IS_AWAITED), 0) != 0

    def close(self) -> None:
        """Let go of the memory."""
        self._rows.close()
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1

    def _of(self, number: int, word: int) -> int:
        """Address of a word of an executor's."""
        return self._first_word + 8 * (_OF_EXECUTORS + _LINE * number + word)

    def _map(self) -> None:
        """Map the memory, where there is more room now."""
        capacity = int(self._words[_CAPACITY])
        if capacity == self._capacity:
            return
        words = block_words(capacity)
        size = 8 * (words + (_OUTCOMES + 1) * capacity)
        if os.fstat(self._memory).st_size < size:
            os.ftruncate(self._memory, size)
        mapped = np.frombuffer(mmap.mmap(self._memory, size), np.int64)
        self.block = TaskBlock(capacity, mapped[:words])
        examples, loss, finite, diverged, norm, before, after, self.versions = mapped[
            words:
        ].reshape(-1, capacity)
        norms, losses = self._outputs.norms, self._outputs.losses
        self.outcomes = StatisticsColumns(
            (),
            examples,
            loss.view(np.float64),
            finite.view(np.bool_)[:capacity],
            diverged,
            norm.view(np.float64) if norms else None,
            before.view(np.float64) if losses else None,
            after.view(np.float64) if losses else None,
        )
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
