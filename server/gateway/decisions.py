"""What the gateway's state machine answers to devices' calls."""

from dataclasses import dataclass
from enum import Enum, auto

from device_runtime.protocol import device_pb2 as device_pb
from server.gateway.held_back import HeldBack
from server.gateway.leases import Lease
from server.gateway.opened_job import OpenedJob


class TryLater(Enum):
    """Why an upload cannot be answered now; nothing was counted."""

    UPLOAD_RUNNING = auto()
    NO_JOB_OPEN = auto()


@dataclass(frozen=True, slots=True)
class Admitted:
    """An upload that may go on to the gate.

    It ends in `GatewayState.record_folded`, `record_rejected` or `break_off`.
    """

    lease: Lease
    job: OpenedJob


@dataclass(frozen=True, slots=True)
class Held:
    """An upload that repeats what is folded and not committed."""


@dataclass(frozen=True, slots=True)
class CheckInAnswer:
    """The answer to a check-in, beside its settlements.

    Attributes:
        held_back: Why it is given no task whatever there is to do.
    """

    come_back_after_s: float
    task: device_pb.Task | None = None
    policy: device_pb.ParticipationPolicy | None = None
    held_back: HeldBack | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is going on."""

    leased: int = 0
    held: int = 0
    version: int = 0
    check_ins: int = 0
    open_slots: int = 0
    recent_devices: int = 0
