"""Who watches a job in production: the catalog's live progress, and everyone together."""

import time
from collections import Counter, deque
from collections.abc import Sequence

from feature_catalog.jobs import JobQueue
from server.coordination.events import Event, SessionsEnded
from server.coordination.progress import Aggregation, JobObserver, JobProgress

_REPORT_EVERY_S = 1.0
_RATE_WINDOW_S = 10.0


class CatalogProgress:
    """Writes a job's progress to the catalog about once a second, for `flint job --follow`.

    Attempts of devices are counted on from what an earlier coordinator wrote; of one that was
    killed, those of its last second are missing or counted twice.
    """

    def __init__(self, jobs: JobQueue, job_id: str) -> None:
        self._jobs = jobs
        self._sessions = Counter(jobs.get(job_id).progress.get("sessions", {}))
        self._job_id = job_id
        self._reported_s = 0.0
        self._updates: deque[tuple[float, int]] = deque()

    def on_event(self, event: Event) -> None:
        """Count attempts by shape; other counts are in the progress."""
        if isinstance(event, SessionsEnded):
            self._sessions[event.shape] += event.count

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """Nothing: counts are in the progress."""

    def on_progress(self, progress: JobProgress) -> None:
        """Report when the last report is old enough."""
        if time.monotonic() - self._reported_s >= _REPORT_EVERY_S:
            self.report(progress)

    def report(self, progress: JobProgress) -> None:
        """Report now."""
        now_s = self._reported_s = time.monotonic()
        totals = progress.totals
        arrived = totals.updates + progress.held
        self._updates.append((now_s, arrived))
        while now_s - self._updates[0][0] > _RATE_WINDOW_S:
            self._updates.popleft()
        since_s, before = self._updates[0]
        rate = (arrived - before) / (now_s - since_s) if now_s > since_s else 0.0
        self._jobs.update_progress(
            self._job_id,
            {
                "version": progress.version,
                "metric": progress.metric,
                "metric_version": progress.metric_version,
                "updates": totals.updates,
                "updates_per_s": round(max(0.0, rate), 2),
                "in_flight": progress.in_flight,
                "offered": progress.offered,
                "held": progress.held,
                "elapsed_s": round(totals.elapsed_s, 3),
                "outcomes": dict(totals.outcomes),
                "reasons": dict(totals.reasons),
                "sessions": dict(self._sessions),
            },
        )


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[JobObserver]) -> None:
        self._observers = observers

    def on_event(self, event: Event) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_event(event)

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_aggregation(aggregation)

    def on_progress(self, progress: JobProgress) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_progress(progress)
