"""Memory that was freed, given back to the system: messages of a model's size come in many pieces.

Between pieces that stay, glibc keeps the room of those that went, and each thread's heap keeps its
own: hundreds of MB after a few versions of 100 MB. Arrays are not the matter, they are mapped and
unmapped whole.
"""

import ctypes
import functools
import math
import threading
import time
from collections.abc import Callable

HEAPS_GIVE_BACK = {
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}
"""Environment of a process whose threads' heaps keep at most 4 MB at their ends (glibc).

Otherwise glibc raises that to 64 MB a thread as it meets larger pieces, and trimming does not reach
the ends of threads' heaps: a coordinator of models of 100 MB grew by 150 MB in eight rounds.
"""


FEW_HEAPS = {"MALLOC_ARENA_MAX": "2"}
"""Environment of a process whose threads share two heaps (glibc) instead of eight a core.

For a process that moves a few large messages, each on whatever thread is free: otherwise one heap
after the other grows to hold the largest of them, for hours. Not for one that decodes many at once.
"""


def give_back_memory() -> None:
    """Return free pages of all heaps; takes milliseconds. Does nothing where there is no glibc."""
    _trim()(0)


class MemoryReturn:
    """`give_back_memory`, not more often than every few seconds. Safe for several threads."""

    def __init__(self, every_s: float = 2.0) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._done_s = -math.inf  # the clock may begin with the machine

    def due(self) -> None:
        """Give back what there is, unless that has just been done."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._done_s < self._every_s:
                return
            self._done_s = now_s
        give_back_memory()


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda _: None
    return trim
