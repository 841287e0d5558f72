"""Devices by name: those emulated, those measured or enrolled, a storage class, a profile file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from android_bench.devices.emulated import shipped_profiles
from device_runtime.errors import FlintError, named_in
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.quantities import parse_bytes
from feature_catalog.devices import DeviceRegistry
from feature_catalog.measurements import Measurement, Measurements
from feature_catalog.on_device import DeviceProfile, DeviceRules, StorageClass
from feature_catalog.on_device.rules import DEFAULT_RULES
from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text
from server.operations.told_changes import settings_before

_SUFFIXES = (".yaml", ".yml", ".json")


class UnknownDeviceProfile(FlintError):
    """A name of no device that is known."""

    code = "FLN-2982"


class UnreadableDeviceFile(FlintError):
    """A file of a device profile, or of rules for devices, that cannot be read as one."""

    code = "FLN-2983"


def shipped_device_profiles() -> dict[str, DeviceProfile]:
    """Profiles that need no catalog: the storage classes, and the emulated phones, by name."""
    classes = {
        str(each): DeviceProfile(f"a {each} device", storage_class=each) for each in StorageClass
    }
    emulated = {
        name: DeviceProfile(
            device_model=each.device_model,
            os_release=each.os_release,
            memory_mb=each.memory_mb,
            app_memory_mb=each.app_memory_mb,
        )
        for name, each in shipped_profiles().items()
    }
    return classes | emulated


def known_device_profiles(measurements: Measurements) -> dict[str, DeviceProfile]:
    """Those, and every device model that was measured, as its newest measurement says."""
    measured = {
        row.measurement.device_model: _measured(row.measurement) for row in measurements.list()
    }
    return measured | shipped_device_profiles()


def _measured(found: Measurement) -> DeviceProfile:
    """A measured device's model; what its benchmark could not tell is not known."""
    profile = DeviceProfile.enrolled(found.device_model, found.os_release or "")
    memory_mb = found.device_memory_mb if found.device_memory_mb > 0 else None
    return dataclasses.replace(profile, memory_mb=memory_mb)


def find_device_profile(
    reference: str, *, measurements: Measurements | None = None, engine: Engine | None = None
) -> DeviceProfile:
    """The profile that a user means.

    Args:
        reference: A profile file's path (``.yaml``, ``.json``), a storage class, the name or model
            of an emulated phone, a measured device model, or the id of an enrolled device.
        measurements: Where measured models are; None: they are not looked for.
        engine: Where enrolled devices are; None: they are not looked for.

    Raises:
        UnknownDeviceProfile: If nothing is called so; says what there is.
        UnreadableDeviceFile: If the file is none.
        InvalidDeviceProfile: If it says something impossible.
    """
    if reference.endswith(_SUFFIXES) or "/" in reference:
        return read_device_profile(Path(reference))
    known = (
        shipped_device_profiles() if measurements is None else known_device_profiles(measurements)
    )
    if reference in known:
        return known[reference]
    by_model = {each.device_model: each for each in known.values()}
    if reference in by_model:
        return by_model[reference]
    hardware = DeviceRegistry(engine).hardware(reference) if engine is not None else None
    if hardware is not None:
        enrolled = DeviceProfile.enrolled(*hardware)
        measured = by_model.get(enrolled.device_model, enrolled)
        return dataclasses.replace(measured, os_release=enrolled.os_release)
    near = did_you_mean(reference, sorted({*known, *by_model}))
    raise UnknownDeviceProfile(
        f"there is no device {reference[:60]!r}{near}; give one of {listed(list(StorageClass))}, "
        "an emulated phone (tier-01 to tier-27), a device model measured with `flint bench run`, "
        "an enrolled device's id, or a profile file (.yaml)"
    )


def read_device_profile(path: Path) -> DeviceProfile:
    """A profile from a YAML or JSON file: ``memory_mb: 3000``, ``free_bytes: 2GB`` and so on.

    Raises:
        UnreadableDeviceFile: If it is no such file.
        InvalidDeviceProfile: If it says something impossible.
    """
    found = _mapping(path, "device profile")
    with named_in(str(path)):
        if "free_bytes" in found:
            found["free_bytes"] = parse_bytes(found["free_bytes"], "free_bytes")
        return DeviceProfile.from_json(found)


def read_device_rules(path: Path) -> DeviceRules:
    """Rules from a YAML or JSON file.

    Raises:
        UnreadableDeviceFile: If it is no such file.
        InvalidDeviceRules: If it says something impossible.
    """
    found = _mapping(path, "file of device rules")
    with named_in(str(path)):
        return DeviceRules.from_json(found)


def deployment_rules(home: Path) -> DeviceRules:
    """Rules that the gateway in a data directory goes by, or went by when it last ran.

    Raises:
        InvalidDeviceRules: If somebody has spoilt them.
    """
    settings = settings_before(home)
    return DEFAULT_RULES if settings is None else DeviceRules.from_json(settings.device_rules)


def with_facts(profile: DeviceProfile, facts: Mapping[str, Any]) -> DeviceProfile:
    """A profile with what a user says of it besides; None leaves it as it is.

    Raises:
        InvalidDeviceProfile: If a value is impossible.
    """
    given = {name: value for name, value in facts.items() if value is not None}
    return dataclasses.replace(profile, **given)


def _mapping(path: Path, what: str) -> dict[str, Any]:
    try:
        text = read_text(path, what=what)
    except StrictYamlError as error:
        raise UnreadableDeviceFile(str(error)) from error
    try:
        return load_mapping(text)
    except StrictYamlError as error:
        raise UnreadableDeviceFile(f"{path}: {error}; write keys and values") from error
