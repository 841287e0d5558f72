"""One gateway process, assembled from settings."""

import logging
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from sqlalchemy import Engine

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from device_runtime.steady_time import steady_time
from feature_catalog.blobs import BlobStore
from feature_catalog.database import PATIENCE_WITH_DATABASE_S, connect
from feature_catalog.release_budgets import ReleaseBudgets
from server.aggregation.aggregator import Aggregator
from server.aggregation.mean import MeanAggregator
from server.aggregation.process import RemoteAggregator, aggregator_socket
from server.gateway.authentication import DeviceAuthenticator, NotAuthentic
from server.gateway.catalog import (
    CatalogDevices,
    CatalogEnrolment,
    CatalogHistory,
    CatalogOutcomes,
    CatalogReleases,
)
from server.gateway.daily_cap import DailyCap
from server.gateway.device_screen import DeviceScreen
from server.gateway.elsewhere import Elsewhere
from server.gateway.feature_service import feature_service
from server.gateway.fleet_link import FleetLink
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.intake import UpdateIntake
from server.gateway.known_gateways import KnownGateways
from server.gateway.listening import coordinator_channel, serve_devices
from server.gateway.metrics import GatewayMetrics
from server.gateway.orders import OrderDesk
from server.gateway.pace import PaceSteering
from server.gateway.peers import Peers, serve_peers
from server.gateway.rate_limits import DeviceRates, keys_of_a_day
from server.gateway.routing import RoutedGatewayService
from server.gateway.served_blobs import ServedBlobs
from server.gateway.service import DeviceGatewayService, TransferLimits
from server.gateway.state import GatewayState
from server.gateway.tokens import TokenMint
from server.gateway.upload_door import UploadDoor
from server.gateway.upload_parts import MemoryBudget, UploadFolder
from server.gateway.upload_slots import UploadSlots
from server.operations.deployment_metrics import DatabaseProbe
from server.operations.settings import IN_PROCESS, ServerSettings
from server.operations.tls import ensure_token_key
from server.secure_aggregation.client import RemoteEnclave

log = logging.getLogger(__name__)

_GRACE_S = 3.0
_LARGEST_UPDATE_BYTES = 2**30
_DEFAULT_LIMITS = TransferLimits()
_DEFAULT_RATES = DeviceRates()


class Gateway:
    """Everything a gateway runs. It serves from construction until `close`."""

    def __init__(
        self,
        settings: ServerSettings,
        number: int = 0,
        *,
        clock: Callable[[], float] = steady_time,
        limits: TransferLimits = _DEFAULT_LIMITS,
        rates: DeviceRates = _DEFAULT_RATES,
    ) -> None:
        """Start serving devices and dialling the coordinator.

        Args:
            settings: Of the deployment.
            number: Which of its gateways this is, from 0.
            clock: Server's clock, seconds since the epoch; one that is set ends tasks.
            limits: Transfers at once.
            rates: How often a device may call.

        Raises:
            FlintError: If database, blob store, keys, ports or aggregator cannot be used.
        """
        self.loss: FlintError | None = None
        self.ended = threading.Event()
        with ExitStack() as stack:
            metrics = GatewayMetrics()
            mint = TokenMint(ensure_token_key(settings))
            engine = connect(settings.database_url, PATIENCE_WITH_DATABASE_S)
            stack.callback(engine.dispose)
            aggregator = _aggregator(settings, number, engine, metrics, stack)
            barrier, outcomes = FoldBarrier(), CatalogOutcomes(engine)
            self.state = GatewayState(
                uuid.uuid4().hex,
                mint,
                PaceSteering(check_ins_per_s=settings.check_ins_per_s),
                count_tasks=metrics.count_tasks,
                count_session=metrics.count_session,
            )
            metrics.read_gauges_from(self.state.counts)
            intake = UpdateIntake(
                self.state,
                aggregator,
                barrier,
                outcomes,
                observe_fold_s=metrics.fold_seconds.observe,
                newest_released=CatalogReleases(engine).newest_version,
            )
            known = self._known = KnownGateways(self.state.boot_id)
            peers = None
            if settings.gateways > 1:
                peers = Peers(settings.gateway_sockets)
                stack.callback(peers.close)
            elsewhere = Elsewhere(known, peers)
            blobs = BlobStore(settings.blob_url)
            served_blobs = ServedBlobs(blobs, settings.transfers)
            service = DeviceGatewayService(
                self.state,
                intake,
                mint,
                served_blobs,
                CatalogEnrolment(engine),
                outcomes,
                metrics,
                clock=clock,
                on_lost=self._note_loss,
                limits=limits,
                rates=replace(rates, feature_keys=keys_of_a_day(settings.max_feature_keys_per_day)),
                cap=DailyCap(settings.max_tasks_per_day, CatalogHistory(engine)),
                screen=DeviceScreen(CatalogDevices(engine)),
                elsewhere=elsewhere,
                attest=aggregator.attest if isinstance(aggregator, RemoteEnclave) else None,
            )
            routed = RoutedGatewayService(
                service, known, peers, elsewhere, mint, count=metrics.count_handed_on
            )
            if peers is not None:
                folder, boot_id = settings.gateway_sockets, self.state.boot_id
                stack.callback(serve_peers(service, routed.take_orphan, folder, boot_id))
            authenticator = service.authenticator
            door = UploadDoor(
                routed.Upload,
                UploadSlots(limits.received),
                service.turned_away,
                may_gather=lambda request: self._may_gather(authenticator, request),
                folder=UploadFolder(settings.transfers),
                memory=MemoryBudget(limits.memory_bytes),
            )
            features = feature_service(
                settings,
                engine,
                self.state,
                metrics,
                service,
                blobs,
                served_blobs,
                clock=clock,
                look_ups=limits.look_ups,
                stack=stack,
            )
            server = serve_devices(routed, door, features, settings)
            stack.callback(lambda: server.stop(_GRACE_S).wait())
            # Last of the sockets: who sees it answer knows that the others do.
            stack.callback(metrics.serve(settings.gateway_metrics_ports[number]))
            link = FleetLink(
                self.state,
                OrderDesk(self.state, aggregator, barrier, known, metrics.count_kept),
                f"{socket.gethostname()}/{settings.gateway_address}/{number}",
                lambda: coordinator_channel(settings),
                clock=clock,
                on_lost=self._note_loss,
            )
            probe = DatabaseProbe(settings.database_url)
            metrics.watch(is_attached=lambda: link.is_attached, is_reachable=probe.is_reachable)
            link.start()
            stack.callback(link.stop)
            self._stack = stack.pop_all()
        log.info(
            "gateway %s serves devices on %s (%s), coordinator %s",
            self.state.boot_id[:8],
            settings.gateway_address,
            "no TLS" if settings.insecure else "TLS",
            settings.coordinator_address,
        )

    def close(self) -> None:
        """Hang up, finish running calls and stop serving."""
        self._stack.close()
        log.info("gateway stopped")

    def _may_gather(self, authenticator: DeviceAuthenticator, request: pb.UploadRequest) -> bool:
        """Whether an update in parts is its device's own, and of a size that can be one."""
        try:
            authenticator.upload(request)
        except NotAuthentic:
            return False
        job = self.state.job
        most_bytes = _LARGEST_UPDATE_BYTES if job is None else job.max_payload_bytes
        return request.payload_bytes <= most_bytes

    def _note_loss(self, error: FlintError) -> None:
        if self.loss is None:
            self.loss = error
            self.ended.set()


def _aggregator(
    settings: ServerSettings,
    number: int,
    engine: Engine,
    metrics: GatewayMetrics,
    stack: ExitStack,
) -> Aggregator:
    if settings.aggregator == IN_PROCESS:
        return MeanAggregator()
    path = aggregator_socket(settings.home, number)
    if settings.has_enclave:
        budgets = ReleaseBudgets(engine)
        remote: RemoteAggregator = RemoteEnclave(
            path, budgets, number, count_bytes=metrics.count_enclave_bytes
        )
    else:
        remote = RemoteAggregator(path)
    stack.callback(remote.close)
    return remote
