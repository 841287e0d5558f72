"""Streaming weighted sums, one bucket per base version: memory is O(live versions x model)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_runtime.encoded_tensors import (
    EncodedTensor,
    Float32Values,
    SparseTensor,
    chunks,
    values_of,
)
from server.aggregation.aggregator import Envelope, PartialSum
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.update_gate.content import ContentGate, GatedUpdate, WireModel
from server.update_gate.rejections import Rejection, RejectionReason

_CHUNK = 65_536  # chunk, scaled copy and accumulator: 3 x 256 KiB, inside an L2 cache


@dataclass(frozen=True, slots=True)
class _OpenJob:
    job_id: str
    job: Job
    gate: ContentGate
    parameter_count: int


@dataclass(slots=True)
class _Bucket:
    """Running sum of one base version.

    Attributes:
        total: Sum of ``c_i * delta_i``, shape ``(parameters,)``.
        references: What is in the sum, each with its order of arrival.
    """

    base_version: int
    total: NDArray[np.float32]
    weight: float = 0.0
    references: dict[str, tuple[int, UpdateReference]] = field(default_factory=dict)

    def partial(self) -> PartialSum:
        """The sum as it is now; the array is shared but cannot be written through it."""
        total = self.total.view()
        total.flags.writeable = False
        return PartialSum(self.base_version, total, self.weight, tuple(self.references))


class MeanAggregator:
    """The `Aggregator` of this process: content gate, weights and sums in memory.

    Updates are gated outside the lock, in the caller's thread, and folded last: nothing that fails
    has touched a sum.
    """

    def __init__(self, clip_norm: float | None = None) -> None:
        """Begin with no job.

        Args:
            clip_norm: Longer updates are scaled down to this L2 norm before they are added.
        """
        self._clip_norm = clip_norm
        self._lock = threading.Lock()
        self._opened: _OpenJob | None = None
        self._buckets: dict[int, _Bucket] = {}
        self._frozen: dict[str, tuple[_Bucket, ...]] = {}
        self._known: dict[str, UpdateReference] = {}
        self._arrivals = 0
        self._scratch = np.empty(_CHUNK, np.float32)

    def open(self, job_id: str, job: Job, model: WireModel) -> None:
        """Start a job, forgetting any other; what is held of this very job stays."""
        with self._lock:
            if self._opened is not None and self._opened.job_id == job_id:
                return
            gate = ContentGate.of(job, model)
            self._opened = _OpenJob(job_id, job, gate, model.parameter_count)
            self._buckets.clear()
            self._frozen.clear()
            self._known.clear()

    def forget(self) -> None:
        """Forget job and sums."""
        with self._lock:
            self._opened = None
            self._buckets.clear()
            self._frozen.clear()
            self._known.clear()

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """Gate the content and add ``c_i * delta_i`` to its bucket. Folded is counted.

        A task id that is held, frozen or not, gives its reference again and adds nothing.
        """
        with self._lock:
            opened = self._opened
            known = self._known.get(envelope.task_id)
        if opened is None:
            return Rejection(RejectionReason.UNKNOWN_TASK, "no job is open")
        if known is not None:
            return known
        gated = opened.gate.check(payload)
        if isinstance(gated, Rejection):
            return gated
        reference = _reference(envelope, gated, opened.job.strategy.weight(gated.num_examples))
        with self._lock:
            if self._opened is not opened:
                return Rejection(RejectionReason.UNKNOWN_TASK, "the job ended meanwhile")
            known = self._known.get(envelope.task_id)
            if known is not None:
                return known
            bucket = self._bucket(envelope.base_version, opened.parameter_count)
            factor = reference.weight
            if self._clip_norm is not None and gated.norm > self._clip_norm:
                factor *= self._clip_norm / gated.norm
            add_encoded(bucket.total, gated.tensors, factor, self._scratch)
            bucket.weight += reference.weight
            self._remember(bucket, reference)
        return reference

    def reduce(self, release: Release) -> Sequence[PartialSum]:
        """Freeze buckets and return their sums. The same release id returns the same sums."""
        with self._lock:
            frozen = self._frozen.get(release.release_id)
            if frozen is None:
                wanted = release.base_versions or tuple(self._buckets)
                frozen = tuple(
                    self._buckets.pop(version)
                    for version in sorted(set(wanted))
                    if version in self._buckets
                )
                self._frozen[release.release_id] = frozen
            return tuple(bucket.partial() for bucket in frozen)

    def commit(self, release_id: str) -> None:
        """Forget a frozen release. Unknown ids are ignored."""
        with self._lock:
            for bucket in self._frozen.pop(release_id, ()):
                self._forget(bucket)

    def thaw(self, release_id: str) -> None:
        """Return a frozen release to its buckets: the coordinator that asked for it is gone."""
        with self._lock:
            for frozen in self._frozen.pop(release_id, ()):
                live = self._buckets.get(frozen.base_version)
                if live is None:
                    # A copy: the array was handed out with the release and must not change.
                    self._buckets[frozen.base_version] = _Bucket(
                        frozen.base_version,
                        frozen.total.copy(),
                        frozen.weight,
                        dict(frozen.references),
                    )
                else:
                    live.total += frozen.total
                    live.weight += frozen.weight
                    live.references.update(frozen.references)

    def drop(self, base_version: int) -> tuple[str, ...]:
        """Forget a bucket that is not frozen; returns the task ids that were in it."""
        with self._lock:
            bucket = self._buckets.pop(base_version, None)
            if bucket is None:
                return ()
            self._forget(bucket)
            return tuple(bucket.references)

    def held(self) -> tuple[UpdateReference, ...]:
        """References of everything folded and not frozen, in order of arrival."""
        with self._lock:
            numbered = [r for bucket in self._buckets.values() for r in bucket.references.values()]
        return tuple(reference for _, reference in sorted(numbered, key=lambda pair: pair[0]))

    def frozen(self) -> tuple[str, ...]:
        """Ids of releases frozen and not committed."""
        with self._lock:
            return tuple(self._frozen)

    def _bucket(self, base_version: int, parameter_count: int) -> _Bucket:
        bucket = self._buckets.get(base_version)
        if bucket is None:
            bucket = _Bucket(base_version, np.zeros(parameter_count, np.float32))
            self._buckets[base_version] = bucket
        return bucket

    def _remember(self, bucket: _Bucket, reference: UpdateReference) -> None:
        self._arrivals += 1
        bucket.references[reference.task_id] = (self._arrivals, reference)
        self._known[reference.task_id] = reference

    def _forget(self, bucket: _Bucket) -> None:
        for task_id in bucket.references:
            del self._known[task_id]


def add_scaled(
    total: NDArray[np.float32],
    tensors: Sequence[NDArray[np.float32]],
    weight: float,
    scratch: NDArray[np.float32],
) -> None:
    """``total += weight * concatenate(tensors)``, chunk by chunk so that temporaries stay in cache.

    Args:
        total: Shape ``(parameters,)``, changed in place.
        tensors: Arrays of shape ``(size,)`` whose sizes sum to ``parameters``.
        weight: Factor on all of them.
        scratch: Shape ``(chunk,)``; its size sets the chunk.
    """
    add_encoded(total, [Float32Values(tensor) for tensor in tensors], weight, scratch)


def add_encoded(
    total: NDArray[np.float32],
    tensors: Sequence[EncodedTensor],
    weight: float,
    scratch: NDArray[np.float32],
) -> None:
    """`add_scaled` for tensors as they were sent; of a sparse one only what it carries is touched.

    Args:
        scratch: Shape ``(chunk,)``, a multiple of `INT8_BLOCK`.
    """
    offset = 0
    for tensor in tensors:
        target = total[offset : offset + tensor.size]
        for start, values in chunks(values_of(tensor), scratch):
            part = slice(start, start + values.size)
            scaled = values
            if weight != 1.0:
                scaled = scratch[: values.size]  # maybe where the values are
                np.multiply(values, np.float32(weight), out=scaled)
            if isinstance(tensor, SparseTensor):
                target[tensor.positions[part]] += scaled
            else:
                np.add(target[part], scaled, out=target[part])
        offset += tensor.size


def _reference(envelope: Envelope, gated: GatedUpdate, weight: float) -> UpdateReference:
    return UpdateReference(
        envelope.task_id,
        envelope.client_id,
        envelope.base_version,
        gated.num_examples,
        weight,
        gated.norm,
        gated.loss_before,
        gated.loss_after,
        envelope.train_s,
        envelope.bytes_down,
        envelope.bytes_up,
        envelope.payload_sha256,
    )
