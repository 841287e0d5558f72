"""What a gateway measures, for Prometheus, on a loopback port."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from server.gateway.decisions import Counts
from server.operations.ports import PortInUse

_FOLD_BUCKETS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)


class GatewayMetrics:
    """Counters are set where things happen; gauges are read from the state when scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._updates = Counter(
            "flint_gateway_updates_total",
            "Tasks that ended at this gateway, by outcome and reason; "
            "refused: uploads that belong to no open task",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self._sessions = Counter(
            "flint_gateway_sessions_total",
            "Attempts of devices that ended, by how far they came (docs/operations.md)",
            ("shape",),
            registry=self.registry,
        )
        transferred = Counter(
            "flint_gateway_bytes_total",
            "Bytes of blobs (down) and of updates (up)",
            ("direction",),
            registry=self.registry,
        )
        self.bytes_down = transferred.labels("down")
        self.bytes_up = transferred.labels("up")
        self.check_ins = Counter(
            "flint_gateway_check_ins_total", "Check-ins answered", registry=self.registry
        )
        self.fold_seconds = Histogram(
            "flint_gateway_fold_seconds",
            "Content gate and folding of one update",
            buckets=_FOLD_BUCKETS_S,
            registry=self.registry,
        )
        self._leased = Gauge(
            "flint_gateway_tasks_leased", "Tasks in devices' hands", registry=self.registry
        )
        self._held = Gauge(
            "flint_gateway_updates_held",
            "Updates folded and not yet part of a stored version",
            registry=self.registry,
        )
        self._version = Gauge(
            "flint_gateway_model_version",
            "Newest model version of the open job",
            registry=self.registry,
        )

    def count_session(self, shape: str) -> None:
        """Note an attempt that ended."""
        self._sessions.labels(shape).inc()

    def count_tasks(self, outcome: str, reason: str, count: int) -> None:
        """Note tasks that ended."""
        self._updates.labels(outcome, reason).inc(count)

    def read_gauges_from(self, counts: Callable[[], Counts]) -> None:
        """Have gauges show what ``counts`` says at the moment they are scraped."""
        self._leased.set_function(lambda: counts().leased)
        self._held.set_function(lambda: counts().held)
        self._version.set_function(lambda: counts().version)

    def serve(self, port: int) -> Callable[[], None]:
        """Serve them over HTTP on loopback; returns what stops that.

        Raises:
            PortInUse: If something else listens there.
        """
        try:
            server, thread = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise PortInUse(
                f"port {port} for the gateway's metrics is in use ({error.strerror}); stop what "
                "uses it or choose another with --gateway-metrics-port"
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop
