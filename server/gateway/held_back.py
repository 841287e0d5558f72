"""Numbered reasons for which a gateway gives a device nothing now, and when it may come again."""

from dataclasses import dataclass
from enum import IntEnum


class HeldBackReason(IntEnum):
    """Each has a page in docs/errors (``FLN-<number>``); none says that anything was wrong."""

    CHECK_INS_TOO_FREQUENT = 1280
    UPLOADS_TOO_FREQUENT = 1281
    FETCHES_TOO_FREQUENT = 1282
    ENROLMENTS_OF_ONE_ADDRESS = 1283
    DAILY_PARTICIPATION = 1284
    SETBACKS_IN_A_ROW = 1285
    UPLOADS_BUSY = 1286
    FETCHES_BUSY = 1287
    RUNTIME_TOO_OLD = 1289
    DEVICE_UNMEASURED = 1291
    DEVICE_TRAINS_TOO_LONG = 1292
    DEVICE_NEEDS_TOO_MUCH_MEMORY = 1293
    OS_RELEASE_TOO_OLD = 1294
    FEATURE_CALLS_TOO_FREQUENT = 2948
    FEATURE_KEYS_OF_A_DAY = 2945
    FEATURES_BUSY = 2949

    @property
    def code(self) -> str:
        """As in docs/errors."""
        return f"FLN-{int(self)}"


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A device has to wait.

    Attributes:
        wait_s: Seconds until coming again makes sense, not jittered.
    """

    reason: HeldBackReason
    wait_s: float
