"""What a node's reply means: weights become a delta, Flower's errors become outcomes.

Nothing here trusts the reply. What only the content gate can judge (names, shapes, finiteness,
norm, example count) is passed on to it as it came, so that nodes and devices are refused by the
same code for the same numbered reasons.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.attestation import NONCE_BYTES
from device_runtime.flower_records import (
    ARRAYS,
    ECHO,
    METRICS,
    SECURE,
    EchoKey,
    MetricKey,
    SecureKey,
)
from device_runtime.protocol import device_pb2 as pb
from server.coordination.tasks import Outcome
from server.flower.node_messages import NodeArray, NodeReply
from server.update_gate.rejections import Rejection, RejectionReason

_INT64 = range(-(2**63), 2**63)

# flwr.common.constant.ErrorCode. Nobody's fault but the moment's: the node went or was too slow.
_INTERRUPTIONS = {3: "deadline", 4: "reply_lost", 5: "node_gone"}
_APP_RAISED_EXCEPTION = 2
_MAX_REASON_CODE = 40


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """A reply turned into what the aggregator takes.

    Attributes:
        payload: Serialised ``Update``, not yet gated.
        train_s: Seconds of training as the node measured them.
    """

    payload: bytes
    train_s: float


def outcome_of_error(code: int, reason: str) -> tuple[Outcome, str]:
    """Outcome and short reason of an error reply.

    Our own ClientApp starts its reason with the short code that a device would report; any other
    error is named by Flower's number.

    >>> outcome_of_error(5, "Node Unavailable")
    (<Outcome.INTERRUPTED: 'interrupted'>, 'node_gone')
    >>> outcome_of_error(2, "no_examples: the store is empty")
    (<Outcome.FAILED: 'failed'>, 'no_examples')
    """
    if code in _INTERRUPTIONS:
        return Outcome.INTERRUPTED, _INTERRUPTIONS[code]
    short, separator, _ = reason.partition(":")
    is_short = separator and len(short) <= _MAX_REASON_CODE and short.replace("_", "").isalnum()
    if code == _APP_RAISED_EXCEPTION and is_short and short == short.lower() and short.isascii():
        return Outcome.FAILED, short
    return Outcome.FAILED, f"flower_error_{code}"


def read_update(
    reply: NodeReply,
    base: Mapping[str, NDArray[np.float32]],
    base_version: int,
    contract_sha256: bytes,
) -> NodeUpdate | Rejection:
    """The update in a reply that carries records.

    Args:
        base: Parameters the task was sent with, by name, in wire order.
    """
    rejection = _check_reply(reply, base_version, contract_sha256)
    if rejection is not None:
        return rejection
    metrics = reply.values.get(METRICS, {})
    num_examples = example_count(metrics.get(MetricKey.NUM_EXAMPLES), MetricKey.NUM_EXAMPLES)
    if isinstance(num_examples, Rejection):
        return num_examples
    update = pb.Update(
        num_examples=num_examples,
        loss_before=_number(metrics.get(MetricKey.LOSS_BEFORE)),
        loss_after=_number(metrics.get(MetricKey.LOSS_AFTER)),
    )
    for array in in_wire_order(reply.arrays.get(ARRAYS, ()), base):
        update.delta.tensors.append(_tensor(array, base.get(array.name)))
    train_s = _number(metrics.get(MetricKey.TRAIN_S))
    return NodeUpdate(
        update.SerializeToString(deterministic=True),
        train_s if math.isfinite(train_s) and train_s > 0 else 0.0,
    )


def read_nonce(reply: NodeReply) -> bytes | Rejection:
    """What a node of a secure job answers first."""
    nonce = reply.values.get(SECURE, {}).get(SecureKey.NONCE)
    readable = not reply.too_large and reply.malformed is None
    if not readable or not isinstance(nonce, bytes) or len(nonce) != NONCE_BYTES:
        return Rejection(
            RejectionReason.NOT_SEALED,
            "the node gave no nonce: its ClientApp does not take part in secure aggregation",
        )
    return nonce


def read_sealed(
    reply: NodeReply, base_version: int, contract_sha256: bytes
) -> NodeUpdate | Rejection:
    """The sealed update in a reply; what is in it only the enclave can tell."""
    rejection = _check_reply(reply, base_version, contract_sha256)
    if rejection is not None:
        return rejection
    secure = reply.values.get(SECURE, {})
    payload = secure.get(SecureKey.PAYLOAD)
    if not isinstance(payload, bytes):
        return Rejection(RejectionReason.NOT_SEALED, "the reply brings no sealed update")
    train_s = _number(secure.get(SecureKey.TRAIN_S))
    return NodeUpdate(payload, train_s if math.isfinite(train_s) and train_s > 0 else 0.0)


def _check_reply(reply: NodeReply, base_version: int, contract_sha256: bytes) -> Rejection | None:
    """Whether records came that can be read, about the task that was given."""
    if reply.too_large:
        return Rejection(RejectionReason.TOO_LARGE, "the reply is larger than any update can be")
    if reply.malformed is not None:
        return Rejection(RejectionReason.MALFORMED, reply.malformed)
    echo = reply.values.get(ECHO, {})
    if echo.get(EchoKey.CONTRACT_SHA256) != contract_sha256:
        return Rejection(RejectionReason.CONTRACT_MISMATCH, "the reply names another contract")
    if echo.get(EchoKey.BASE_VERSION) != base_version:
        return Rejection(
            RejectionReason.CONTRACT_MISMATCH,
            f"the reply is about base version {echo.get(EchoKey.BASE_VERSION)!r}, "
            f"the task was about {base_version}",
        )
    return None


def in_wire_order(
    arrays: Sequence[NodeArray], base: Mapping[str, NDArray[np.float32]]
) -> Sequence[NodeArray]:
    """The order in which a node lists its arrays means nothing, as long as they are the model's."""
    by_name = {array.name: array for array in arrays}
    if len(by_name) == len(arrays) and by_name.keys() == base.keys():
        return [by_name[name] for name in base]
    return arrays


def _tensor(array: NodeArray, base: NDArray[np.float32] | None) -> pb.Tensor:
    data = array.data
    if base is not None and array.dtype == "float32" and array.shape == base.shape:
        weights = np.frombuffer(data, "<f4").reshape(base.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # the gate says so, with a number
            data = np.ascontiguousarray(weights - base, "<f4").tobytes()
    return pb.Tensor(name=array.name, dtype=array.dtype, shape=array.shape, data=data)


def example_count(claimed: object, key: str) -> int | Rejection:
    """The claim as an int64; the gate judges it.

    Args:
        key: Name of the metric that makes it.
    """
    if isinstance(claimed, float) and claimed.is_integer():
        claimed = int(claimed)
    if isinstance(claimed, bool) or not isinstance(claimed, int):
        return Rejection(
            RejectionReason.MALFORMED,
            f"metric {key} is {str(claimed)[:40]!r}; it must be a whole number",
        )
    if claimed not in _INT64:
        above = claimed > 0
        reason = "TOO_MANY_EXAMPLES" if above else "NON_POSITIVE_EXAMPLES"
        return Rejection(RejectionReason[reason], f"update claims {claimed} examples")
    return claimed


def _number(value: object) -> float:
    if isinstance(value, int | float) and abs(value) < 1e300:
        return float(value)
    return math.nan
