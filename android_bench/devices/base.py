"""What every device back end does, and how it says that it cannot."""

from typing import Protocol

from android_bench.package import BenchPackage
from android_bench.protocol import BenchSpec, DeviceInfo
from device_runtime.errors import FlintError


class DeviceUnavailable(FlintError):
    """A device cannot be reached or cannot run benchmarks at all; others go on without it."""

    code = "FLN-2505"


class Device(Protocol):
    """One device. A back end is a class like this, and a line in `android_bench.devices.select`."""

    def describe(self) -> DeviceInfo:
        """Which device it is.

        Raises:
            DeviceUnavailable: If it does not answer.
        """

    def run(self, spec: BenchSpec, package: BenchPackage) -> bytes:
        """Run a benchmark with all its repeats; returns the bytes of its result file, unchecked.

        A repeat that hangs, dies or answers rubbish is named in ``failed``; a device on which none
        gives a result answers `android_bench.protocol.failed_result`. Only what makes the device
        as a whole unusable is raised.

        Raises:
            DeviceUnavailable: If it cannot be asked at all.
        """

    def close(self) -> None:
        """Give back what was opened. May be called more than once, and while `run` is under way."""
