"""flint.device.v1: the calls devices make, mapped onto state, intake, blobs and catalog."""

import logging
import math
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc

from device_runtime.errors import FlintError
from device_runtime.gateway_client import SERVER_TIME_KEY
from device_runtime.identity import device_id_of, is_device_public_key, verify_enrol
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol import device_pb2_grpc
from device_runtime.session_shape import admitted_course
from feature_catalog.blobs import MissingBlob
from feature_catalog.devices import InvalidEnrolmentToken
from server.aggregation.process import AggregatorLost
from server.coordination.tasks import Outcome
from server.gateway.answers import OutcomeStore, OutcomesUnreachable
from server.gateway.authentication import DeviceAuthenticator, NotAuthentic
from server.gateway.daily_cap import DailyCap
from server.gateway.device_reasons import DeviceReasons
from server.gateway.device_screen import DeviceScreen
from server.gateway.elsewhere import Elsewhere
from server.gateway.held_back import HeldBack, HeldBackReason
from server.gateway.intake import UpdateIntake, retry_later
from server.gateway.metrics import GatewayMetrics
from server.gateway.pending_updates import PendingUpdates
from server.gateway.rate_limits import DeviceRates, RateLimits
from server.gateway.served_blobs import CHUNK_BYTES, ServedBlobs
from server.gateway.state import GatewayState
from server.gateway.task_book import TaskCost
from server.gateway.tokens import DeviceClaims, TaskClaims, TokenMint
from server.gateway.upload_slots import UploadSlots
from server.secure_aggregation.release_rules import ReleaseRefused
from server.update_gate.envelope import UploadEnvelope
from server.update_gate.rejections import Rejection, RejectionReason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Transfers at once; beyond, devices are told to come back.

    A hundred uploads at once take 250 MB and help nobody; transfers over slow links must leave
    threads for check-ins.

    Attributes:
        received: Updates on their way in, over links of any speed.
        uploads: Updates that are checked and folded; more threads at that only take turns. Others
            that have been received wait for a moment.
        fetches: Blobs on their way out.
        look_ups: Manifests and rows of the feature service.
        memory_bytes: Of updates that come in parts, checked and folded at once. Each takes about
            four times its bytes meanwhile. What has to wait lies on disk.
    """

    received: int = 32
    uploads: int = 4
    fetches: int = 40
    look_ups: int = 8
    memory_bytes: int = 256 * 2**20


_DEFAULT_LIMITS = TransferLimits()
_DEFAULT_RATES = DeviceRates()
_UPLOAD_PATIENCE_S = 10.0
_NOT_AUTHENTIC_COME_BACK_S = 60.0
_TOO_FREQUENT_S = 5.0
_UNKNOWN_SHARE_S = 60.0
_UNKNOWN_DEVICE_S = 60.0
_MOST_PENDING = 16
_MOST_CODECS = 16
_LONGEST_TEXT = 200
_MOST_UINT = 2**53
_MOST_TASK_S = 7 * 24 * 3600.0

_OUTCOMES = {
    pb.ReportOutcomeRequest.INTERRUPTED: (Outcome.INTERRUPTED, "interrupted"),
    pb.ReportOutcomeRequest.FAILED: (Outcome.FAILED, "device_failed"),
    pb.ReportOutcomeRequest.DECLINED: (Outcome.INTERRUPTED, "declined"),
}


Attest = Callable[[str, bytes], pb.Evidence]
"""Gives an enclave's evidence, for a job's id and a device's nonce."""


class Enrolment(Protocol):
    """Where devices are registered."""

    def enrol(
        self,
        token: str,
        device_id: str,
        public_key_der: bytes,
        app_id: str,
        device_model: str,
        os_release: str,
    ) -> None:
        """Register a device; idempotent for the same key."""
        ...


class DeviceGatewayService(device_pb2_grpc.DeviceGatewayServicer):
    """Answers devices, from the threads of a gRPC server."""

    def __init__(
        self,
        state: GatewayState,
        intake: UpdateIntake,
        mint: TokenMint,
        blobs: ServedBlobs,
        enrolment: Enrolment,
        outcomes: OutcomeStore,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float],
        on_lost: Callable[[FlintError], None],
        limits: TransferLimits = _DEFAULT_LIMITS,
        rates: DeviceRates = _DEFAULT_RATES,
        cap: DailyCap | None = None,
        screen: DeviceScreen | None = None,
        elsewhere: Elsewhere | None = None,
        attest: Attest | None = None,
    ) -> None:
        """Assemble.

        Args:
            clock: Server's clock, seconds since the epoch.
            on_lost: Called when the aggregator is gone, and this gateway's sums with it.
            limits: Transfers at once.
            rates: How often a device may call.
            cap: Tasks a device and day; None for any number.
            screen: Knows what devices are; None where no job asks.
            elsewhere: Asks the other gateways what became of updates; None where there are none.
            attest: Has the enclave prove itself; None where there is none.
        """
        self._state = state
        self._intake = intake
        self._mint = mint
        self._blobs = blobs
        self._enrolment = enrolment
        self._metrics = metrics
        self._clock = clock
        self._on_lost = on_lost
        self.authenticator = DeviceAuthenticator(mint, clock)
        self._upload_slots = UploadSlots(limits.uploads, _UPLOAD_PATIENCE_S)
        self.fetch_slots = threading.BoundedSemaphore(limits.fetches)
        self._reasons = DeviceReasons()
        self.rates = RateLimits(rates)
        self._cap = cap
        self._screen = screen
        self._attest = attest
        self.pending = PendingUpdates(state, mint, outcomes, elsewhere, clock)

    def Enrol(  # noqa: N802 - gRPC's names
        self, request: pb.EnrolRequest, context: grpc.ServicerContext
    ) -> pb.EnrolResponse:
        """Register a device's public key."""
        texts = (request.enrolment_token, request.app_id, request.device_model, request.os_release)
        if not all(len(text) <= _LONGEST_TEXT and _is_plain(text) for text in texts):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a text is too long or not printable")
        if not is_device_public_key(request.public_key):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the key is not a P-256 public key")
        if not verify_enrol(request):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the key is not proven to be held")
        held_back = self.rates.enrol(context.peer(), self._clock())
        if held_back is not None:
            self._turn_away(held_back, "this address has enrolled many devices", context)
        device_id = device_id_of(request.public_key)
        try:
            self._enrolment.enrol(
                request.enrolment_token,
                device_id,
                request.public_key,
                request.app_id,
                request.device_model,
                request.os_release,
            )
        except InvalidEnrolmentToken as error:
            self._metrics.count_enrolment("refused")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except FlintError as error:
            log.error("%s", error)
            self._metrics.count_enrolment("unavailable")
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        self._metrics.count_enrolment("enrolled")
        claims = DeviceClaims(device_id, request.public_key, request.app_id)
        return pb.EnrolResponse(
            device_id=device_id,
            credential=self._mint.credential(claims),
            server_time_ms=self._now_ms(),
        )

    def CheckIn(  # noqa: N802
        self, request: pb.CheckInRequest, context: grpc.ServicerContext
    ) -> pb.CheckInResponse:
        """Settle kept updates, and lease a task or say when to come back."""
        try:
            device = self.authenticator.check_in(request)
        except NotAuthentic as error:
            self._metrics.count_unauthenticated("check_in")
            context.set_trailing_metadata(((SERVER_TIME_KEY, str(self._now_ms())),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        self._metrics.check_ins.inc()
        now_s = self._clock()
        held_back = self.rates.check_in(device.device_id, now_s)
        if held_back is not None:
            self._metrics.count_held_back(held_back.reason)
            return self._come_back(held_back)
        pending = request.pending[:_MOST_PENDING]
        settlements = [self.pending.settle(device.device_id, update, now_s) for update in pending]
        gets_none = self._state.refuses_runtime(request.runtime_version)
        gets_none = gets_none or self._is_screened_out(device.device_id)
        gets_none = gets_none or self._had_its_share(device.device_id, now_s)
        answer = self._state.check_in(
            device.device_id,
            request.satisfied_policy_sha256,
            {update.task_id for update in pending},
            now_s,
            request.codecs[:_MOST_CODECS],
            may_lease=gets_none is None,
        )
        come_back_after_s, held_back_code = answer.come_back_after_s, 0
        if answer.task is not None:
            if self._cap is not None:
                self._cap.note(device.device_id, answer.task.task_id, now_s)
        elif (held_back := answer.held_back or gets_none) is not None:
            self._metrics.count_held_back(held_back.reason)
            come_back_after_s = max(come_back_after_s, self._spread(held_back.wait_s))
            held_back_code = int(held_back.reason)
        return pb.CheckInResponse(
            settlements=settlements,
            task=answer.task,
            come_back_after_s=come_back_after_s,
            policy=answer.policy,
            server_time_ms=self._now_ms(),
            held_back_code=held_back_code,
        )

    def FetchBlob(  # noqa: N802
        self, request: pb.FetchBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Stream a blob that the task names, in serialised chunks."""
        claims = self._task_claims(request.task_token, context)
        if request.blob_sha256 not in claims.blobs:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the task names no such blob")
        if claims.deadline_ms < self._now_ms():
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "the task's deadline has passed")
        held_back = self.rates.fetch(claims.device_id, self._clock())
        if held_back is not None:
            self._turn_away(held_back, "this device fetches too often", context)
        if not self.fetch_slots.acquire(blocking=False):
            self._metrics.count_turned_away("fetch")
            busy = HeldBack(HeldBackReason.FETCHES_BUSY, 0.0)
            self._turn_away(busy, "many fetch at this moment", context)
        try:
            yield from self._stream(request, context)
        finally:
            self.fetch_slots.release()

    def _stream(
        self, request: pb.FetchBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        try:
            blob = self._blobs.open(request.blob_sha256)
        except MissingBlob as error:
            log.error("%s", error)
            context.abort(grpc.StatusCode.NOT_FOUND, "the blob is not in the store")
        except (FlintError, OSError) as error:
            log.error("%s", error)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the blob store does not give it")
        if request.offset > blob.size:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, f"the blob has {blob.size} bytes")
        for start in range(request.offset, blob.size or 1, CHUNK_BYTES):
            self._metrics.bytes_down.inc(min(CHUNK_BYTES, blob.size - start))
            yield blob.chunk(start)

    def Upload(  # noqa: N802
        self,
        request: pb.UploadRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.UploadResponse:
        """Take an update."""
        with self._upload_slots.take() as taken:
            if not taken:
                self.turned_away(HeldBackReason.UPLOADS_BUSY)
                return retry_later(self._upload_slots.place_s(), HeldBackReason.UPLOADS_BUSY)
            with (
                self._metrics.uploads_in_progress.track_inprogress(),
                self._metrics.upload_seconds.time(),
            ):
                return self._take(request)

    def turned_away(self, reason: HeldBackReason) -> None:
        """Note an upload that is to come back, as many run."""
        self._metrics.count_turned_away("upload")
        self._metrics.count_held_back(reason)

    def ReportOutcome(  # noqa: N802
        self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomeResponse:
        """End a task without an update."""
        claims = self._task_claims(request.task_token, context)
        if request.outcome not in _OUTCOMES:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the outcome is not known here")
        outcome, otherwise = _OUTCOMES[request.outcome]
        reason = self._reasons.admit(request.reason) if request.reason else otherwise
        cost = _cost(request.cost, bytes_up=0)
        course = admitted_course(request.session_course)
        self._state.end_task(claims, outcome, reason, cost, self._clock(), course)
        return pb.ReportOutcomeResponse(
            come_back_after_s=self._state.come_back_after_s(claims.device_id)
        )

    def Attest(  # noqa: N802
        self, request: pb.AttestRequest, context: grpc.ServicerContext
    ) -> pb.Evidence:
        """Have the enclave that a leased task's update is for prove what it is."""
        if request.task_token:
            claims = self._task_claims(request.task_token, context)
            asking, job_id = claims.device_id, claims.job_id
        else:
            # Whoever dials may see what devices see; one address, as often as one device.
            job = self._state.job
            asking = context.peer().rpartition(":")[0]
            job_id = request.job_id or ("" if job is None else job.job_id)
        held_back = self.rates.fetch(asking, self._clock())
        if held_back is not None:
            self._turn_away(held_back, "evidence is asked for too often", context)
        if self._attest is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this deployment has no enclave")
        if self._state.job is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no job is open here yet")
        try:
            evidence = self._attest(job_id, request.nonce)
        except ReleaseRefused as refused:
            context.abort(grpc.StatusCode.NOT_FOUND, refused.detail)
        except AggregatorLost as error:
            self._on_lost(error)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the enclave is gone")
        self._metrics.attestations.inc()
        return evidence

    def _take(self, request: pb.UploadRequest) -> pb.UploadResponse:
        payload = request.payload
        self._metrics.bytes_up.inc(len(payload))
        try:
            device = self.authenticator.upload(request)
        except NotAuthentic as error:
            self._metrics.count_unauthenticated("upload")
            response = self._intake.refuse(Rejection(RejectionReason.BAD_SIGNATURE, str(error)))
            response.come_back_after_s = _NOT_AUTHENTIC_COME_BACK_S
            response.server_time_ms = self._now_ms()
            return response
        held_back = self.rates.upload(device.device_id, self._clock())
        if held_back is not None:
            self._metrics.count_held_back(held_back.reason)
            return retry_later(held_back.wait_s, held_back.reason)
        response = self._answer(device, request, payload)
        response.come_back_after_s = self._state.come_back_after_s(device.device_id)
        return response

    def _answer(
        self, device: DeviceClaims, request: pb.UploadRequest, payload: bytes
    ) -> pb.UploadResponse:
        try:
            return self._intake.take(
                device.device_id,
                self._mint.open_task(request.task_token),
                UploadEnvelope(
                    request.payload_sha256, request.contract_sha256, payload, request.payload_bytes
                ),
                _cost(request.cost, bytes_up=len(payload)),
                self._clock(),
                admitted_course(request.session_course),
            )
        except OutcomesUnreachable as error:
            log.error("%s", error)
            return retry_later()
        except AggregatorLost as error:
            self._on_lost(error)
            return retry_later()

    def _is_screened_out(self, device_id: str) -> HeldBack | None:
        """Whether the open job's device criteria exclude a device, or nobody can tell."""
        job = self._state.job
        if self._screen is None or job is None:
            return None
        try:
            return self._screen.check(job.job.participation.device, device_id)
        except OutcomesUnreachable as error:
            log.error("%s", error)
            return HeldBack(HeldBackReason.DEVICE_UNMEASURED, _UNKNOWN_DEVICE_S)

    def _had_its_share(self, device_id: str, now_s: float) -> HeldBack | None:
        """Whether a device gets no further task today, or nobody can tell."""
        if self._cap is None:
            return None
        try:
            return self._cap.check(device_id, now_s)
        except OutcomesUnreachable as error:
            log.error("%s", error)
            return HeldBack(HeldBackReason.DAILY_PARTICIPATION, _UNKNOWN_SHARE_S)

    def _come_back(self, held_back: HeldBack) -> pb.CheckInResponse:
        return pb.CheckInResponse(
            come_back_after_s=self._spread(max(held_back.wait_s, _TOO_FREQUENT_S)),
            server_time_ms=self._now_ms(),
            held_back_code=int(held_back.reason),
        )

    def _spread(self, wait_s: float) -> float:
        return wait_s * random.uniform(1.0, 1.3)  # noqa: S311 - spreads load

    def _turn_away(self, held_back: HeldBack, why: str, context: grpc.ServicerContext) -> NoReturn:
        """End a call that has no field for when to come again; the device backs off by itself."""
        self._metrics.count_held_back(held_back.reason)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{why} [{held_back.reason.code}]")

    def _task_claims(self, token: bytes, context: grpc.ServicerContext) -> TaskClaims:
        claims = self._mint.open_task(token)
        if claims is None:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                "the task token was not issued by this deployment",
            )
        return claims

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _cost(claimed: pb.DeviceCost, *, bytes_up: int) -> TaskCost:
    """A device's account of itself, kept within what can be true."""
    train_s = claimed.train_s if math.isfinite(claimed.train_s) else 0.0
    return TaskCost(
        min(max(train_s, 0.0), _MOST_TASK_S), min(claimed.bytes_down, _MOST_UINT), bytes_up
    )


def _is_plain(text: str) -> bool:
    return not text or text.isprintable()
