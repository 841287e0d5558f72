"""What a fleet tells the coordinator."""

from dataclasses import dataclass

from server.coordination.tasks import Outcome, UpdateReference


@dataclass(frozen=True, slots=True)
class TaskCompleted:
    """An update passed the gate and was folded into its bucket: folded is counted."""

    at_s: float
    reference: UpdateReference


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task ended without an update that counts.

    Attributes:
        reason: Short code, e.g. ``"battery"``, ``"norm_exceeded"``, ``"gateway_lost"``.
        reason_code: Number of the rejection reason, 0 for other outcomes.
    """

    at_s: float
    task_id: str
    client_id: str
    base_version: int
    outcome: Outcome
    reason: str
    reason_code: int = 0
    payload_sha256: bytes = b""
    train_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A client took a task under a grant."""

    at_s: float
    task_id: str
    grant_id: str
    client_id: str
    base_version: int


@dataclass(frozen=True, slots=True)
class UpdatesRefused:
    """Uploads that belong to no open task were refused (forged token, second digest, ...)."""

    at_s: float
    reason_code: int
    count: int


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """Attempts of devices ended.

    Attributes:
        shape: How far they came and how they ended, see `device_runtime.session_shape`.
    """

    at_s: float
    shape: str
    count: int


@dataclass(frozen=True, slots=True)
class TasksLost:
    """A gateway died: its running tasks and uncommitted updates must be asked for again."""

    at_s: float
    task_ids: tuple[str, ...]


Event = TaskCompleted | TaskEnded | TaskStarted | UpdatesRefused | SessionsEnded | TasksLost
