"""The gateway as a device sees it: one method a call, errors sorted into two kinds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import DeviceGatewayStub

_TRANSIENT = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
_MAX_MESSAGE_BYTES = 16 * 2**20
SERVER_TIME_KEY = "flint-server-time-ms"
"""Trailing metadata of a call refused as not authentic: whose clock is wrong can then be mended."""

_CALL_TIMEOUT_S = 30.0
_TRANSFER_TIMEOUT_S = 300.0
_SLOWEST_BYTES_PER_S = 100_000.0
PART_BYTES = 4 * 2**20
"""A larger update is handed in by several messages."""


class UnreadableCertificate(FlintError):
    """The certificate to trust the gateway by is not there or not one."""

    code = "FLN-1408"


class GatewayError(Exception):
    """A call that gave no answer.

    Attributes:
        status: gRPC status name, e.g. ``"UNAVAILABLE"``.
        detail: What the gateway said.
        server_time_ms: The gateway's clock, where it told; else 0.
    """

    def __init__(self, status: str, detail: str, server_time_ms: int = 0) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.server_time_ms = server_time_ms


class GatewayBusy(GatewayError):
    """Trying again may help: gateway away, busy, or the network down."""


class GatewayRefused(GatewayError):
    """The same call will be refused again: not enrolled, unknown task, unsupported."""


class GatewayClient:
    """Calls of ``flint.device.v1`` on a channel that many identities may share."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = DeviceGatewayStub(channel)

    def enrol(self, request: pb.EnrolRequest) -> pb.EnrolResponse:
        """Register a key.

        Raises:
            GatewayBusy: Try again later.
            GatewayRefused: Do not try again soon. Both hold for every call.
        """
        with sorted_errors():
            response: pb.EnrolResponse = self._stub.Enrol(request, timeout=_CALL_TIMEOUT_S)
        return response

    def check_in(self, request: pb.CheckInRequest) -> pb.CheckInResponse:
        """Settle kept updates; get a task, or when to come back."""
        with sorted_errors():
            response: pb.CheckInResponse = self._stub.CheckIn(request, timeout=_CALL_TIMEOUT_S)
        return response

    def fetch_blob(self, task_token: bytes, blob_sha256: bytes, offset: int) -> Iterator[bytes]:
        """Stream a blob's bytes from ``offset`` on."""
        request = pb.FetchBlobRequest(task_token=task_token, blob_sha256=blob_sha256, offset=offset)
        with sorted_errors():
            stream = self._stub.FetchBlob(request, timeout=_TRANSFER_TIMEOUT_S)
            try:
                for chunk in stream:
                    yield chunk.data
            finally:
                stream.cancel()

    def upload(self, request: pb.UploadRequest) -> pb.UploadResponse:
        """Hand in an update."""
        with sorted_errors():
            response: pb.UploadResponse
            if request.ByteSize() <= PART_BYTES:
                response = self._stub.Upload(request, timeout=_TRANSFER_TIMEOUT_S)
            else:
                timeout_s = _TRANSFER_TIMEOUT_S + request.ByteSize() / _SLOWEST_BYTES_PER_S
                response = self._stub.UploadInParts(upload_parts(request), timeout=timeout_s)
        return response

    def attest(self, request: pb.AttestRequest) -> pb.Evidence:
        """Have the enclave of a leased task prove what it is."""
        with sorted_errors():
            evidence: pb.Evidence = self._stub.Attest(request, timeout=_CALL_TIMEOUT_S)
        return evidence

    def report_outcome(self, request: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        """End a task without an update."""
        with sorted_errors():
            response: pb.ReportOutcomeResponse = self._stub.ReportOutcome(
                request, timeout=_CALL_TIMEOUT_S
            )
        return response


def upload_parts(request: pb.UploadRequest) -> Iterator[pb.UploadRequest]:
    """The messages of ``UploadInParts``."""
    payload = request.payload  # every access copies it
    yield pb.UploadRequest(
        proof=request.proof,
        task_token=request.task_token,
        payload_sha256=request.payload_sha256,
        contract_sha256=request.contract_sha256,
        payload=payload[:PART_BYTES],
        cost=request.cost,
        session_course=request.session_course,
        payload_bytes=len(payload),
    )
    for start in range(PART_BYTES, len(payload), PART_BYTES):
        yield pb.UploadRequest(payload=payload[start : start + PART_BYTES])


def open_channel(address: str, ca_certificate: Path | None) -> grpc.Channel:
    """Connect lazily to a gateway.

    Args:
        address: ``host:port``.
        ca_certificate: PEM to trust; None speaks without TLS, for one machine's experiments only.

    Raises:
        UnreadableCertificate: If the file is not there or holds no certificate.
    """
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),
        # The runner has its own back-off; gRPC's, up to two minutes, would hide a gateway's return.
        ("grpc.max_reconnect_backoff_ms", 5000),
    ]
    if ca_certificate is None:
        return grpc.insecure_channel(address, options)
    try:
        pem = ca_certificate.read_bytes()
    except OSError as error:
        raise UnreadableCertificate(
            f"cannot read the CA certificate {ca_certificate} ({error.strerror}); "
            "give the ca.crt that `flint up` wrote"
        ) from error
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise UnreadableCertificate(
            f"{ca_certificate} holds no PEM certificate; give the ca.crt that `flint up` wrote"
        )
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(pem), options)


@contextmanager
def sorted_errors() -> Iterator[None]:
    """Raise gRPC's errors as `GatewayBusy` or `GatewayRefused`."""
    try:
        yield
    except grpc.RpcError as error:
        status, detail = error.code(), error.details() or ""
        kind = GatewayBusy if status in _TRANSIENT else GatewayRefused
        raise kind(status.name, detail, _server_time_ms(error)) from error


def _server_time_ms(error: grpc.RpcError) -> int:
    for told in error.trailing_metadata() or ():
        if told.key == SERVER_TIME_KEY and str(told.value).isdecimal():
            return int(told.value)
    return 0
