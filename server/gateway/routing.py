"""Which gateway process answers a call: devices reach any of them behind one port.

A check-in belongs to the device's home, where what is kept of the device is kept; an update and
the end of a task belong to the process the task token names, which folds: so a retry is folded
once, wherever it comes in. A blob or an enrolment is anybody's. Calls are handed on as they came
and authenticated by the process that answers.
"""

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from device_runtime.gateway_client import SERVER_TIME_KEY
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol import device_pb2_grpc
from server.gateway.elsewhere import Elsewhere
from server.gateway.intake import retry_later
from server.gateway.known_gateways import KnownGateways
from server.gateway.peers import LocalCalls, PeerGone, Peers, PeerSilent
from server.gateway.tokens import TokenMint

_CALL_S = 10.0
_UPLOAD_S = 60.0
_Answer = TypeVar("_Answer")

CountHandedOn = Callable[[str, str], None]
"""Told of a call that belongs to another process: its name and what came of it."""


class RoutedGatewayService(device_pb2_grpc.DeviceGatewayServicer):
    """Answers devices: out of this process where the call is its own, else by handing it on."""

    def __init__(
        self,
        local: LocalCalls,
        known: KnownGateways,
        peers: Peers | None,
        elsewhere: Elsewhere,
        mint: TokenMint,
        *,
        count: CountHandedOn = lambda *_: None,
    ) -> None:
        """Assemble.

        Args:
            local: Answers what belongs here.
            known: All gateways.
            peers: To hand calls on; None where there is one gateway at a time.
            elsewhere: Asks who holds an update of a process that has ended.
            mint: Opens task tokens.
            count: Told of every call that belongs to another process.
        """
        self._local = local
        self._known = known
        self._peers = peers
        self._elsewhere = elsewhere
        self._mint = mint
        self._count = count

    def Enrol(  # noqa: N802
        self, request: pb.EnrolRequest, context: grpc.ServicerContext
    ) -> pb.EnrolResponse:
        """Register a device: here, the database is everybody's."""
        return self._local.Enrol(request, context)

    def FetchBlob(  # noqa: N802
        self, request: pb.FetchBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Stream a blob: from here, the token says which."""
        return self._local.FetchBlob(request, context)

    def CheckIn(  # noqa: N802
        self, request: pb.CheckInRequest, context: grpc.ServicerContext
    ) -> pb.CheckInResponse:
        """At the device's home; here when its home does not answer."""
        home = self._known.home_of(request.proof.device_id)
        if self._peers is None or self._known.is_own(home):
            return self._local.CheckIn(request, context)
        answer = self._hand_on(
            "check_in", context, home, lambda stub: stub.CheckIn(request, timeout=_CALL_S)
        )
        if isinstance(answer, pb.CheckInResponse):
            return answer
        return self._local.CheckIn(request, context)

    def Upload(  # noqa: N802
        self, request: pb.UploadRequest, context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Where the token says; at the device's home when that process was given up."""
        claims = self._mint.open_task(request.task_token)
        if claims is None or self._known.is_own(claims.boot_id):
            return self._local.Upload(request, context)
        answer = self._upload_at(claims.boot_id, request, context)
        if isinstance(answer, PeerGone):
            home = self._known.home_of(claims.device_id)
            if self._known.is_own(home):
                return self.take_orphan(request, context)
            if self._known.is_given_up(claims.boot_id):
                answer = self._upload_at(home, request, context)
        return answer if isinstance(answer, pb.UploadResponse) else _come_back()

    def take_orphan(
        self, request: pb.UploadRequest, context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Take an update of a process that has ended, once it is sure that nobody else did."""
        claims = self._mint.open_task(request.task_token)
        if claims is None or self._local.pending.knows(claims):
            return self._local.Upload(request, context)
        update = pb.PendingUpdate(
            task_id=claims.task_id,
            payload_sha256=request.payload_sha256,
            task_token=request.task_token,
        )
        try:
            # Before the stored outcomes are asked: given up means that all it gave is stored.
            found = self._elsewhere.who_knows(claims, claims.device_id, update)
        except PeerSilent:
            return _come_back()
        if found is None:
            return self._local.Upload(request, context)
        answer = self._upload_at(found[0], request, context)
        return answer if isinstance(answer, pb.UploadResponse) else _come_back()

    def ReportOutcome(  # noqa: N802
        self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomeResponse:
        """Where the token says; nowhere when that process has ended, and the task with it."""
        claims = self._mint.open_task(request.task_token)
        if self._peers is None or claims is None or self._known.is_own(claims.boot_id):
            return self._local.ReportOutcome(request, context)
        answer = self._hand_on(
            "report",
            context,
            claims.boot_id,
            lambda stub: stub.ReportOutcome(request, timeout=_CALL_S),
        )
        if isinstance(answer, pb.ReportOutcomeResponse):
            return answer
        return self._local.ReportOutcome(request, context)

    def Attest(  # noqa: N802
        self, request: pb.AttestRequest, context: grpc.ServicerContext
    ) -> pb.Evidence:
        """Where the update will be folded: see `Upload`."""
        claims = self._mint.open_task(request.task_token)
        if claims is None or self._known.is_own(claims.boot_id):
            return self._local.Attest(request, context)
        home = self._known.home_of(claims.device_id)
        for boot_id in (claims.boot_id, home):
            if self._known.is_own(boot_id):
                break
            answer = self._hand_on(
                "attest", context, boot_id, lambda stub: stub.Attest(request, timeout=_CALL_S)
            )
            if isinstance(answer, pb.Evidence):
                return answer
        return self._local.Attest(request, context)

    def _upload_at(
        self, boot_id: str, request: pb.UploadRequest, context: grpc.ServicerContext
    ) -> pb.UploadResponse | PeerGone | PeerSilent:
        return self._hand_on(
            "upload", context, boot_id, lambda stub: stub.Upload(request, timeout=_UPLOAD_S)
        )

    def _hand_on(
        self,
        call: str,
        context: grpc.ServicerContext,
        boot_id: str,
        method: Callable[..., _Answer],
    ) -> _Answer | PeerGone | PeerSilent:
        if self._peers is None:
            return PeerGone()
        try:
            answer = self._peers.call(boot_id, method)
        except (PeerGone, PeerSilent) as error:
            self._count(call, "gone" if isinstance(error, PeerGone) else "silent")
            return error
        except grpc.RpcError as error:
            self._count(call, "refused")
            told = [(t.key, t.value) for t in error.trailing_metadata() or ()]
            context.set_trailing_metadata(tuple(t for t in told if t[0] == SERVER_TIME_KEY))
            context.abort(error.code(), error.details() or "")
        self._count(call, "answered")
        return answer


def _come_back() -> pb.UploadResponse:
    response = retry_later()
    response.come_back_after_s = random.uniform(2.0, 6.0)  # noqa: S311 - spreads load
    return response
