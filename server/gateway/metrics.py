"""What a gateway measures, for Prometheus, on a loopback port."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

from device_runtime.session_shape import SHAPES
from server.coordination.tasks import Outcome
from server.gateway.decisions import Counts
from server.gateway.held_back import HeldBackReason
from server.operations.ports import PortInUse
from server.secure_aggregation.release_rules import ReleaseRefusal
from server.update_gate.rejections import RejectionReason

_FOLD_BUCKETS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)

FEATURE_CALLS = ("manifest", "features", "asset")


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
        self._turned_away = Counter(
            "flint_gateway_turned_away_total",
            "Transfers refused for the moment, as many run",
            ("call",),
            registry=self.registry,
        )
        self._held_back = Counter(
            "flint_gateway_held_back_total",
            "Calls answered with a time to come back for a numbered reason (docs/load.md)",
            ("code", "reason"),
            registry=self.registry,
        )
        self._handed_on = Counter(
            "flint_gateway_handed_on_total",
            "Calls that belong to another gateway process, by what came of asking it",
            ("call", "result"),
            registry=self.registry,
        )
        self._unauthenticated = Counter(
            "flint_gateway_unauthenticated_total",
            "Calls without a valid proof of the device's key",
            ("call",),
            registry=self.registry,
        )
        self._enrolments = Counter(
            "flint_gateway_enrolments_total",
            "Devices that asked to enrol",
            ("result",),
            registry=self.registry,
        )
        self.upload_seconds = Histogram(
            "flint_gateway_upload_seconds",
            "From an upload's arrival to its answer; the transfer before is the network's",
            buckets=_FOLD_BUCKETS_S,
            registry=self.registry,
        )
        self.uploads_in_progress = Gauge(
            "flint_gateway_uploads_in_progress", "Uploads at work", registry=self.registry
        )
        self.check_ins = Counter(
            "flint_gateway_check_ins_total", "Check-ins answered", registry=self.registry
        )
        self.fold_seconds = Histogram(
            "flint_gateway_fold_seconds",
            "Content gate and folding of one update",
            buckets=_FOLD_BUCKETS_S,
            registry=self.registry,
        )
        self.attestations = Counter(
            "flint_gateway_attestations_total",
            "Times an enclave's evidence was given to a device",
            registry=self.registry,
        )
        self._feature_calls = Counter(
            "flint_gateway_feature_calls_total",
            "Calls for manifests, features and assets, by what came of them",
            ("call", "result"),
            registry=self.registry,
        )
        self.feature_keys = Counter(
            "flint_gateway_feature_keys_total",
            "Keys that devices asked features of",
            registry=self.registry,
        )
        self.feature_seconds = Histogram(
            "flint_gateway_feature_seconds",
            "From an admitted call for a manifest or features to its answer",
            buckets=_FOLD_BUCKETS_S,
            registry=self.registry,
        )
        self._enclave_bytes = Counter(
            "flint_gateway_enclave_bytes_total",
            "Bytes of updates that went into the enclave, and of aggregates that came out",
            ("direction",),
            registry=self.registry,
        )
        self._kept = Counter(
            "flint_gateway_aggregates_kept_total",
            "Aggregates an enclave was asked for and kept, by reason",
            ("reason",),
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
        self._slots = Gauge(
            "flint_gateway_slots_open", "Tasks that may be leased now", registry=self.registry
        )
        self._recent = Gauge(
            "flint_gateway_devices_recent",
            "Devices that checked in lately: the population that pace steering reckons with",
            registry=self.registry,
        )
        self._connected = Gauge(
            "flint_gateway_coordinator_connected",
            "Whether the coordinator is attached",
            registry=self.registry,
        )
        self._database = Gauge(
            "flint_gateway_database_reachable",
            "Whether the gateway's database answers",
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self._begin_at_zero()

    def count_turned_away(self, call: str) -> None:
        """Note a transfer that is to come back later."""
        self._turned_away.labels(call).inc()

    def count_held_back(self, reason: HeldBackReason) -> None:
        """Note a device that has to wait."""
        self._held_back.labels(reason.code, reason.name.lower()).inc()

    def count_handed_on(self, call: str, result: str) -> None:
        """Note a call handed on to another gateway."""
        self._handed_on.labels(call, result).inc()

    def count_enclave_bytes(self, direction: str, size_bytes: int) -> None:
        """Note traffic with the enclave: ``"in"`` or ``"out"``."""
        self._enclave_bytes.labels(direction).inc(size_bytes)

    def count_kept(self, reason: str) -> None:
        """Note an aggregate that an enclave keeps."""
        self._kept.labels(reason).inc()

    def count_unauthenticated(self, call: str) -> None:
        """Note a call nobody proved to have made."""
        self._unauthenticated.labels(call).inc()

    def count_feature_call(self, call: str, result: str) -> None:
        """Note what came of a call for a ``"manifest"``, ``"features"`` or an ``"asset"``."""
        self._feature_calls.labels(call, result).inc()

    def count_enrolment(self, result: str) -> None:
        """Note who asked to enrol: ``"enrolled"``, ``"refused"`` or ``"unavailable"``."""
        self._enrolments.labels(result).inc()

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
        self._slots.set_function(lambda: counts().open_slots)
        self._recent.set_function(lambda: counts().recent_devices)

    def watch(self, *, is_attached: Callable[[], bool], is_reachable: Callable[[], bool]) -> None:
        """Have coordinator and database looked for when they are scraped."""
        self._connected.set_function(lambda: float(is_attached()))
        self._database.set_function(lambda: float(is_reachable()))

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

    def _begin_at_zero(self) -> None:
        """Series that are there from the start: a rate sees their first count."""
        for call in FEATURE_CALLS:
            for result in ("answered", "refused", "unavailable"):
                self._feature_calls.labels(call, result)
        self._feature_calls.labels("manifest", "not_modified")
        for reason in RejectionReason:
            self._updates.labels(Outcome.REJECTED, reason.name.lower())
            self._updates.labels("refused", reason.name.lower())
        self._updates.labels(Outcome.SUCCEEDED, "aggregated")
        self._updates.labels(Outcome.INTERRUPTED, "deadline")
        for shape in SHAPES:
            self._sessions.labels(shape)
        for call in ("upload", "fetch", "features"):
            self._turned_away.labels(call)
        for call in ("upload", "check_in", *FEATURE_CALLS):
            self._unauthenticated.labels(call)
        for held_back in HeldBackReason:
            self._held_back.labels(held_back.code, held_back.name.lower())
        for refusal in ReleaseRefusal:
            self._kept.labels(refusal.name.lower())
        for direction in ("in", "out"):
            self._enclave_bytes.labels(direction)
        for call in ("check_in", "upload", "report", "attest"):
            for result in ("answered", "refused", "gone", "silent"):
                self._handed_on.labels(call, result)
        for result in ("enrolled", "refused", "unavailable"):
            self._enrolments.labels(result)
