"""A real gRPC server of flint.device.v1 whose answers a test scripts."""

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent import futures

import grpc

from device_runtime.gateway_client import SERVER_TIME_KEY
from device_runtime.identity import device_id_of, verify_check_in, verify_enrol, verify_upload
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import (
    DeviceGatewayServicer,
    add_DeviceGatewayServicer_to_server,
)
from device_runtime.update_codec import WireUpdate, decode_update

CHUNK_BYTES = 64 * 1024
TOKEN = "enrolment-token"


class ScriptedGateway(DeviceGatewayServicer):
    """Checks every proof; leases what is queued; answers uploads with queued verdicts.

    Attributes:
        blobs: What may be fetched, by digest.
        policy: Of the open job; None: no job is open.
        tasks: Handed out in order to devices that satisfy the policy.
        verdicts: Answers to uploads, in order; ACCEPTED when there are none.
        settlements: By task id, told at check-in for updates the device still keeps.
        errors: By method, gRPC statuses to fail the next calls with.
        break_fetch_after: Chunks after which the next fetch breaks off.
        evidence: Answers a device's nonce; None: there is no enclave.
        check_ins, fetches, uploads, reports, enrolments: Requests, in order.
        clock_ahead_ms: Server clock minus the machine's.
        tolerance_ms: Most that a proof's time may be from the server's; None: any.
    """

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.policy: ParticipationPolicy | None = ParticipationPolicy()
        self.tasks: deque[pb.Task] = deque()
        self.verdicts: deque[pb.UploadResponse] = deque()
        self.settlements: dict[str, pb.Settlement.State] = {}
        self.errors: dict[str, deque[grpc.StatusCode]] = defaultdict(deque)
        self.break_fetch_after: int | None = None
        self.evidence: Callable[[pb.AttestRequest], pb.Evidence] | None = None
        self.on_check_in: Callable[[pb.CheckInRequest], None] = lambda request: None
        self.come_back_after_s = 7.0
        self.held_back_code = 0
        self.clock_ahead_ms = 0
        self.tolerance_ms: int | None = None
        self.enrolments: list[pb.EnrolRequest] = []
        self.check_ins: list[pb.CheckInRequest] = []
        self.fetches: list[pb.FetchBlobRequest] = []
        self.uploads: list[pb.UploadRequest] = []
        self.reports: list[pb.ReportOutcomeRequest] = []
        self.public_keys: dict[str, bytes] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_DeviceGatewayServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def put(self, blob: bytes) -> bytes:
        digest = hashlib.sha256(blob).digest()
        self.blobs[digest] = blob
        return digest

    def updates(self) -> list[WireUpdate]:
        return [decode_update(upload.payload) for upload in self.uploads]

    def now_ms(self) -> int:
        return round(time.time() * 1000) + self.clock_ahead_ms

    def Enrol(self, request, context):  # noqa: N802
        self._fail("Enrol", context)
        if request.enrolment_token != TOKEN or not verify_enrol(request):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no such token")
        self.enrolments.append(request)
        device_id = device_id_of(request.public_key)
        self.public_keys[device_id] = request.public_key
        return pb.EnrolResponse(
            device_id=device_id, credential=b"credential", server_time_ms=self.now_ms()
        )

    def CheckIn(self, request, context):  # noqa: N802
        self._fail("CheckIn", context)
        key = self.public_keys.get(request.proof.device_id, b"")
        if not verify_check_in(key, request) or self._is_out_of_time(request.proof):
            context.set_trailing_metadata(((SERVER_TIME_KEY, str(self.now_ms())),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not signed by the enrolled key")
        self.check_ins.append(request)
        self.on_check_in(request)
        response = pb.CheckInResponse(
            settlements=[
                pb.Settlement(task_id=p.task_id, state=self.settlements[p.task_id])
                for p in request.pending
                if p.task_id in self.settlements
            ],
            come_back_after_s=self.come_back_after_s,
            server_time_ms=self.now_ms(),
            held_back_code=self.held_back_code,
        )
        if self.policy is not None:
            if request.satisfied_policy_sha256 != self.policy.sha256():
                response.policy.policy_sha256 = self.policy.sha256()
                response.policy.policy_json = self.policy.to_json()
            elif self.tasks:
                response.task.CopyFrom(self.tasks.popleft())
        return response

    def FetchBlob(self, request, context):  # noqa: N802
        self._fail("FetchBlob", context)
        self.fetches.append(request)
        blob = self.blobs.get(request.blob_sha256)
        if blob is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        starts = range(request.offset, len(blob), CHUNK_BYTES)
        for sent, start in enumerate(starts):
            if sent == self.break_fetch_after:
                self.break_fetch_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            yield pb.BlobChunk(data=blob[start : start + CHUNK_BYTES], total_bytes=len(blob))

    def Upload(self, request, context):  # noqa: N802
        self._fail("Upload", context)
        key = self.public_keys.get(request.proof.device_id, b"")
        if not verify_upload(key, request):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "not signed by the enrolled key")
        if self._is_out_of_time(request.proof):
            return pb.UploadResponse(
                verdict=pb.UploadResponse.REJECTED, reason_code=2007, server_time_ms=self.now_ms()
            )
        self.uploads.append(request)
        if self.verdicts:
            return self.verdicts.popleft()
        return pb.UploadResponse(
            verdict=pb.UploadResponse.ACCEPTED, come_back_after_s=self.come_back_after_s
        )

    def Attest(self, request, context):  # noqa: N802
        self._fail("Attest", context)
        if self.evidence is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no enclave")
        return self.evidence(request)

    def ReportOutcome(self, request, context):  # noqa: N802
        self._fail("ReportOutcome", context)
        self.reports.append(request)
        return pb.ReportOutcomeResponse(come_back_after_s=self.come_back_after_s)

    def _is_out_of_time(self, proof: pb.DeviceProof) -> bool:
        difference_ms = abs(proof.timestamp_ms - self.now_ms())
        return self.tolerance_ms is not None and difference_ms > self.tolerance_ms

    def _fail(self, method: str, context: grpc.ServicerContext) -> None:
        if self.errors[method]:
            context.abort(self.errors[method].popleft(), "scripted")
