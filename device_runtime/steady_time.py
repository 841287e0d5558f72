"""A clock that nobody sets: the system's time when the process began, and what passed since.

Deadlines and signed timestamps live on it, so that a user, or a network, who sets the system's
clock ends no task and makes no request look old. Time asleep passes too, where the system tells
(Linux, Android).
"""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BEGAN_S = time.time() - time.clock_gettime(_CLOCK)


def steady_time() -> float:
    """Seconds since the epoch, by the system's clock at the start of this process."""
    return _BEGAN_S + time.clock_gettime(_CLOCK)
