"""A slower core: a process is stopped and let go so that it gets a share of its core's time.

Closed-loop on the CPU time the process has really had: an open-loop sleeper that was asked for
50 % gave 27 to 38 %. What a process has had is read while it is stopped, when the kernel's count
is exact. One slice is far longer than a training step, so a share shows in total wall time, not
in the time of a single step.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SLICE_S = 0.004
"""CPU time a process is let run at a stretch."""

_LONGEST_STOP_S = 0.5


@contextlib.contextmanager
def throttled(pid: int, duty: float) -> Iterator[None]:
    """Hold a process to a share of one core while the block lasts; it runs freely afterwards.

    Args:
        pid: A child of this process that has not been waited for.
        duty: Share of wall time, 0 to 1; 1 leaves the process alone.
    """
    if duty >= 1.0:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_hold, args=(pid, duty, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _send(pid, signal.SIGCONT)


def cpu_s(pid: int) -> float | None:
    """CPU seconds all threads of a process have had; None when it is gone."""
    total_ns = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total_ns += int((thread / "schedstat").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    return total_ns / 1e9


def _hold(pid: int, duty: float, ended: threading.Event) -> None:
    if not _send(pid, signal.SIGSTOP):
        return
    started_s, had_at_start_s = time.monotonic(), cpu_s(pid)
    if had_at_start_s is None:
        return
    while not ended.is_set():
        had_s = cpu_s(pid)
        if had_s is None:
            return
        ahead_s = (had_s - had_at_start_s) / duty - (time.monotonic() - started_s)
        if ahead_s > 0:
            ended.wait(min(ahead_s, _LONGEST_STOP_S))
            continue
        # Behind by more than a slice (others took the core): let it catch up in one go.
        if not _send(pid, signal.SIGCONT):
            return
        ended.wait(min(SLICE_S - ahead_s * duty, 0.1))
        if not _send(pid, signal.SIGSTOP):
            return


def _send(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
