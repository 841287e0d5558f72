"""What every device back end does, and how it says that it cannot."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
        gives a result answers `assembled_results.failed_result`. Only what makes the device as a
        whole unusable is raised.

        Raises:
            DeviceUnavailable: If it cannot be asked at all.
        """

    def close(self) -> None:
        """Give back what was opened. May be called more than once, and while `run` is under way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device answered.

    Attributes:
        name: Of the device within a run of the harness; unique there, and the same when a run is
            resumed.
        data: Bytes of its result file, unchecked.
    """

    name: str
    data: bytes


class DeviceGroup(Protocol):
    """What one part of ``--devices`` selects: a device, or a farm that answers for many."""

    @property
    def name(self) -> str:
        """E.g. ``"host"``, ``"adb:SERIAL"``; unique among the groups of a run."""

    def run(self, spec: BenchSpec, package: BenchPackage, state: Path) -> Iterator[Answer]:
        """Run a benchmark on all devices of the group; answers come as devices finish.

        Args:
            state: A folder of the group's own, kept when a run is resumed: what must not be done
                twice (a scheduled run's ARN) is written there.

        Raises:
            DeviceUnavailable: If none of its devices can be asked any more; answers given before
                are kept.
        """

    def close(self) -> None:
        """See `Device.close`."""


@dataclass(frozen=True, slots=True)
class SingleDevice:
    """A group of one device."""

    name: str
    device: Device

    def run(self, spec: BenchSpec, package: BenchPackage, state: Path) -> Iterator[Answer]:  # noqa: ARG002
        """See `DeviceGroup.run`."""
        yield Answer(self.name, self.device.run(spec, package))

    def close(self) -> None:
        """See `Device.close`."""
        self.device.close()
