"""What a device says of itself as a profile; what makes no sense counts as not said."""

from feature_catalog.definitions.bounds import MAX_SHORT_CHARACTERS
from feature_catalog.on_device import DeviceProfile, InvalidDeviceProfile
from feature_catalog.on_device.profile import MAX_BYTES, MAX_MEMORY_MB


def device_profile(
    *,
    device_model: str,
    os_release: str,
    app: str,
    free_bytes: int,
    memory_bytes: int,
    locale: str,
) -> DeviceProfile:
    """A profile of a device's own words; empty or 0: it did not say.

    Free storage is taken in steps of powers of two, downwards: a device gets the same manifest for
    long, and none that tells its number.
    """
    model = device_model if 0 < len(device_model) <= MAX_SHORT_CHARACTERS else ""
    return DeviceProfile(
        device_model=model if model.isprintable() and model else "a device",
        os_release=os_release if _is_said("os_release", os_release) else None,
        memory_mb=min(memory_bytes / 1e6, MAX_MEMORY_MB) if memory_bytes else None,
        free_bytes=_stepped(min(free_bytes, MAX_BYTES)) if free_bytes else None,
        locale=locale if _is_said("locale", locale) else None,
        app=app if _is_said("app", app) else None,
    )


def _is_said(name: str, value: str) -> bool:
    try:
        DeviceProfile.from_json({name: value})
    except InvalidDeviceProfile:
        return False
    return True


def _stepped(free_bytes: int) -> int:
    return int(2 ** (free_bytes.bit_length() - 1))
