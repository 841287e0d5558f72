"""The calls of flint.device.v1, as whoever answers them provides them."""

from collections.abc import Iterator
from typing import Protocol

import grpc

from device_runtime.protocol import device_pb2 as pb


class DeviceCalls(Protocol):
    """The calls of flint.device.v1."""

    def Enrol(  # noqa: N802 - gRPC's names
        self, request: pb.EnrolRequest, context: grpc.ServicerContext
    ) -> pb.EnrolResponse:
        """Register a device's key."""
        ...

    def CheckIn(  # noqa: N802
        self, request: pb.CheckInRequest, context: grpc.ServicerContext
    ) -> pb.CheckInResponse:
        """Settle updates, lease a task."""
        ...

    def FetchBlob(  # noqa: N802
        self, request: pb.FetchBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Stream a blob, in serialised chunks."""
        ...

    def Upload(  # noqa: N802
        self, request: pb.UploadRequest, context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """Take an update."""
        ...

    def ReportOutcome(  # noqa: N802
        self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomeResponse:
        """End a task."""
        ...

    def Attest(  # noqa: N802
        self, request: pb.AttestRequest, context: grpc.ServicerContext
    ) -> pb.Evidence:
        """Have an enclave prove itself."""
        ...
