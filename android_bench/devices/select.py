"""What ``--devices`` selects: ``host,emulated:tier-01,tier-27``.

A back end is a function from the names after its colon to groups of devices, and a line in
`BACK_ENDS`.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from android_bench.devices.base import DeviceGroup, SingleDevice
from android_bench.devices.cores import Cores
from android_bench.devices.emulated import EmulatedDevice, shipped_profiles
from android_bench.devices.host import HostDevice
from android_bench.devices.local_worker import TIMEOUT_S, LocalWorker
from android_bench.devices.phones import PhoneOptions, select_adb, select_device_farm
from device_runtime.errors import FlintError


class UnknownBenchDevice(FlintError):
    """``--devices`` names a back end or a device that there is not."""

    code = "FLN-2507"


@dataclass(frozen=True)
class SelectContext:
    """What back ends may need.

    Attributes:
        cores: Of this machine, shared by all that runs on it.
        timeout_s: Of one run, after which its worker is killed.
        phones: For real ones.
    """

    cores: Cores = field(default_factory=Cores)
    timeout_s: float = TIMEOUT_S
    phones: PhoneOptions = field(default_factory=PhoneOptions)


BackEnd = Callable[[tuple[str, ...], SelectContext], Sequence[DeviceGroup]]


def select_groups(text: str, context: SelectContext) -> list[DeviceGroup]:
    """Groups of devices that a ``--devices`` text names, each once, in its order.

    Items are parted by commas: a back end, or a back end, a colon and a name; an item that is no
    back end is another name of the one before it.

    >>> [group.name for group in select_groups("host,emulated:tier-01,tier-27", SelectContext())]
    ['host', 'emulated:tier-01', 'emulated:tier-27']

    Raises:
        UnknownBenchDevice: If a back end or a device is not known; says which are.
    """
    asked: list[tuple[str, list[str]]] = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        back_end, colon, name = item.partition(":")
        if back_end in BACK_ENDS:
            asked.append((back_end, [name] if colon else []))
        elif asked and asked[-1][1]:
            asked[-1][1].append(item)
        else:
            raise UnknownBenchDevice(
                f"--devices: there is no back end {back_end!r}{_meant(back_end, BACK_ENDS)}; "
                f"there are {', '.join(BACK_ENDS)}"
            )
    if not asked:
        raise UnknownBenchDevice(f"--devices names none; give {' or '.join(BACK_ENDS)}")
    groups: dict[str, DeviceGroup] = {}
    for back_end, names in asked:
        for group in BACK_ENDS[back_end](tuple(names), context):
            groups.setdefault(group.name, group)
    return list(groups.values())


def select_host(names: tuple[str, ...], context: SelectContext) -> Sequence[DeviceGroup]:
    """This machine."""
    if names:
        raise UnknownBenchDevice(f"--devices: host takes no name, and {names[0]!r} was given")
    device = HostDevice(context.cores, LocalWorker(timeout_s=context.timeout_s))
    return [SingleDevice("host", device)]


def select_emulated(names: tuple[str, ...], context: SelectContext) -> Sequence[DeviceGroup]:
    """Emulated profiles by name; without one all of them, those that take longest first."""
    profiles = shipped_profiles()
    for name in names:
        if name not in profiles:
            raise UnknownBenchDevice(
                f"--devices: there is no emulated profile {name!r}{_meant(name, profiles)}; there "
                f"are {next(iter(profiles))} to {list(profiles)[-1]}"
            )
    return [
        SingleDevice(
            f"emulated:{name}",
            EmulatedDevice(profiles[name], context.cores, LocalWorker(timeout_s=context.timeout_s)),
        )
        for name in names or reversed(list(profiles))
    ]


BACK_ENDS: Mapping[str, BackEnd] = {
    "host": select_host,
    "emulated": select_emulated,
    "adb": lambda names, context: select_adb(names, context.phones),
    "device-farm": lambda names, context: select_device_farm(names, context.phones),
}
"""By the word before the colon."""


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
