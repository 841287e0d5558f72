"""Cores of this machine, lent to workers by the share of them that they will use.

Two workers never share a core, unless both are throttled and together leave some of it idle: what
one loses to the other while both are let run, the throttle gives back at once.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence

SHARED_AT_MOST = 0.75
"""Of a core, by several throttled workers together."""


class Cores:
    """The cores that workers may be pinned to, lent first come, first served.

    Args:
        cores: Numbers as the kernel counts them; None is all that this process may use.
    """

    def __init__(self, cores: Sequence[int] | None = None) -> None:
        numbers = sorted(os.sched_getaffinity(0)) if cores is None else cores
        self._lent: dict[int, list[float]] = {number: [] for number in numbers}
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def lent(self, share: float = 1.0) -> Iterator[int]:
        """A core for a while, as soon as one has room; yields its number.

        Args:
            share: That will be used, above 0; 1 is a core of one's own.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            while self._waiting[0] is not ticket or (number := self._free(share)) is None:
                self._changed.wait()
            self._waiting.popleft()
            self._lent[number].append(share)
            self._changed.notify_all()
        try:
            yield number
        finally:
            with self._changed:
                self._lent[number].remove(share)
                self._changed.notify_all()

    def _free(self, share: float) -> int | None:
        """The most used core with room, so that others stay whole for who needs them whole."""
        used = {number: sum(shares) for number, shares in self._lent.items()}
        room = [
            number
            for number, already in used.items()
            if not already or already + share <= SHARED_AT_MOST
        ]
        return max(room, key=lambda number: used[number], default=None)
