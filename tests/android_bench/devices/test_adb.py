"""The adb back end against a scripted adb: SYNTHETIC transcripts, none recorded from a device."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import yaml

from android_bench.derived import derive
from android_bench.devices.adb import AdbDevice, AndroidApp, MissingApk
from android_bench.devices.adb_connection import (
    AdbCallFailed,
    AdbDeviceLost,
    AdbDeviceNotReady,
    AdbMissing,
    AppNotInstalled,
    NoSuchAdbDevice,
    find_device,
)
from android_bench.devices.android_facts import RELEASE_MONTHS, UndescribedDevice
from android_bench.devices.base import DeviceUnavailable
from android_bench.devices.device_farm import TEST_SPEC
from android_bench.devices.farm_artifacts import RESULT_NAME
from android_bench.devices.instrumentation import read_instrumentation
from android_bench.devices.phones import PhoneOptions
from android_bench.devices.select import SelectContext, select_groups
from android_bench.harness import run_benchmark
from android_bench.package import BenchPackage
from android_bench.protocol import MAX_RESULT_BYTES, BenchResult
from android_bench.run_folder import RunFolder
from tests.android_bench.results import DEVICE, SPEC, result

FAKE = Path(__file__).parent / "fake_adb.py"


class Lab:
    """Devices on cables, and what adb was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer(result().to_json().encode())
        self.connect(one={})

    def connect(self, **devices) -> None:
        told = {serial: {"state": "device"} | device for serial, device in devices.items()}
        (self.folder / "devices.json").write_text(json.dumps(told))

    def answer(self, data: bytes) -> None:
        (self.folder / "answer").write_bytes(data)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    def has_been_asked(self, words: str) -> bool:
        return words in (self.folder / "calls.jsonl").read_text()

    @property
    def left_behind(self) -> list[str]:
        disk = self.folder / "disk"
        return [str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()]


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Lab:
    home, programs = tmp_path / "lab", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    adb = programs / "adb"
    adb.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("FAKE_ADB", str(home))
    return Lab(home)


@pytest.fixture
def package(tmp_path) -> BenchPackage:
    made = BenchPackage(tmp_path / "package")
    made.folder.mkdir()
    for path in made.paths:
        path.write_bytes(path.name.encode())
    return made


@pytest.fixture
def app(tmp_path) -> AndroidApp:
    apks = [tmp_path / name for name in ("app.apk", "test.apk")]
    for apk in apks:
        apk.write_bytes(b"PK")
    return AndroidApp(*apks)


def run(app, package, **options) -> BenchResult:
    device = AdbDevice(app=app, **options)
    return BenchResult.from_json(device.run(SPEC, package))


def test_a_benchmark_is_installed_pushed_run_and_read_back(lab, app, package):
    found = run(app, package)
    assert found.runs == result().runs
    assert found.validity.ok
    assert (found.device.id, found.device.os_release) == ("one", "2023-10")
    assert json.loads((lab.folder / "pushed.json").read_text()) == [
        "manifest.json",
        "model.tflite",
        "parameters.bin",
        "records.bin",
        "spec.json",
    ]
    installed = [call[-1] for call in lab.calls if call[2:3] == ["install"]]
    assert installed == [str(app.app_apk), str(app.test_apk)]
    assert lab.left_behind == []


def test_what_is_pushed_is_all_a_real_runtime_needs(lab, app, packed, tmp_path):
    """From selection to the run folder, the Python worker standing in for the app."""
    lab.connect(one={"app": "worker"})
    folder = RunFolder(tmp_path / "run", replace(packed.spec, repeats=1))
    folder.path.mkdir()
    shutil.copytree(packed.package.folder, folder.package.folder)
    groups = select_groups("adb:one", SelectContext(phones=PhoneOptions(app)))
    (outcome,) = run_benchmark(folder, groups).devices
    assert outcome.failure == ""
    assert outcome.is_ok
    assert outcome.result.device.device_model == "Pixel 6"
    figures = derive(outcome.result)
    assert figures.pass_s_mean > 0
    assert figures.network_mb == pytest.approx(2 * 4 * 1513 / 1e6, rel=0.1)
    assert folder.kept("adb:one").keys() == {"adb:one"}
    assert lab.left_behind == []


def test_the_device_is_described_by_its_own_properties(lab, app):
    info = AdbDevice(app=app).describe()
    assert (info.device_model, info.soc, info.abi) == ("Pixel 6", "Tensor", "arm64-v8a")
    assert (info.cores, info.memory_mb, info.os_version) == (8, 8000.0, "Android 14 (SDK 34)")
    assert (info.backend, info.emulated, info.timing_valid) == ("adb", False, True)


def test_an_emulators_times_are_not_a_phones(lab, app, package):
    properties = "[ro.product.model]: [sdk_gphone64]\n[ro.kernel.qemu]: [1]\n"
    lab.connect(one={"getprop": properties})
    found = run(app, package).device
    assert (found.emulated, found.timing_valid, found.os_release) == (True, False, None)


def test_a_device_that_does_not_tell_its_model_is_not_guessed(lab, app, package):
    lab.connect(one={"getprop": "[ro.product.model]: []"})
    with pytest.raises(UndescribedDevice, match="does not tell its model"):
        run(app, package)


def test_a_second_benchmark_installs_nothing(lab, app, package):
    device = AdbDevice(app=app)
    device.run(SPEC, package)
    device.run(SPEC, package)
    assert sum(call[2:3] == ["install"] for call in lab.calls) == 2


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("crash", "the app crashed (java.lang.OutOfMemoryError: Failed to allocate)"),
        ("killed", "the app ended without a word"),
        ("failed", "the device cannot start org.flint.bench.test/x (Unable to find instr"),
        ("rejected", "the instrumentation ended with code 1 (spec.json has no schema)"),
        ("silent", "the app gave no flint_bench_json (OK (0 tests))"),
        ("elsewhere", "which is no plain absolute path"),
    ],
)
def test_an_app_that_gives_nothing_is_a_result_that_says_why(lab, app, package, told, said):
    lab.connect(one={"app": told})
    found = run(app, package)
    assert not found.validity.ok
    assert said in found.validity.reasons[0]
    assert (found.runs, found.build, found.spec) == ((), None, SPEC)
    assert lab.left_behind == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "is no JSON"),
        (b'{"schema": "flint-ben', "is no JSON"),
        (b"run-as: unknown package: org.flint.bench", "is no JSON"),
        (b"x" * (MAX_RESULT_BYTES + 1000), "at most"),
        (result().to_json().replace('"wall_s":2.0', '"wall_s":NaN').encode(), "NaN"),
        (result().to_json().replace('"records":5000', '"records":50').encode(), "50"),
        (result().to_json().replace("a" * 64, "c" * 64).encode(), "model_sha256"),
    ],
    ids=["empty", "cut off", "no debuggable app", "endless", "nan", "other spec", "other model"],
)
def test_rubbish_is_a_result_that_is_not_ok_and_has_no_numbers(lab, app, package, answer, said):
    lab.answer(answer)
    found = run(app, package)
    assert not found.validity.ok
    assert said in found.validity.reasons[0]
    assert found.runs == ()
    assert lab.left_behind == []


def test_an_app_that_hangs_is_stopped_and_reported(lab, app, package):
    lab.connect(one={"app": "hang"})
    started_s = time.monotonic()
    found = run(app, package, timeout_s=1.0)
    assert time.monotonic() - started_s < 50
    assert found.validity.reasons == ("the app gave no result within 1 s and was stopped",)
    assert ["-s", "one", "shell", "am force-stop org.flint.bench"] in lab.calls


def test_a_device_unplugged_between_upload_and_result_is_said_to_be_lost(lab, app, package):
    lab.connect(one={"app": "unplugged"})
    with pytest.raises(AdbDeviceLost, match="went away during `shell am instrument") as lost:
        run(app, package)
    assert "no result of it was taken" in str(lost.value)
    assert isinstance(lost.value, DeviceUnavailable)


def test_a_device_may_be_closed_while_it_works(lab, app, package):
    lab.connect(one={"app": "hang"})
    device = AdbDevice(app=app)

    def close_once_the_app_runs() -> None:
        deadline_s = time.monotonic() + 60
        while not lab.has_been_asked("am instrument") and time.monotonic() < deadline_s:
            time.sleep(0.02)
        device.close()

    closer = threading.Thread(target=close_once_the_app_runs)
    closer.start()
    with pytest.raises(AdbDeviceLost, match="was stopped"):
        device.run(SPEC, package)
    closer.join()
    device.close()
    assert lab.left_behind == []
    assert ["-s", "one", "shell", "am force-stop org.flint.bench"] in lab.calls


@pytest.mark.parametrize(
    ("device", "error", "said"),
    [
        ({"install": "old_signature"}, AppNotInstalled, "INSTALL_FAILED_UPDATE_INCOMPATIBLE"),
        ({"push": "full"}, AdbCallFailed, "No space left on device"),
    ],
)
def test_a_device_that_takes_no_app_or_files_is_said_to_be_unusable(
    lab, app, package, device, error, said
):
    lab.connect(one=device)
    with pytest.raises(error, match=said):
        run(app, package)
    assert lab.left_behind == []


def test_which_device_is_meant_must_be_clear(lab):
    assert find_device(None) == "one"
    lab.connect(one={}, two={})
    assert find_device("two") == "two"
    with pytest.raises(NoSuchAdbDevice, match=r"2 devices .*one, two.* --devices adb:one"):
        find_device(None)
    with pytest.raises(NoSuchAdbDevice, match="no device 'three' is connected"):
        find_device("three")
    lab.connect()
    with pytest.raises(NoSuchAdbDevice, match="no device is connected to adb"):
        find_device(None)


@pytest.mark.parametrize(
    ("state", "mend"),
    [
        ("unauthorized", "allow USB debugging"),
        ("offline", "adb reconnect"),
        ("no permissions (user in plugdev group); see [http://...]", "udev"),
        ("recovery", "see `adb devices`"),
    ],
)
def test_a_device_that_takes_no_commands_is_said_to_with_the_mend(lab, state, mend):
    lab.connect(one={"state": state})
    with pytest.raises(AdbDeviceNotReady, match=re.escape(mend)):
        find_device("one")


def test_a_machine_without_adb_is_told_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AdbMissing, match="platform-tools"):
        find_device(None)
    (tmp_path / "adb").write_text("#!/bin/false\n")
    with pytest.raises(AdbMissing, match="cannot be started"):
        find_device(None)


def test_an_apk_that_is_not_there_is_told_before_anything_is_done(lab, tmp_path):
    (tmp_path / "empty.apk").touch()
    with pytest.raises(MissingApk, match=r"empty\.apk is of 0 bytes"):
        _ = AndroidApp(tmp_path / "empty.apk").apks
    with pytest.raises(MissingApk, match=r"gone\.apk is no file"):
        AdbDevice(app=AndroidApp(tmp_path / "gone.apk", tmp_path / "gone.apk"))
    assert not (lab.folder / "calls.jsonl").exists()


def test_months_of_releases_go_up_with_the_sdk_level():
    months = [RELEASE_MONTHS[sdk] for sdk in sorted(RELEASE_MONTHS)]
    assert months == sorted(months)
    assert RELEASE_MONTHS[29] == "2019-09"  # Android 10, FLINT's own criterion
    assert DEVICE.os_release == RELEASE_MONTHS[34]


@pytest.mark.parametrize("output", ["", "\x00\xff", "INSTRUMENTATION_RESULT: =\n" * 9, "x" * 10**6])
def test_whatever_is_printed_is_read_without_a_result(output):
    outcome = read_instrumentation(output)
    assert outcome.result_path is None
    assert 0 < len(outcome.complaint) <= 400


class TestSpecHost:
    """What Device Farm's host does with the test spec, on the scripted adb."""

    __test__ = False

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.logs, self.extra = lab, folder / "logs", folder / "extra"
        self.logs.mkdir()
        self.extra.mkdir()

    def run(self, **environment: str) -> dict[str, int]:
        """Last exit status of each phase."""
        text = resources.files("android_bench.devices").joinpath(TEST_SPEC).read_text()
        variables = {"DEVICEFARM_DEVICE_UDID": "one", "DEVICEFARM_LOG_DIR": str(self.logs)}
        codes = {}
        for name, phase in yaml.safe_load(text)["phases"].items():
            for command in phase["commands"]:
                codes[name] = subprocess.run(
                    ["bash", "-c", command],
                    env={**os.environ, **variables, **environment},
                    capture_output=True,
                    check=False,
                    timeout=60,
                ).returncode
        return codes


@pytest.fixture
def host(lab, tmp_path) -> TestSpecHost:
    return TestSpecHost(lab, tmp_path)


@pytest.mark.parametrize("place", ["host", "shared storage"])
def test_the_test_spec_of_device_farm_brings_the_result_into_the_log_folder(
    host, lab, package, place
):
    folder = host.extra if place == "host" else lab.folder / "disk" / "one" / "sdcard"
    folder.mkdir(parents=True, exist_ok=True)
    for path in package.paths:
        shutil.copy(path, folder)
    (folder / "spec.json").write_text(SPEC.to_json())
    told = {"DEVICEFARM_EXTRA_DATA_PATH": str(host.extra)} if place == "host" else {}
    assert host.run(**told) == {"install": 0, "pre_test": 0, "test": 0, "post_test": 0}
    found = (host.logs / RESULT_NAME).read_bytes()
    assert BenchResult.from_json(found) == result()
    assert len(json.loads((lab.folder / "pushed.json").read_text())) == 5
    assert not (lab.folder / "disk/one/data/local/tmp/flint-bench").exists()


def test_the_test_spec_of_device_farm_keeps_what_a_crashed_app_said(host, lab, package):
    lab.connect(one={"app": "crash"})
    for path in package.paths:
        shutil.copy(path, host.extra)
    (host.extra / "spec.json").write_text(SPEC.to_json())
    codes = host.run(DEVICEFARM_EXTRA_DATA_PATH=str(host.extra))
    assert codes["test"] == 0
    assert not (host.logs / RESULT_NAME).exists()
    assert "OutOfMemoryError" in (host.logs / "instrumentation.txt").read_text()


def test_the_test_spec_of_device_farm_stops_where_its_files_are_missing(host):
    assert host.run()["pre_test"] != 0
