"""How many uploads are taken in at once, and when the others should come again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SOONEST_S = 0.5
_LONGEST_S = 120.0
_SMOOTHING = 0.1


class UploadSlots:
    """A bounded number of uploads; the turned-away ones are asked back one after another.

    Each is given the next place of a queue that exists as times only: it moves at the rate at
    which uploads have been taken lately, so the more are waiting, or the slower the aggregator, the
    later the next one is asked back, and they come as fast as they can be taken. Safe for several
    threads.
    """

    def __init__(
        self,
        slots: int,
        patience_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Assemble.

        Args:
            slots: Uploads at once.
            patience_s: How long an upload waits for a slot, where there are any.
            clock: Monotonic.
        """
        self._slots = slots
        self._patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._running = 0
        self._took_s = 0.0
        self._next_place_s = 0.0

    @contextmanager
    def take(self) -> Iterator[bool]:
        """Hold a slot, if there is one; says whether."""
        with self._lock:
            if self._slots and self._patience_s:
                self._freed.wait_for(lambda: self._running < self._slots, self._patience_s)
            taken = self._running < self._slots
            self._running += taken
        if not taken:
            yield False
            return
        begun_s = self._clock()
        try:
            yield True
        finally:
            took_s = self._clock() - begun_s
            with self._lock:
                self._running -= 1
                self._freed.notify()
                self._took_s += _SMOOTHING * (took_s - self._took_s)

    def place_s(self) -> float:
        """Seconds until a turned-away upload should come again, 0.5 to 120."""
        with self._lock:
            now_s = self._clock()
            self._next_place_s = max(self._next_place_s, now_s + _SOONEST_S)
            wait_s = self._next_place_s - now_s
            self._next_place_s += max(self._took_s, 1e-3) / max(self._slots, 1)
            self._next_place_s = min(self._next_place_s, now_s + _LONGEST_S)
            return wait_s
