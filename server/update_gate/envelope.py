"""The envelope half of the update gate: what can be told of an upload without opening it."""

import hashlib
from dataclasses import dataclass

from modeling.spec import ModelSpec
from server.gateway.tokens import TaskClaims
from server.update_gate.rejections import Rejection, RejectionReason

_DIGEST_BYTES = 32
_FRAMING_BYTES = 64  # lengths, dtype name, field tags and shape of one tensor, with room to spare


@dataclass(frozen=True, slots=True)
class UploadEnvelope:
    """An upload as it arrived.

    Attributes:
        payload_sha256: As the device claims and signed it.
        contract_sha256: As the device echoes it.
        payload: Not opened here.
        payload_bytes: Of a payload in parts, as announced; one that is too long is not read on.
    """

    payload_sha256: bytes
    contract_sha256: bytes
    payload: bytes
    payload_bytes: int = 0


def max_payload_bytes(model: ModelSpec) -> int:
    """Most bytes an honest update of this model can have: its float32 values and framing."""
    framing = sum(
        _FRAMING_BYTES + len(p.name.encode()) + 10 * len(p.shape) for p in model.parameters
    )
    return 4 * model.parameter_count + framing + _FRAMING_BYTES


def check_lessee(claims: TaskClaims | None, device_id: str) -> TaskClaims | Rejection:
    """The claims of a token that is genuine and the sender's own.

    What fails here says nothing about the task: its lessee may still answer.

    Args:
        claims: None if the token is not genuine.
        device_id: The sender.
    """
    if claims is None:
        return Rejection(
            RejectionReason.UNKNOWN_TASK, "the task token was not issued by this deployment"
        )
    if claims.device_id != device_id:
        return Rejection(
            RejectionReason.WRONG_CLIENT, "the task was leased to another device than the sender"
        )
    return claims


def check_other_digest(answered_sha256: bytes, payload_sha256: bytes) -> Rejection | None:
    """Whether a task that has its answer is being answered with something else."""
    if answered_sha256 == payload_sha256:
        return None
    return Rejection(
        RejectionReason.ANSWERED_WITH_OTHER_DIGEST,
        f"the task was answered with {answered_sha256.hex()[:16]}..., "
        f"now comes {payload_sha256.hex()[:16]}...",
    )


def check_bytes(
    upload: UploadEnvelope, *, contract_sha256: bytes, max_bytes: int
) -> Rejection | None:
    """Whether the lessee's bytes are what they claim to be; cheapest first, the digest last.

    Args:
        upload: What came.
        contract_sha256: Of the open job.
        max_bytes: See `max_payload_bytes`.
    """
    if upload.contract_sha256 != contract_sha256:
        return Rejection(
            RejectionReason.CONTRACT_MISMATCH,
            f"upload is for contract {upload.contract_sha256.hex()[:16] or 'none'}, "
            f"the job's is {contract_sha256.hex()[:16]}",
        )
    update_bytes = max(len(upload.payload), upload.payload_bytes)
    if update_bytes > max_bytes:
        return Rejection(
            RejectionReason.TOO_LARGE,
            f"update has {update_bytes} bytes; at most {max_bytes} fit this model",
        )
    if (
        len(upload.payload_sha256) != _DIGEST_BYTES
        or hashlib.sha256(upload.payload).digest() != upload.payload_sha256
    ):
        return Rejection(
            RejectionReason.DIGEST_MISMATCH,
            "the payload's bytes do not have the digest the device signed",
        )
    return None
