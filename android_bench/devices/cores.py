"""Cores of this machine, lent to one worker at a time, so that no two share one."""

import contextlib
import os
import queue
from collections.abc import Iterator, Sequence


class Cores:
    """The cores that workers may be pinned to.

    Args:
        cores: Numbers as the kernel counts them; None is all that this process may use.
    """

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        self.numbers = tuple(sorted(os.sched_getaffinity(0)) if cores is None else cores)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in self.numbers:
            self._free.put(number)

    @contextlib.contextmanager
    def lent(self) -> Iterator[int]:
        """A core of one's own for a while; waits until one is free."""
        number = self._free.get()
        try:
            yield number
        finally:
            self._free.put(number)
