"""The `Aggregator`: the one place where plaintext updates exist; only sums leave it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.update_gate.rejections import Rejection


@dataclass(frozen=True, slots=True)
class PartialSum:
    """Sum of every update of one base version that was folded before a freeze.

    Attributes:
        total: ``sum of c_i * delta_i``, float32, all parameters concatenated in wire order.
        weight: ``sum of c_i``.
        task_ids: Whose updates are in the sum.
    """

    base_version: int
    total: NDArray[np.float32]
    weight: float
    task_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of an update without reading it."""

    task_id: str
    client_id: str
    base_version: int
    payload_sha256: bytes
    train_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0


class Aggregator(Protocol):
    """Gates, weighs and sums updates by reference.

    One bucket per base version: an update is folded into its bucket's running sum when it arrives,
    so memory is O(live versions x model). Strategies never see arrays; the aggregator may live in
    this process, in another, or in an enclave. All methods are safe to call from several threads.
    """

    def open(self, job_id: str, job: Job, model: ModelSpec) -> None:
        """Start a job, forgetting any other."""
        ...

    def forget(self) -> None:
        """Forget job and sums: who asked for them is gone."""
        ...

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """Gate the content and add ``c_i * delta_i`` to its bucket. Folded is counted.

        Folding a task id that is already held returns its reference again and adds nothing.
        """
        ...

    def reduce(self, release: Release) -> Sequence[PartialSum]:
        """Freeze buckets and return their sums. The same release id returns the same sums."""
        ...

    def commit(self, release_id: str) -> None:
        """Forget a frozen release. Unknown ids are ignored."""
        ...

    def thaw(self, release_id: str) -> None:
        """Return a frozen release to its buckets: the coordinator that asked for it is gone."""
        ...

    def drop(self, base_version: int) -> tuple[str, ...]:
        """Forget a bucket; returns the task ids that were in it."""
        ...

    def held(self) -> tuple[UpdateReference, ...]:
        """References of everything folded and not frozen, in order of arrival."""
        ...

    def frozen(self) -> tuple[str, ...]:
        """Ids of releases frozen and not committed."""
        ...
