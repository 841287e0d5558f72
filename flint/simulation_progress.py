"""How far a dry-run has come, how fast it goes, and when it may end: what its screen shows."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from server.coordination.progress import JobProgress
from server.job import Stop

_WINDOW_S = 20.0
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a run before it begins.

    Attributes:
        stop: The job's limits.
        trials: How many there are in all.
        path: How updates are trained, in some words; None if none are.
    """

    stop: Stop
    trials: int
    path: str | None


def share_done(stop: Stop, progress: JobProgress, virtual_s: float) -> float:
    """Share of a trial that is done, at least: of the limit that is nearest, 0 to 1.

    A target may end it sooner.

    >>> from server.coordination.versions import JobTotals
    >>> stop = Stop(max_aggregations=100, max_hours=10)
    >>> progress = JobProgress(25, None, None, JobTotals(), 0, 0, 0)
    >>> share_done(stop, progress, virtual_s=18_000.0)
    0.5
    """
    shares = [0.0]
    if stop.max_aggregations:
        shares.append(progress.version / stop.max_aggregations)
    if stop.max_updates:
        shares.append(progress.totals.updates / stop.max_updates)
    if stop.max_hours:
        shares.append(virtual_s / (stop.max_hours * 3600.0))
    return min(1.0, max(shares))


@dataclass(slots=True)
class RunPace:
    """Tasks a second and time to go, by what the last seconds have brought.

    Attributes:
        expected: None where limits are not known; then neither is the time to go.
    """

    expected: Expected | None = None
    _seen: deque[tuple[float, int, int, float]] = field(default_factory=deque)

    def see(self, now_s: float, trial: int, progress: JobProgress, virtual_s: float) -> None:
        """Note progress; times are of any steady clock."""
        done = 0.0
        if self.expected is not None:
            share = share_done(self.expected.stop, progress, virtual_s)
            done = (trial + share) / self.expected.trials
        if self._seen and self._seen[-1][1] != trial:
            self._seen.clear()
        self._seen.append((now_s, trial, tasks_in(progress), done))
        while now_s - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    def tasks_per_s(self) -> float | None:
        """Tasks started a second of wall time; None until there is something to compare."""
        if len(self._seen) < 2:
            return None
        (first_s, _, before, _), (last_s, _, now, _) = self._seen[0], self._seen[-1]
        return (now - before) / (last_s - first_s) if last_s > first_s else None

    def left_s(self) -> float | None:
        """Seconds to the end of all trials at this pace; None if that is not known."""
        if len(self._seen) < 2:
            return None
        (first_s, _, _, before), (last_s, _, _, now) = self._seen[0], self._seen[-1]
        return (1.0 - now) * (last_s - first_s) / (now - before) if now > before else None


def tasks_in(progress: JobProgress) -> int:
    """Tasks that have been started."""
    return sum(progress.totals.outcomes.values()) + progress.in_flight + progress.held


def resident_mb() -> float | None:
    """Memory of this process that is in use, MB; None where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return None


def in_words(seconds: float) -> str:
    """A time to go, roughly.

    >>> in_words(42.0), in_words(200.0), in_words(9000.0)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
