"""Prometheus metrics of the coordinator; units are in the names. docs/operations.md lists them."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from device_runtime.session_shape import SHAPES
from server.coordination.events import (
    Event,
    SessionsEnded,
    TaskCompleted,
    TaskEnded,
)
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome

_REFUSED = "refused"


class CoordinatorMetrics:
    """A `JobObserver` that counts for Prometheus.

    Counters run on over jobs; gauges of a job are of the one that runs, or of the last.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._tasks = Counter(
            "flint_tasks",
            "Tasks ended, by outcome; refused: uploads that belong to no task.",
            ["outcome"],
            registry=registry,
        )
        self._reasons = Counter(
            "flint_tasks_not_succeeded",
            "Tasks ended without success and uploads refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self._sessions = Counter(
            "flint_sessions",
            "Attempts of devices that ended, by how far they came.",
            ["shape"],
            registry=registry,
        )
        self._staleness = Histogram(
            "flint_update_staleness_versions",
            "Versions an aggregated update was behind.",
            buckets=(0, 1, 2, 3, 5, 8, 13, 21, 34),
            registry=registry,
        )
        self._round = Histogram(
            "flint_round_seconds",
            "From one stored version to the next.",
            buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 24 * 3600),
            registry=registry,
        )
        self._aggregation = Histogram(
            "flint_aggregation_seconds",
            "From the release of a buffer to its stored version.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._bytes = Counter(
            "flint_task_bytes", "Moved by devices for tasks.", ["direction"], registry=registry
        )
        self._device_s = Counter(
            "flint_device_train_seconds", "Training time devices report.", registry=registry
        )
        self._running = self._gauge("flint_job_running", "1 while a job is driven.")
        self._heard = self._gauge(
            "flint_event_timestamp_seconds", "When the running job last heard of any device."
        )
        self._stored = self._gauge(
            "flint_version_stored_timestamp_seconds",
            "When the running job stored its newest version, or was taken up.",
        )
        self._in_flight = self._gauge("flint_tasks_in_flight", "Tasks running.")
        self._offered = self._gauge("flint_tasks_offered", "Slots no device has taken yet.")
        self._held = self._gauge("flint_updates_held", "Updates folded and not aggregated.")
        self._version = self._gauge("flint_model_version", "Newest version.")
        self._metric = self._gauge(
            "flint_model_metric_ratio", "Metric of the newest evaluated version."
        )
        self._gateways = self._gauge("flint_gateways_connected", "Gateways attached.")
        self._counted: tuple[Mapping[str, int], Mapping[str, int]] | None = ({}, {})
        self._round_began_s = clock()
        # Series that are there from the start, at 0: a rate sees their first count.
        for outcome in (*Outcome, _REFUSED):
            self._tasks.labels(outcome)
        for shape in SHAPES:
            self._sessions.labels(shape)
        for direction in ("down", "up"):
            self._bytes.labels(direction)

    def watch_gateways(self, count: Callable[[], int]) -> None:
        """Have the number of gateways read when it is scraped."""
        self._gateways.set_function(count)

    def job_begins(self, epoch: int) -> None:
        """A job is driven from now on.

        Args:
            epoch: 1 for a new job; one taken up again has counts that were counted before.
        """
        self._counted = ({}, {}) if epoch == 1 else None
        self._running.set(1)
        self._round_began_s = self._clock()
        self._stored.set(self._round_began_s)
        self._heard.set(self._round_began_s)

    def job_ends(self) -> None:
        """No job is driven for now."""
        self._running.set(0)
        for gauge in (self._in_flight, self._offered, self._held):
            gauge.set(0)

    def on_event(self, event: Event) -> None:
        """Count attempts and what devices spent."""
        self._heard.set(self._clock())
        if isinstance(event, TaskCompleted):
            self._spent(event.reference.bytes_down, event.reference.bytes_up)
            self._device_s.inc(max(0.0, event.reference.train_s))
        elif isinstance(event, TaskEnded):
            self._spent(event.bytes_down, event.bytes_up)
            self._device_s.inc(max(0.0, event.train_s))
        elif isinstance(event, SessionsEnded):
            self._sessions.labels(event.shape).inc(event.count)

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """Count a version's staleness and time."""
        now_s = self._clock()
        self._round.observe(max(0.0, now_s - self._round_began_s))
        self._round_began_s = now_s
        self._stored.set(now_s)
        self._aggregation.observe(aggregation.aggregation_s)
        for staleness in aggregation.staleness:
            self._staleness.observe(staleness)

    def on_progress(self, progress: JobProgress) -> None:
        """Follow the gauges, and count what has ended since."""
        self._in_flight.set(progress.in_flight)
        self._offered.set(progress.offered)
        self._held.set(progress.held)
        self._version.set(progress.version)
        if progress.metric is not None:
            self._metric.set(progress.metric)
        totals = progress.totals
        if self._counted is not None:
            outcomes, reasons = self._counted
            _count(self._tasks, outcomes, totals.outcomes)
            _count(self._reasons, reasons, totals.reasons)
        self._counted = (totals.outcomes, totals.reasons)

    def _gauge(self, name: str, said: str) -> Gauge:
        return Gauge(name, said, registry=self._registry)

    def _spent(self, bytes_down: int, bytes_up: int) -> None:
        self._bytes.labels("down").inc(bytes_down)
        self._bytes.labels("up").inc(bytes_up)


def _count(counter: Counter, before: Mapping[str, int], now: Mapping[str, int]) -> None:
    for name, total in now.items():
        new = total - before.get(name, 0)
        if new > 0:
            counter.labels(name).inc(new)
