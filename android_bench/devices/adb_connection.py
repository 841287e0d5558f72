"""One Android device over `adb`: every call bounded, every failure one sentence."""

import logging
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from android_bench.devices.base import DeviceUnavailable
from android_bench.devices.bounded_process import BoundedRunner, Finished
from device_runtime.errors import FlintError

log = logging.getLogger(__name__)

_SHORT_S = 30.0
_TRANSFER_S = 600.0
_MAX_OUTPUT_BYTES = 4 * 2**20
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,119}")
_GONE = re.compile(
    r"device (offline|unauthorized|'[^']*' not found|not found)|no devices|closed"
    r"|failed to get feature set|connection reset",
    re.IGNORECASE,
)


class AdbMissing(FlintError):
    """There is no adb on this machine, or it cannot be run."""

    code = "FLN-2552"


class NoSuchAdbDevice(DeviceUnavailable):
    """The device asked for is not connected, or it is not clear which one is meant."""

    code = "FLN-2553"


class AdbDeviceNotReady(DeviceUnavailable):
    """A connected device does not take commands: offline, unauthorised, in recovery."""

    code = "FLN-2554"


class AdbDeviceLost(DeviceUnavailable):
    """A device went away, or stopped answering, in the middle of its work."""

    code = "FLN-2555"


class AppNotInstalled(DeviceUnavailable):
    """A device does not take the benchmark's app."""

    code = "FLN-2556"


class AdbCallFailed(DeviceUnavailable):
    """A device that answers cannot do what it was told, e.g. as its storage is full."""

    code = "FLN-2557"


@dataclass(frozen=True, slots=True)
class ConnectedDevice:
    """A line of ``adb devices``.

    Attributes:
        state: ``"device"`` where it takes commands, else e.g. ``"offline"``, ``"unauthorized"``.
    """

    serial: str
    state: str


class AdbConnection:
    """Calls to one device. Not for several threads, but for `stop`."""

    def __init__(self, serial: str, program: str = "adb") -> None:
        self.serial = serial
        self._program = program
        self._runner = BoundedRunner()

    def shell(self, *words: str, timeout_s: float = _SHORT_S) -> str:
        """Run a command on the device; returns what it printed.

        Args:
            words: Quoted for the device's shell here.

        Raises:
            AdbCallFailed: If it ends with an error.
            AdbDeviceLost: If the device is gone or does not answer in time.
        """
        finished = self._call("shell", shlex.join(words), timeout_s=timeout_s)
        if finished.code != 0:
            raise AdbCallFailed(
                f"adb device {self.serial} cannot do `{_cut(shlex.join(words))}` "
                f"({_why(finished)}); see whether it has room and is unlocked, and run again"
            )
        return finished.output.decode("utf-8", "replace")

    def instrument(self, words: Sequence[str], timeout_s: float) -> Finished:
        """Run ``am instrument``; the app's own failures are for the caller to read.

        Raises:
            AdbDeviceLost: If the device is gone; not for a time-out.
        """
        return self._call(
            "shell", shlex.join(["am", "instrument", *words]), timeout_s=timeout_s, may_hang=True
        )

    def read(self, words: Sequence[str], max_bytes: int) -> bytes:
        """What a command on the device prints, byte for byte.

        One that prints more than ``max_bytes`` is ended; then there is one byte more than that.

        Raises:
            AdbDeviceLost: If the device is gone or does not answer in time.
        """
        finished = self._call(
            "exec-out", shlex.join(words), timeout_s=_TRANSFER_S, max_bytes=max_bytes
        )
        return finished.output

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the device.

        Raises:
            AdbCallFailed: If the device does not take it.
            AdbDeviceLost: If it is gone.
        """
        finished = self._call("push", str(source), target, timeout_s=_TRANSFER_S)
        if finished.code != 0:
            raise AdbCallFailed(
                f"adb device {self.serial} does not take {source.name} ({_why(finished)}); see "
                "whether it has room, and run again"
            )

    def install(self, apk: Path) -> None:
        """Install an app, or a newer build of it.

        Raises:
            AppNotInstalled: If the device does not take it.
            AdbDeviceLost: If it is gone.
        """
        finished = self._call("install", "-r", "-t", "-g", str(apk), timeout_s=_TRANSFER_S)
        # Older adb prints Failure and ends with 0.
        if finished.code != 0 or b"Success" not in finished.output + finished.errors:
            raise AppNotInstalled(
                f"adb device {self.serial} does not install {apk.name} ({_why(finished)}); see "
                "whether the APK fits its Android version and instruction set, and whether an app "
                "signed with another key is in its place"
            )

    def stop(self) -> None:
        """End the call at work, from any thread; later calls fail."""
        self._runner.stop()

    def _call(
        self,
        *words: str,
        timeout_s: float,
        max_bytes: int = _MAX_OUTPUT_BYTES,
        may_hang: bool = False,
    ) -> Finished:
        command = [self._program, "-s", self.serial, *words]
        finished = _run(self._runner, command, timeout_s, max_bytes)
        if self._runner.is_stopped:
            raise AdbDeviceLost(f"the work on adb device {self.serial} was stopped; run it again")
        if finished.timed_out and not may_hang:
            raise AdbDeviceLost(
                f"adb device {self.serial} does not answer `{_cut(' '.join(words))}` within "
                f"{timeout_s:g} s; unlock it, look at its cable, and run again"
            )
        said = finished.errors.decode("utf-8", "replace")
        if finished.code not in (0, None) and _GONE.search(said):
            raise AdbDeviceLost(
                f"adb device {self.serial} went away during `{_cut(' '.join(words))}` "
                f"({_why(finished)}); look at its cable and run again: no result of it was taken"
            )
        return finished


def connected_devices(program: str = "adb") -> list[ConnectedDevice]:
    """Devices that adb knows of, in whatever state.

    Raises:
        AdbMissing: If adb is not there or cannot list them.
    """
    runner = BoundedRunner()
    # By itself, for the server it may start inherits what it is started with.
    started = _run(runner, [program, "start-server"], _SHORT_S, _MAX_OUTPUT_BYTES)
    finished = _run(runner, [program, "devices"], _SHORT_S, _MAX_OUTPUT_BYTES)
    if finished.code != 0:
        why = _why(finished) or _why(started)
        raise AdbMissing(f"`adb devices` does not work ({why}); run `adb kill-server`, try again")
    lines = finished.output.decode("utf-8", "replace").splitlines()
    rows = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("* ")]
    return [
        ConnectedDevice(row[0], row[1].strip())
        for row in rows
        if len(row) == 2 and row[0] != "List"
    ]


def find_device(serial: str | None, program: str = "adb") -> str:
    """The serial of the device that is meant, if it takes commands.

    Args:
        serial: None for the only one connected.

    Raises:
        AdbMissing: If adb is not there or cannot list devices.
        NoSuchAdbDevice: If it is not connected; or, without a serial, if not exactly one is.
        AdbDeviceNotReady: If it takes no commands.
    """
    found = connected_devices(program)
    known = ", ".join(device.serial for device in found)
    if serial is None:
        if not found:
            raise NoSuchAdbDevice(
                "no device is connected to adb; plug one in, switch on USB debugging, and see "
                "`adb devices`"
            )
        if len(found) > 1:
            raise NoSuchAdbDevice(
                f"{len(found)} devices are connected to adb ({known}); say which, e.g. --devices "
                f"adb:{found[0].serial}"
            )
        chosen = found[0]
    else:
        by_serial = {device.serial: device for device in found}
        if serial not in by_serial or not _SERIAL.fullmatch(serial):
            there = f"there are {known}" if found else "there is none"
            raise NoSuchAdbDevice(
                f"no device {serial[:120]!r} is connected to adb ({there}); see `adb devices`"
            )
        chosen = by_serial[serial]
    if chosen.state != "device":
        raise AdbDeviceNotReady(
            f"adb device {chosen.serial} is {chosen.state[:80]!r} and takes no commands; "
            + _MENDS.get(chosen.state.split()[0], "see `adb devices`")
        )
    return chosen.serial


_MENDS = {
    "unauthorized": "unlock it and allow USB debugging from this machine",
    "offline": "plug it in again, or run `adb reconnect`",
    "no": "give this user access to it (udev rules), then run `adb kill-server`",
}


def _run(runner: BoundedRunner, command: list[str], timeout_s: float, max_bytes: int) -> Finished:
    try:
        return runner.run(command, timeout_s=timeout_s, max_bytes=max_bytes)
    except FileNotFoundError as error:
        raise AdbMissing(
            "there is no `adb` on this machine's PATH; install Android's platform-tools (Debian: "
            "`apt install adb`)"
        ) from error
    except OSError as error:
        raise AdbMissing(
            f"`adb` cannot be started ({error.strerror}); see whether it is a program of this "
            "machine's kind"
        ) from error


def _why(finished: Finished) -> str:
    if finished.said:
        return finished.said
    return "time out" if finished.timed_out else f"exit status {finished.code}"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
