"""The ``adb`` back end: an Android device on a cable (or ``adb connect``), and the benchmark's app.

Install, push, ``am instrument``, read the result back, clean up. What the app must answer is in
docs/run-on-devices.md. Tested against a scripted ``adb`` only: **not yet run on a real device**.
"""

import logging
import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from android_bench.assembled_results import failed_result
from android_bench.devices.adb_connection import (
    AdbCallFailed,
    AdbConnection,
    AdbDeviceLost,
    find_device,
)
from android_bench.devices.android_facts import android_device, read_properties
from android_bench.devices.base import DeviceUnavailable
from android_bench.devices.instrumentation import read_instrumentation
from android_bench.package import BenchPackage
from android_bench.protocol import (
    MAX_RESULT_BYTES,
    SPEC_FILE,
    BenchResult,
    BenchSpec,
    DeviceInfo,
    InvalidBenchResult,
    MismatchedBenchResult,
)

log = logging.getLogger(__name__)

APP_PACKAGE = "org.flint.bench"
INSTRUMENTATION = "org.flint.bench.test/org.flint.bench.BenchInstrumentation"
DEVICE_FOLDER = "/data/local/tmp"
"""Where the shell may write and apps may read."""


class MissingApk(DeviceUnavailable):
    """An APK to install is not there."""

    code = "FLN-2559"


@dataclass(frozen=True, slots=True)
class AndroidApp:
    """The benchmark's app, as built.

    Attributes:
        app_apk: Of the app; None if it is installed already, as then is its test.
        test_apk: Of the instrumentation.
        package: Name of the app.
        instrumentation: Component that ``am instrument`` starts.
    """

    app_apk: Path | None = None
    test_apk: Path | None = None
    package: str = APP_PACKAGE
    instrumentation: str = INSTRUMENTATION

    @property
    def apks(self) -> tuple[Path, ...]:
        """What to install, in this order.

        Raises:
            MissingApk: If one of them is not a file, or holds nothing.
        """
        given = tuple(apk for apk in (self.app_apk, self.test_apk) if apk is not None)
        for apk in given:
            if not apk.is_file():
                raise MissingApk(
                    f"{apk} is no file, so the benchmark's app cannot be installed; give the path "
                    "of the APK that was built"
                )
            if apk.stat().st_size == 0:
                raise MissingApk(f"{apk} is of 0 bytes; give the path of the APK that was built")
        return given


class AdbDevice:
    """One device behind adb; satisfies `android_bench.devices.base.Device`."""

    def __init__(
        self,
        serial: str | None = None,
        app: AndroidApp | None = None,
        *,
        timeout_s: float = 3600.0,
        program: str = "adb",
    ) -> None:
        """Find the device; nothing is changed on it before `run`.

        Args:
            serial: None for the only one connected.
            app: To install and start.
            timeout_s: For one benchmark with all its repeats.
            program: The adb to call.

        Raises:
            AdbMissing: If there is no adb.
            DeviceUnavailable: If the device is not there, or takes no commands.
            MissingApk: If an APK is not there.
        """
        self._app = app or AndroidApp()
        self._apks = self._app.apks
        self.serial = find_device(serial, program)
        self._adb = AdbConnection(self.serial, program)
        self._tidying = AdbConnection(self.serial, program)  # goes on when the work is stopped
        self._timeout_s = timeout_s
        self._installed = False
        self._info: DeviceInfo | None = None

    def describe(self) -> DeviceInfo:
        """Which device it is, by its system properties.

        Raises:
            DeviceUnavailable: If it does not answer, or not what it is.
        """
        if self._info is None:
            self._info = android_device(
                self.serial,
                "adb",
                read_properties(self._adb.shell("getprop")),
                self._adb.shell("cat", "/sys/devices/system/cpu/possible"),
                self._adb.shell("cat", "/proc/meminfo"),
            )
        return self._info

    def run(self, spec: BenchSpec, package: BenchPackage) -> bytes:
        """Run a benchmark in the app.

        What the app says of its device is replaced by `describe`; an app that crashes, hangs or
        answers rubbish gives a result that is not ok and says why.

        Raises:
            DeviceUnavailable: If the device is gone, full, or does not take the app.
        """
        info = self.describe()
        if not self._installed:
            for apk in self._apks:
                self._adb.install(apk)
            self._installed = True
        folder = f"{DEVICE_FOLDER}/flint-bench-{secrets.token_hex(6)}"
        try:
            self._push(folder, spec, package)
            data, complaint = self._start(folder)
        finally:
            self._clean_up("am", "force-stop", self._app.package)
            self._clean_up("rm", "-rf", folder)
        if data is None:
            return failed_result(info, spec, complaint).to_json().encode()
        return _as_result(data, info, spec).to_json().encode()

    def close(self) -> None:
        """End what runs; the app stays installed, for the next benchmark."""
        self._adb.stop()

    def _push(self, folder: str, spec: BenchSpec, package: BenchPackage) -> None:
        self._adb.shell("mkdir", "-p", folder)
        for path in package.paths:
            self._adb.push(path, f"{folder}/{path.name}")
        with tempfile.TemporaryDirectory(prefix="flint-adb-") as scratch:
            spec_path = Path(scratch) / SPEC_FILE
            spec_path.write_text(spec.to_json())
            self._adb.push(spec_path, f"{folder}/{SPEC_FILE}")
        # The app is another user than the shell.
        self._adb.shell("chmod", "-R", "a+rX", folder)

    def _start(self, folder: str) -> tuple[bytes | None, str]:
        """The result file's bytes, or why there is none."""
        words = ["-w", "-r", "-e", "spec", f"{folder}/{SPEC_FILE}", self._app.instrumentation]
        finished = self._adb.instrument(words, self._timeout_s)
        if finished.timed_out:
            return None, f"the app gave no result within {self._timeout_s:g} s and was stopped"
        outcome = read_instrumentation(finished.output.decode("utf-8", "replace"))
        path = outcome.result_path
        if path is None:
            return None, outcome.complaint
        # App-private files are the app's alone; `run-as` needs a debuggable build.
        as_app = [] if path.startswith(f"{DEVICE_FOLDER}/") else ["run-as", self._app.package]
        try:
            return self._adb.read([*as_app, "cat", path], MAX_RESULT_BYTES), ""
        finally:
            self._clean_up(*as_app, "rm", "-f", path)

    def _clean_up(self, *words: str) -> None:
        """What is left behind is no reason to lose a result, or to hide why there is none."""
        try:
            self._tidying.shell(*words)
        except (AdbCallFailed, AdbDeviceLost) as error:
            log.warning("left behind on the device: %s", error)


def _as_result(data: bytes, info: DeviceInfo, spec: BenchSpec) -> BenchResult:
    """The result in an answer; of rubbish, or of another benchmark, one that is not ok."""
    source = f"the result of adb device {info.id}"
    try:
        result = BenchResult.from_json(data, source=source)
        result.check_answers(spec, source=source)
    except (InvalidBenchResult, MismatchedBenchResult) as error:
        return failed_result(info, spec, str(error))
    return replace(result, device=info)
