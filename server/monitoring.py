"""Prometheus metrics of the coordinator; units are in the names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from server.coordination.events import Event, TaskCompleted, TaskEnded, UpdatesRefused
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome
from server.update_gate.rejections import RejectionReason


class CoordinatorMetrics:
    """A `JobObserver` that counts for Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._updates = Counter(
            "flint_updates",
            "Tasks ended, by outcome and reason.",
            ["outcome", "reason"],
            registry=registry,
        )
        self._staleness = Histogram(
            "flint_update_staleness_versions",
            "Versions an aggregated update was behind.",
            buckets=(0, 1, 2, 3, 5, 8, 13, 21, 34),
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
        self._in_flight = Gauge("flint_tasks_in_flight", "Tasks running.", registry=registry)
        self._held = Gauge(
            "flint_updates_held", "Updates folded and not aggregated.", registry=registry
        )
        self._version = Gauge("flint_model_version", "Newest version.", registry=registry)
        self._metric = Gauge(
            "flint_model_metric_ratio", "Metric of the newest evaluated version.", registry=registry
        )

    def on_event(self, event: Event) -> None:
        """Count ends, refusals and what devices spent."""
        if isinstance(event, TaskCompleted):
            self._spent(event.reference.bytes_down, event.reference.bytes_up)
            self._device_s.inc(max(0.0, event.reference.train_s))
        elif isinstance(event, TaskEnded):
            self._updates.labels(event.outcome, event.reason).inc()
            self._spent(event.bytes_down, event.bytes_up)
            self._device_s.inc(max(0.0, event.train_s))
        elif isinstance(event, UpdatesRefused):
            reason = RejectionReason(event.reason_code).name.lower()
            self._updates.labels("refused", reason).inc(event.count)

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """Count a version's updates and time."""
        self._updates.labels(Outcome.SUCCEEDED, "aggregated").inc(aggregation.updates)
        self._aggregation.observe(aggregation.aggregation_s)
        for staleness in aggregation.staleness:
            self._staleness.observe(staleness)

    def on_progress(self, progress: JobProgress) -> None:
        """Follow the gauges."""
        self._in_flight.set(progress.in_flight)
        self._held.set(progress.held)
        self._version.set(progress.version)
        if progress.metric is not None:
            self._metric.set(progress.metric)

    def _spent(self, bytes_down: int, bytes_up: int) -> None:
        self._bytes.labels("down").inc(bytes_down)
        self._bytes.labels("up").inc(bytes_up)
