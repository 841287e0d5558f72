"""A clock for ages: how long something has been kept, whatever anybody sets the system's clock to.

Within one boot it runs by the time since the boot, which nobody sets and which counts sleep. From
one boot to the next only the system's clock tells how long the device was off; what it says is
believed when it goes forward. So a clock set forward while the device is off makes things old too
early, and one set back leaves the time it was off uncounted. The latter is noticed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class TimeReading:
    """What a device's clocks say at one moment.

    Attributes:
        boot_id: Tells boots apart; empty where the system does not say.
        since_boot_ms: Time since that boot, asleep or awake.
        wall_ms: The system's clock, since the epoch; users and networks set it.
    """

    boot_id: str
    since_boot_ms: int
    wall_ms: int


ReadTime = Callable[[], TimeReading]


@dataclass(frozen=True, slots=True)
class Anchor:
    """An age, and what the clocks said when it was that."""

    age_ms: int
    reading: TimeReading

    def age_at(self, now: TimeReading, *, same_boot: bool | None = None) -> int:
        """Age at a later reading, in milliseconds; never less than at the anchor.

        Args:
            now: The later reading.
            same_boot: Whether both are of one boot; None tells by their boot ids. A process lives
                within one.
        """
        if self._of_one_boot(now) if same_boot is None else same_boot:
            passed_ms = now.since_boot_ms - self.reading.since_boot_ms
        else:
            passed_ms = now.wall_ms - self.reading.wall_ms
        return self.age_ms + max(0, passed_ms)

    def is_uncertain_at(self, now: TimeReading) -> bool:
        """Whether time has passed that cannot be known: the clock was set back over a boot."""
        return not self._of_one_boot(now) and now.wall_ms < self.reading.wall_ms

    def _of_one_boot(self, now: TimeReading) -> bool:
        return bool(now.boot_id) and now.boot_id == self.reading.boot_id


def read_time() -> TimeReading:
    """What this system's clocks say now."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError:
        boot_id = ""  # some Android builds hide it; then the system's clock must do
    return TimeReading(
        boot_id, int(time.clock_gettime(_BOOT_CLOCK) * 1000), int(time.time() * 1000)
    )
