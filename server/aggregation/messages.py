"""flint.aggregation.v1 messages to and from the `Aggregator`'s own types."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from device_runtime.errors import FlintError
from server.aggregation import aggregation_pb2 as pb
from server.aggregation.aggregator import Envelope, PartialSum
from server.coordination.tasks import UpdateReference
from server.update_gate.rejections import Rejection, RejectionReason

MAX_MESSAGE_BYTES = 1 << 30
"""A sum is as large as a model; both ends are ours, on one machine."""

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

_MAX_SOCKET_PATH_BYTES = 107  # sun_path of Linux, less its closing NUL


class SocketPathTooLong(FlintError):
    """A unix socket's path has to be short, a limit of the operating system."""

    code = "FLN-1262"


def socket_address(path: Path) -> str:
    """The gRPC address of a unix socket.

    Raises:
        SocketPathTooLong: If no process could listen there.
    """
    absolute = path.absolute()
    if len(bytes(absolute)) > _MAX_SOCKET_PATH_BYTES:
        raise SocketPathTooLong(
            f"the aggregator's socket {absolute} has a path of {len(bytes(absolute))} bytes and "
            f"{_MAX_SOCKET_PATH_BYTES} is the most a socket can have; choose a shorter FLINT_HOME"
        )
    return f"unix:{absolute}"


def reference_message(reference: UpdateReference) -> pb.Reference:
    """A reference, on the wire."""
    return pb.Reference(
        task_id=reference.task_id,
        client_id=reference.client_id,
        base_version=reference.base_version,
        num_examples=reference.num_examples,
        weight=reference.weight,
        update_norm=reference.update_norm,
        loss_before=reference.loss_before,
        loss_after=reference.loss_after,
        train_s=reference.train_s,
        bytes_down=reference.bytes_down,
        bytes_up=reference.bytes_up,
        payload_sha256=reference.payload_sha256,
    )


def reference_of(message: pb.Reference) -> UpdateReference:
    """Inverse of `reference_message`."""
    return UpdateReference(
        message.task_id,
        message.client_id,
        message.base_version,
        message.num_examples,
        message.weight,
        message.update_norm,
        message.loss_before,
        message.loss_after,
        message.train_s,
        message.bytes_down,
        message.bytes_up,
        message.payload_sha256,
    )


def fold_request(boot_id: str, envelope: Envelope, payload: bytes) -> pb.FoldRequest:
    """One update with its envelope, on the wire."""
    return pb.FoldRequest(
        boot_id=boot_id,
        task_id=envelope.task_id,
        client_id=envelope.client_id,
        base_version=envelope.base_version,
        payload_sha256=envelope.payload_sha256,
        train_s=envelope.train_s,
        bytes_down=envelope.bytes_down,
        bytes_up=envelope.bytes_up,
        payload=payload,
    )


def envelope_of(request: pb.FoldRequest) -> Envelope:
    """The envelope of a fold request."""
    return Envelope(
        request.task_id,
        request.client_id,
        request.base_version,
        request.payload_sha256,
        request.train_s,
        request.bytes_down,
        request.bytes_up,
    )


def fold_reply(result: UpdateReference | Rejection) -> pb.FoldReply:
    """What `Aggregator.fold` gave, on the wire."""
    if isinstance(result, Rejection):
        return pb.FoldReply(
            rejected=pb.Rejected(reason_code=int(result.reason), detail=result.detail)
        )
    return pb.FoldReply(reference=reference_message(result))


def fold_result(reply: pb.FoldReply) -> UpdateReference | Rejection:
    """Inverse of `fold_reply`."""
    if reply.WhichOneof("result") == "rejected":
        return Rejection(RejectionReason(reply.rejected.reason_code), reply.rejected.detail)
    return reference_of(reply.reference)


def partial_message(partial: PartialSum) -> pb.PartialSum:
    """A sum, on the wire."""
    return pb.PartialSum(
        base_version=partial.base_version,
        total=np.ascontiguousarray(partial.total, dtype="<f4").tobytes(),
        weight=partial.weight,
        task_ids=partial.task_ids,
    )


def partials_of(messages: Iterable[pb.PartialSum]) -> tuple[PartialSum, ...]:
    """Inverse of `partial_message`; the arrays are views of the received bytes."""
    return tuple(
        PartialSum(
            message.base_version,
            np.frombuffer(message.total, dtype="<f4"),
            message.weight,
            tuple(message.task_ids),
        )
        for message in messages
    )
