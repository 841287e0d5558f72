"""What a device knows of itself at one moment, and where a host reads it from."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

_POWER_SUPPLIES = Path("/sys/class/power_supply")


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device at one moment. It is judged on the device and never sent. None: not known.

    Attributes:
        unmetered_network: Traffic costs the user nothing (Wi-Fi, Ethernet).
        battery: Charge, 0 to 1; a device that runs on mains alone says 1.
        charging: On external power.
        foreground: The host app is in the foreground.
        local_time: Now, with the device's UTC offset.
        account_age_days: Age of the user's account.
        last_participation: When this device last finished a task, with an offset; None: never.
    """

    unmetered_network: bool | None
    battery: float | None
    charging: bool | None
    foreground: bool | None
    local_time: datetime
    account_age_days: float | None = None
    last_participation: datetime | None = None


class DeviceStateReader(Protocol):
    """Reads the device's present state. Called before every check-in and training slice."""

    def read(self) -> DeviceState:
        """The state now; ``last_participation`` is left to the runner, which keeps it."""
        ...


@dataclass(frozen=True, slots=True)
class HostDeviceState:
    """State of a Linux host: power from ``/sys/class/power_supply``, the rest as configured.

    A host without any battery runs on mains: battery 1, charging. A host with a battery that cannot
    be read has an unknown charge, and takes part in no job that asks for one.

    Attributes:
        battery: Charge to report instead of what the host says.
        power_supplies: Folder with one sub-folder a power supply.
    """

    unmetered_network: bool | None = True
    foreground: bool | None = True
    account_age_days: float | None = None
    battery: float | None = None
    power_supplies: Path = _POWER_SUPPLIES

    def read(self) -> DeviceState:
        """The state now."""
        battery, charging = self._power()
        return DeviceState(
            unmetered_network=self.unmetered_network,
            battery=battery if self.battery is None else self.battery,
            charging=charging,
            foreground=self.foreground,
            local_time=datetime.now().astimezone(),
            account_age_days=self.account_age_days,
        )

    def _power(self) -> tuple[float | None, bool | None]:
        try:
            supplies = list(self.power_supplies.iterdir())
        except OSError:
            return 1.0, True
        batteries = [supply for supply in supplies if _line(supply / "type") == "Battery"]
        if not batteries:
            return 1.0, True
        status = _line(batteries[0] / "status")
        charging = None if status is None else status in ("Charging", "Full", "Not charging")
        percent = _line(batteries[0] / "capacity")
        if percent is None or not percent.isdigit():
            return None, charging
        return min(int(percent), 100) / 100, charging


def _line(path: Path) -> str | None:
    """First line of a small file, or None where the kernel will not give it."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
