"""Clocks of a device that a test sets: time passes, the wall clock is moved, the device boots."""

from dataclasses import dataclass

from device_runtime.age_clock import TimeReading


@dataclass
class SetTime:
    boot_id: str = "boot-1"
    since_boot_ms: int = 5_000
    wall_ms: int = 1_800_000_000_000

    def __call__(self) -> TimeReading:
        return TimeReading(self.boot_id, self.since_boot_ms, self.wall_ms)

    def pass_s(self, seconds: float) -> None:
        self.since_boot_ms += int(seconds * 1000)
        self.wall_ms += int(seconds * 1000)

    def set_wall_s(self, by_s: float) -> None:
        self.wall_ms += int(by_s * 1000)

    def boot(self, off_s: float = 0.0) -> None:
        self.boot_id += "'" if self.boot_id else ""
        self.since_boot_ms = 1_000
        self.wall_ms += int(off_s * 1000)
