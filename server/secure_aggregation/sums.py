"""What an enclave adds up: opened updates, or in masked mode the pads of updates it never sees."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.masking import SEED_BYTES, pad
from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.update_codec import MalformedPayload, decode_update
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.update_gate.content import ContentGate
from server.update_gate.rejections import Rejection, RejectionReason

MOST_HOST_APPS = 64
"""Of one job: each has sums of its own where ``max_share_per_host_app`` is set."""

Noise = Callable[[int], NDArray[np.float32]]
"""Gives noise of a size, to be added to an aggregate before it is let out."""


@dataclass(frozen=True, slots=True)
class Held:
    """One update in the sums."""

    reference: UpdateReference
    host_app: str


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What may be let out.

    Attributes:
        total: ``sum of s * c_i * delta_i`` as float32 or, in masked mode, ``sum of factor * pad``
            as uint32; shape ``(parameters,)``.
        weight: Sum of ``c_i``, host apps' factors applied.
        bucket_factors: Masked mode: what each base version's sum is multiplied with.
    """

    total: NDArray[np.float32] | NDArray[np.uint32]
    weight: float
    bucket_factors: Mapping[int, int]


class Sums(Protocol):
    """Sums of one job. Not safe for several threads."""

    def fold(
        self, envelope: Envelope, content: device_pb.SealedContent
    ) -> UpdateReference | Rejection:
        """Gate and add one update that is not held yet."""
        ...

    def factors(self, staleness_of: "StalenessFactor") -> Mapping[int, float]:
        """What each base version's updates will be multiplied with, up to one common factor."""
        ...

    def take(self, app_factors: Mapping[str, float], staleness_of: "StalenessFactor") -> Aggregate:
        """Everything held, as one aggregate; the sums are empty after it."""
        ...

    def drop(self, base_version: int) -> None:
        """Forget what is held of a base version."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


StalenessFactor = Callable[[int], float]
"""Factor on updates of a base version."""


class UpdateSums:
    """Running sums of opened updates, one for each base version; memory does not grow with updates.

    With ``max_share_per_host_app`` there is one set of sums a host app, for apps are scaled as a
    whole.
    """

    def __init__(
        self,
        job_id: str,
        job: Job,
        model: ModelSpec,
        noise: Noise | None,
        clip_norm: float | None,
    ) -> None:
        self._opened = job_id, job, model
        self._clip_norm = clip_norm
        self._is_split = job.privacy.robustness.max_share_per_host_app is not None
        self._noise = noise
        self._by_app: dict[str, MeanAggregator] = {}

    def fold(
        self, envelope: Envelope, content: device_pb.SealedContent
    ) -> UpdateReference | Rejection:
        """See `Sums.fold`; the content gate is the one of plain updates."""
        app = content.app_id if self._is_split else ""
        sums = self._by_app.get(app)
        if sums is None:
            if len(self._by_app) >= MOST_HOST_APPS:
                return Rejection(
                    RejectionReason.UNKNOWN_HOST_APP,
                    f"updates of {MOST_HOST_APPS} host apps are held already",
                )
            sums = MeanAggregator(self._clip_norm)
            sums.open(*self._opened)
        folded = sums.fold(envelope, content.update)
        if not isinstance(folded, Rejection):
            self._by_app[app] = sums
        return folded

    def factors(self, staleness_of: StalenessFactor) -> Mapping[int, float]:
        """See `Sums.factors`."""
        held = {r.base_version for sums in self._by_app.values() for r in sums.held()}
        return {base_version: staleness_of(base_version) for base_version in held}

    def take(self, app_factors: Mapping[str, float], staleness_of: StalenessFactor) -> Aggregate:
        """See `Sums.take`."""
        model = self._opened[2]
        total = np.zeros(model.parameter_count, np.float64)
        weight = 0.0
        by_app, self._by_app = self._by_app, {}  # whatever goes wrong, nothing is taken twice
        for app, sums in by_app.items():
            app_factor = app_factors[app] if self._is_split else 1.0
            for partial in sums.reduce(Release("all")):
                total += (app_factor * staleness_of(partial.base_version)) * partial.total
                weight += app_factor * partial.weight
        released = total.astype(np.float32)
        if self._noise is not None:
            released += self._noise(released.size)
        return Aggregate(released, weight, {})

    def drop(self, base_version: int) -> None:
        """See `Sums.drop`."""
        for app, sums in list(self._by_app.items()):
            sums.drop(base_version)
            if not sums.held():
                del self._by_app[app]

    def clear(self) -> None:
        """See `Sums.clear`."""
        self._by_app = {}


class PadSums:
    """Seeds of pads, expanded and summed when an aggregate is let out: 16 bytes an update."""

    def __init__(self, job: Job, model: ModelSpec, policy: ReleasePolicy) -> None:
        self._policy = policy
        self._weight = job.strategy.weight
        self._gate = ContentGate.of(job, model)
        self._size = model.parameter_count
        self._seeds: dict[int, dict[bytes, None]] = {}

    def fold(
        self, envelope: Envelope, content: device_pb.SealedContent
    ) -> UpdateReference | Rejection:
        """See `Sums.fold`; of the update itself only what it says of its examples is here."""
        try:
            update = decode_update(content.update)
        except MalformedPayload as error:
            return Rejection(RejectionReason.MALFORMED_CONTENT, str(error))
        if update.tensors or len(content.pad_seed) != SEED_BYTES:
            return Rejection(
                RejectionReason.MALFORMED_CONTENT,
                f"a masked update brings a seed of {SEED_BYTES} bytes and no tensors; this one has "
                f"{len(content.pad_seed)} bytes and {len(update.tensors)} tensors",
            )
        wrong = self._gate.check_examples(update.num_examples)
        if wrong is not None:
            return wrong
        if any(content.pad_seed in seeds for seeds in self._seeds.values()):
            return Rejection(RejectionReason.PAD_USED_TWICE, "its pad is another update's too")
        if sum(map(len, self._seeds.values())) >= self._policy.max_updates:
            return Rejection(
                RejectionReason.AGGREGATE_FULL,
                f"the aggregate holds {self._policy.max_updates} updates, all that fit 32 bits",
            )
        self._seeds.setdefault(envelope.base_version, {})[content.pad_seed] = None
        return UpdateReference(
            envelope.task_id,
            envelope.client_id,
            envelope.base_version,
            update.num_examples,
            self._weight(update.num_examples),
            train_s=envelope.train_s,
            bytes_down=envelope.bytes_down,
            bytes_up=envelope.bytes_up,
            payload_sha256=envelope.payload_sha256,
        )

    def factors(self, staleness_of: StalenessFactor) -> Mapping[int, int]:
        """See `Sums.factors`: whole multiples of ``1 / staleness_steps``, at least one."""
        steps = self._policy.staleness_steps
        return {
            base_version: max(1, min(steps, math.floor(staleness_of(base_version) * steps + 0.5)))
            for base_version in self._seeds
        }

    def take(
        self,
        app_factors: Mapping[str, float],  # noqa: ARG002 - refused in masked mode
        staleness_of: StalenessFactor,
    ) -> Aggregate:
        """See `Sums.take`."""
        factors = self.factors(staleness_of)
        total = np.zeros(self._size, np.uint32)
        for base_version, seeds in self._seeds.items():
            of_version = np.zeros(self._size, np.uint32)
            for seed in seeds:
                of_version += pad(seed, self._size)
            total += of_version * np.uint32(factors[base_version])
        weight = float(sum(map(len, self._seeds.values())))
        self._seeds = {}
        return Aggregate(total, weight, factors)

    def drop(self, base_version: int) -> None:
        """See `Sums.drop`."""
        self._seeds.pop(base_version, None)

    def clear(self) -> None:
        """See `Sums.clear`."""
        self._seeds = {}
