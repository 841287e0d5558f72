"""Tasks and what becomes of them."""

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a task ended; every task started ends in exactly one (FLINT, Fig. 8)."""

    SUCCEEDED = "succeeded"
    INTERRUPTED = "interrupted"
    STALE = "stale"
    OVER_COMMITTED = "over_committed"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class UpdateReference:
    """A folded update as strategies see it: who and how much, never the arrays.

    Attributes:
        client_id: Device or node that trained it.
        base_version: Model version it started from.
        num_examples: Records it trained on, as claimed and gated.
        weight: ``c_i`` with which it was folded.
    """

    task_id: str
    client_id: str
    base_version: int
    num_examples: int
    weight: float
    update_norm: float = 0.0
    loss_before: float = float("nan")
    loss_after: float = float("nan")
    train_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0
    payload_sha256: bytes = b""


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission for a fleet to start ``count`` tasks. Devices pull, so it names no client.

    Attributes:
        base_version: Version the tasks train on; None means the newest when a task starts.
        task_timeout_s: A task without an answer ends as interrupted this long after its start.
    """

    grant_id: str
    count: int
    base_version: int | None
    task_timeout_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """Whole buckets to be frozen and summed; the same id always gives the same partials.

    Attributes:
        base_versions: Whose buckets; empty for all.
        version: The newest model version, where whoever sums weighs by staleness itself.
    """

    release_id: str
    base_versions: tuple[int, ...] = field(default=())
    version: int = 0


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's end, as it is stored.

    Attributes:
        version: Version (counted in aggregations) the update became part of; None if of none.
    """

    task_id: str
    client_id: str
    base_version: int
    outcome: Outcome
    reason: str
    reason_code: int = 0
    payload_sha256: bytes = b""
    version: int | None = None
