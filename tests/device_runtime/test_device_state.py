from pathlib import Path

import pytest

from device_runtime.device_state import HostDeviceState


def supply(folder: Path, **lines) -> Path:
    folder.mkdir(parents=True)
    for name, text in lines.items():
        (folder / name).write_text(f"{text}\n")
    return folder.parent


@pytest.mark.parametrize(
    ("status", "charging"), [("Discharging", False), ("Charging", True), ("Full", True)]
)
def test_a_laptop_says_what_its_battery_says(tmp_path, status, charging):
    supply(tmp_path / "AC", type="Mains", online=1)
    supply(tmp_path / "BAT0", type="Battery", capacity=42, status=status)
    state = HostDeviceState(power_supplies=tmp_path).read()
    assert (state.battery, state.charging) == (0.42, charging)


def test_a_host_without_a_battery_runs_on_mains(tmp_path):
    assert HostDeviceState(power_supplies=tmp_path).read().battery == 1.0
    assert HostDeviceState(power_supplies=tmp_path / "missing").read().battery == 1.0


def test_a_battery_that_cannot_be_read_is_unknown(tmp_path):
    supply(tmp_path / "BAT0", type="Battery")
    state = HostDeviceState(power_supplies=tmp_path).read()
    assert (state.battery, state.charging) == (None, None)


def test_a_configured_charge_replaces_the_hosts(tmp_path):
    supply(tmp_path / "BAT0", type="Battery", capacity=42, status="Full")
    assert HostDeviceState(battery=0.1, power_supplies=tmp_path).read().battery == 0.1


def test_local_time_knows_its_offset():
    assert HostDeviceState().read().local_time.utcoffset() is not None
