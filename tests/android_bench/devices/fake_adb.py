"""A scripted ``adb``: replays transcripts, and really copies files to a folder that is its device.

SYNTHETIC. The transcripts are written after Android's documentation and source, not recorded from
a device; a real run is to replace them. What each device does is in ``$FAKE_ADB/devices.json``;
what was asked is in ``$FAKE_ADB/calls.jsonl``.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_ADB"])
DEVICES = json.loads((HOME / "devices.json").read_text())
FOLDERS = ("/data/local/tmp", "/data/user/0", "/sdcard")
GETPROP = """\
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.soc.model]: [Tensor]
"""
STARTED = "INSTRUMENTATION_STATUS: id=BenchInstrumentation\nINSTRUMENTATION_STATUS_CODE: 1\n"
TRANSCRIPTS = {
    "ok": STARTED + "INSTRUMENTATION_RESULT: flint_bench_json={path}\nINSTRUMENTATION_CODE: -1\n",
    "elsewhere": "INSTRUMENTATION_RESULT: flint_bench_json=../../etc/passwd\n"
    "INSTRUMENTATION_CODE: -1\n",
    "silent": "INSTRUMENTATION_RESULT: stream=OK (0 tests)\nINSTRUMENTATION_CODE: -1\n",
    "crash": STARTED + "INSTRUMENTATION_RESULT: shortMsg=java.lang.OutOfMemoryError\n"
    "INSTRUMENTATION_RESULT: longMsg=java.lang.OutOfMemoryError: Failed to allocate\n"
    "INSTRUMENTATION_CODE: 0\n",
    "killed": STARTED,
    "failed": "android.util.AndroidException: INSTRUMENTATION_FAILED: x\n"
    "INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{x}}\n"
    "INSTRUMENTATION_STATUS_CODE: -1\nINSTRUMENTATION_FAILED: org.flint.bench.test/x\n",
    "rejected": "INSTRUMENTATION_RESULT: stack=spec.json has no schema\nINSTRUMENTATION_CODE: 1\n",
}


def main() -> int:
    words = sys.argv[1:]
    with (HOME / "calls.jsonl").open("a") as log:
        log.write(json.dumps(words) + "\n")
    if words == ["start-server"]:
        return 0
    if words == ["devices"]:
        print("List of devices attached")
        for serial, device in DEVICES.items():
            print(f"{serial}\t{device['state']}")
        print()
        return 0
    _, serial, call, *rest = words
    if serial not in DEVICES or (HOME / "unplugged").exists():
        print(f"error: device '{serial}' not found", file=sys.stderr)
        return 1
    return CALLS[call](DEVICES[serial], HOME / "disk" / serial, rest)


def install(device: dict, disk: Path, rest: list[str]) -> int:
    if device.get("install") == "old_signature":
        print("Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: signatures do not match]")
        return 0
    print("Performing Streamed Install\nSuccess")
    return 0


def push(device: dict, disk: Path, rest: list[str]) -> int:
    source, target = rest
    if device.get("push") == "full":
        print(f"adb: error: failed to copy '{source}': No space left on device", file=sys.stderr)
        return 1
    on_disk = disk / target.lstrip("/")
    on_disk.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, on_disk)
    print(f"{source}: 1 file pushed, 0 skipped.")
    return 0


def shell(device: dict, disk: Path, rest: list[str]) -> int:
    line = " ".join(rest)
    words = shlex.split(line)
    as_app = words[:1] == ["run-as"]
    words = words[2:] if as_app else words
    if words == ["getprop"]:
        print(device.get("getprop", GETPROP))
    elif words == ["cat", "/sys/devices/system/cpu/possible"]:
        print("0-7")
    elif words == ["cat", "/proc/meminfo"]:
        print("MemTotal:        7812500 kB\nMemFree: 1 kB")
    elif words[:2] == ["am", "instrument"]:
        return instrument(device, disk, words[2:])
    elif words[0] != "am":
        line = shlex.join(words) if as_app else line
        # This machine's files are none of the device's.
        assert all(word.startswith(FOLDERS) for word in words if word.startswith("/")), words
        for folder in FOLDERS:
            line = line.replace(folder, f"{disk}{folder}")
        return subprocess.run(["sh", "-c", line], check=False).returncode
    return 0


def instrument(device: dict, disk: Path, words: list[str]) -> int:
    told = device.get("app", "ok")
    assert words[:4] == ["-w", "-r", "-e", "spec"], words
    spec_path = disk / words[4].lstrip("/")
    if told == "unplugged":
        (HOME / "unplugged").touch()
        print("error: device offline", file=sys.stderr)
        return 1
    if told == "hang":
        time.sleep(60)
    path = "/data/user/0/org.flint.bench/files/result.json"
    if told == "worker":
        # A real runtime in the app's place: the Python worker, on what was pushed.
        worker = (sys.executable, "-P", "-m", "android_bench.worker")
        folder = str(spec_path.parent)
        subprocess.run([*worker, "--package", folder, "--output", folder], check=True)
        shutil.copyfile(spec_path.parent / "result.json", HOME / "answer")
        told = "ok"
    if told == "ok":
        result = disk / path.lstrip("/")
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_bytes((HOME / "answer").read_bytes())
        pushed = sorted(p.name for p in spec_path.parent.iterdir())
        (HOME / "pushed.json").write_text(json.dumps(pushed))
    sys.stdout.write(TRANSCRIPTS[told].format(path=path))
    return 0


CALLS = {"install": install, "push": push, "shell": shell, "exec-out": shell}

if __name__ == "__main__":
    sys.exit(main())
