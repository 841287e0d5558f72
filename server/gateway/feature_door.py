"""Who may ask the feature service, how often, and how many at once: the gateway's own rules."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, Protocol

import grpc

from device_runtime.gateway_client import SERVER_TIME_KEY
from device_runtime.identity import FeatureRequest
from device_runtime.protocol import features_pb2 as pb
from feature_catalog.service.servicer import AskingDevice
from server.gateway.answers import OutcomesUnreachable
from server.gateway.authentication import DeviceAuthenticator, NotAuthentic
from server.gateway.held_back import HeldBack, HeldBackReason
from server.gateway.metrics import GatewayMetrics
from server.gateway.rate_limits import RateLimits

log = logging.getLogger(__name__)

_MOST_DEVICES = 50_000
_CALLS = {
    pb.GetManifestRequest: "manifest",
    pb.GetFeaturesRequest: "features",
    pb.FetchAssetRequest: "asset",
}


class HardwareRegister(Protocol):
    """Knows what devices said of themselves when they enrolled."""

    def hardware(self, device_id: str) -> tuple[str, str] | None:
        """Model and OS release of a device; None if it is not enrolled."""
        ...


class GatewayFeatureDoor:
    """Lets devices in to the feature service; see `FeatureDoor`."""

    def __init__(
        self,
        authenticator: DeviceAuthenticator,
        rates: RateLimits,
        metrics: GatewayMetrics,
        register: HardwareRegister,
        *,
        clock: Callable[[], float],
        look_ups: threading.BoundedSemaphore,
        transfers: threading.BoundedSemaphore,
    ) -> None:
        """Assemble.

        Args:
            authenticator: Checks proofs.
            rates: How much one device may ask.
            metrics: Count calls.
            register: Of enrolled devices.
            clock: Server's clock, seconds since the epoch.
            look_ups: Manifests and rows at once.
            transfers: Assets at once, shared with other blobs on their way out.
        """
        self._authenticator = authenticator
        self._rates = rates
        self._metrics = metrics
        self._register = register
        self._clock = clock
        self._look_ups = look_ups
        self._transfers = transfers
        self._lock = threading.Lock()
        self._hardware: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def authenticate(self, request: FeatureRequest, context: grpc.ServicerContext) -> AskingDevice:
        """Whoever signed the request, with what its enrolment says."""
        call = _CALLS[type(request)]
        try:
            claims = self._authenticator.feature_request(request)
        except NotAuthentic as error:
            self._metrics.count_unauthenticated(call)
            now_ms = str(int(self._clock() * 1000))
            context.set_trailing_metadata(((SERVER_TIME_KEY, now_ms),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        if call != "manifest":
            return AskingDevice(claims.device_id, claims.app_id)
        return AskingDevice(claims.device_id, claims.app_id, *self._known(claims.device_id))

    @contextmanager
    def look_up(
        self, device: AskingDevice, keys: int, context: grpc.ServicerContext
    ) -> Iterator[None]:
        """Let a manifest (0 keys) or rows of so many keys be asked for."""
        now_s = self._clock()
        held_back = self._rates.feature_call(device.device_id, now_s)
        if held_back is not None:
            self._turn_away(held_back, "this device asks for features too often", context)
        if keys:
            held_back = self._rates.feature_keys(device.device_id, keys, now_s)
            if held_back is not None:
                self._turn_away(held_back, "this device has had its keys of today", context)
        with self._one_of(self._look_ups, "features", HeldBackReason.FEATURES_BUSY, context):
            if keys:
                self._metrics.feature_keys.inc(keys)
            with self._metrics.feature_seconds.time():
                yield

    @contextmanager
    def transfer(self, device: AskingDevice, context: grpc.ServicerContext) -> Iterator[None]:
        """Let an asset, or the rest of one, be fetched."""
        held_back = self._rates.fetch(device.device_id, self._clock())
        if held_back is not None:
            self._turn_away(held_back, "this device fetches too often", context)
        with self._one_of(self._transfers, "fetch", HeldBackReason.FETCHES_BUSY, context):
            yield

    def count(self, call: str, result: str) -> None:
        """Note what came of a call."""
        self._metrics.count_feature_call(call, result)

    def count_bytes(self, size_bytes: int) -> None:
        """Note bytes of assets sent."""
        self._metrics.bytes_down.inc(size_bytes)

    @contextmanager
    def _one_of(
        self,
        slots: threading.BoundedSemaphore,
        call: str,
        busy: HeldBackReason,
        context: grpc.ServicerContext,
    ) -> Iterator[None]:
        if not slots.acquire(blocking=False):
            self._metrics.count_turned_away(call)
            self._turn_away(HeldBack(busy, 0.0), "many fetch at this moment", context)
        try:
            yield
        finally:
            slots.release()

    def _turn_away(self, held_back: HeldBack, why: str, context: grpc.ServicerContext) -> NoReturn:
        self._metrics.count_held_back(held_back.reason)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{why} [{held_back.reason.code}]")

    def _known(self, device_id: str) -> tuple[str, str]:
        """Model and OS release; what a device is does not change while it is enrolled."""
        with self._lock:
            known = self._hardware.get(device_id)
        if known is not None:
            return known
        try:
            found = self._register.hardware(device_id)
        except OutcomesUnreachable as error:
            log.error("%s", error)
            return "", ""
        if found is None:
            return "", ""
        with self._lock:
            self._hardware[device_id] = found
            if len(self._hardware) > _MOST_DEVICES:
                self._hardware.popitem(last=False)
        return found
