"""Masked mode, on the host: padded updates are summed without being understood."""

import threading
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from device_runtime.masking import from_fixed_point
from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import ReleasePolicy
from server.aggregation.aggregator import PartialSum
from server.secure_aggregation import enclave_pb2 as pb
from server.update_gate.rejections import Rejection, RejectionReason

_MOST_SEALED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Parted:
    """A masked update: what stays on the host, and what goes into the enclave.

    Attributes:
        values: Padded fixed point, shape ``(parameters,)``.
        sealed: A serialised ``SealedUpdate`` without them.
    """

    values: NDArray[np.uint32]
    sealed: bytes


@dataclass(slots=True)
class _Bucket:
    total: NDArray[np.uint32]
    task_ids: set[str] = field(default_factory=set)


class SumsDisagree(RuntimeError):
    """The enclave's pads are of other updates than the host's sums: nothing can be told of them."""


class MaskedSums:
    """Sums of padded updates modulo 2**32, one for each base version. Safe for several threads."""

    def __init__(self, parameter_count: int, policy: ReleasePolicy) -> None:
        self._size = parameter_count
        self._policy = policy
        self._lock = threading.Lock()
        self._buckets: dict[int, _Bucket] = {}
        # Of the aggregate that the enclave has prepared, until it is committed or dropped.
        self._frozen: dict[int, _Bucket] = {}
        self._unmasked: PartialSum | None = None

    def part(self, payload: bytes) -> Parted | Rejection:
        """Take a payload apart."""
        message = device_pb.SealedUpdate()
        try:
            message.ParseFromString(payload)
        except DecodeError:
            return Rejection(RejectionReason.NOT_SEALED, "bytes are not a SealedUpdate message")
        if len(message.masked) != 4 * self._size:
            return Rejection(
                RejectionReason.WRONG_MASKED_SIZE,
                f"the masked update has {len(message.masked)} bytes; the model's has "
                f"{4 * self._size}",
            )
        if len(message.sealed) > _MOST_SEALED_BYTES:
            return Rejection(
                RejectionReason.TOO_LARGE,
                f"{len(message.sealed)} bytes are sealed beside a masked update; at most "
                f"{_MOST_SEALED_BYTES} are needed",
            )
        values = np.frombuffer(message.masked, "<u4")
        message.ClearField("masked")
        return Parted(values, message.SerializeToString())

    def add(self, task_id: str, base_version: int, values: NDArray[np.uint32]) -> None:
        """Add an update whose pad the enclave has, once."""
        with self._lock:
            bucket = self._buckets.get(base_version)
            if bucket is None:
                bucket = self._buckets[base_version] = _Bucket(np.zeros(self._size, np.uint32))
            if task_id not in bucket.task_ids:
                bucket.task_ids.add(task_id)
                bucket.total += values

    def drop(self, base_version: int) -> None:
        """Forget a bucket."""
        with self._lock:
            self._buckets.pop(base_version, None)
            if self._frozen and max(self._frozen) <= base_version:
                self._forget_frozen()

    def freeze(self) -> None:
        """The enclave has prepared an aggregate of all that is held here; again is the same."""
        with self._lock:
            if not self._frozen:
                self._frozen, self._buckets = self._buckets, {}

    def released(self, reply: pb.ReleaseReply) -> PartialSum:
        """The sum in the clear, from the enclave's sum of pads over the very same updates.

        Raises:
            SumsDisagree: If they are of other updates.
        """
        with self._lock:
            if self._unmasked is None:
                self._unmasked = self._without_pads(reply)
            return self._unmasked

    def _without_pads(self, reply: pb.ReleaseReply) -> PartialSum:
        task_ids = frozenset(reply.task_ids)
        frozen = frozenset(t for bucket in self._frozen.values() for t in bucket.task_ids)
        factors = {factor.base_version: factor.factor for factor in reply.factors}
        if frozen != task_ids or factors.keys() != self._frozen.keys():
            raise SumsDisagree(
                f"the enclave released pads of {len(task_ids)} updates, {len(frozen)} are summed "
                "here"
            )
        total = np.zeros(self._size, np.uint32)
        for base_version, bucket in self._frozen.items():
            total += bucket.total * np.uint32(factors[base_version])
        total -= np.frombuffer(reply.total, "<u4")
        return PartialSum(
            reply.version,
            from_fixed_point(total, self._policy).astype(np.float32),
            reply.weight,
            tuple(reply.task_ids),
        )

    def commit(self) -> None:
        """What was released is part of a stored version."""
        with self._lock:
            self._forget_frozen()

    def _forget_frozen(self) -> None:
        self._frozen, self._unmasked = {}, None
