"""Which Android device this is, by its system properties and ``/proc``."""

import re

from android_bench.devices.base import DeviceUnavailable
from android_bench.protocol import Backend, DeviceInfo

RELEASE_MONTHS = {
    21: "2014-11",
    22: "2015-03",
    23: "2015-10",
    24: "2016-08",
    25: "2016-10",
    26: "2017-08",
    27: "2017-12",
    28: "2018-08",
    29: "2019-09",
    30: "2020-09",
    31: "2021-10",
    32: "2022-03",
    33: "2022-08",
    34: "2023-10",
    35: "2024-09",
    36: "2025-06",
}
"""Month each Android version was released, by SDK level; `participation.device.min_os_release`
counts in these."""

PROPERTIES = (
    "ro.product.model",
    "ro.product.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.product.cpu.abi",
    "ro.kernel.qemu",
    "ro.boot.qemu",
)


class UndescribedDevice(DeviceUnavailable):
    """A device does not tell what kind of device it is."""

    code = "FLN-2558"


_PROPERTY = re.compile(r"\[([^\]]+)\]: \[([^\]]*)\]")


def read_properties(getprop: str) -> dict[str, str]:
    """Properties of the output of ``getprop``; only those of `PROPERTIES`, none empty."""
    found = dict(_PROPERTY.findall(getprop))
    return {name: _plain(found[name]) for name in PROPERTIES if _plain(found.get(name, ""))}


def android_device(
    serial: str, backend: Backend, properties: dict[str, str], cpus: str, meminfo: str
) -> DeviceInfo:
    """Describe a device.

    Args:
        properties: From `read_properties`.
        cpus: ``/sys/devices/system/cpu/possible``, e.g. ``"0-7"``.
        meminfo: ``/proc/meminfo``.

    Raises:
        UndescribedDevice: If it does not tell its model, cores or memory; they are never guessed.
    """
    model = properties.get("ro.product.model")
    if model is None:
        raise UndescribedDevice(
            f"adb device {serial} does not tell its model (ro.product.model); run on another device"
        )
    sdk = properties.get("ro.build.version.sdk", "")
    is_emulator = "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu"))
    last_cpu = re.search(r"(\d{1,4})\s*$", cpus)
    memory_kb = re.search(r"MemTotal:\s+(\d{1,12}) kB", meminfo)
    if last_cpu is None or memory_kb is None:
        raise UndescribedDevice(
            f"adb device {serial} does not tell its {'cores' if last_cpu is None else 'memory'}; "
            "run on another device"
        )
    return DeviceInfo(
        id=serial,
        device_model=model,
        soc=properties.get("ro.soc.model") or properties.get("ro.board.platform"),
        os_version=f"Android {properties.get('ro.build.version.release', 'unknown')} (SDK {sdk})",
        os_release=RELEASE_MONTHS.get(int(sdk)) if sdk.isdecimal() and len(sdk) < 5 else None,
        cores=int(last_cpu[1]) + 1,
        memory_mb=int(memory_kb[1]) * 1024 / 1e6,
        abi=properties.get("ro.product.cpu.abi", "unknown")[:40],
        backend=backend,
        emulated=is_emulator,
        # An emulator's speed is this machine's.
        timing_valid=not is_emulator,
    )


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()[:100]
