"""What is known of a device when it is asked what the device keeps of a feature service."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from device_runtime.errors import FlintError
from feature_catalog.definitions.bounds import MAX_SHORT_CHARACTERS
from feature_catalog.definitions.errors import did_you_mean, shown, spelt

MAX_BYTES = 2**50
MAX_MEMORY_MB = 1e7

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_LOCALE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}")


class InvalidDeviceProfile(FlintError):
    """Facts about a device that cannot be."""

    code = "FLN-2980"


class StorageClass(StrEnum):
    """How much room a device has; `rules.BUDGETS` says what each may keep."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One device, or a model of devices. None: not known, and then nothing is judged by it.

    Attributes:
        device_model: As the device says when it enrols.
        os_release: Month its system was released, ``YYYY-MM``.
        memory_mb: The device's memory, 10^6 bytes.
        app_memory_mb: What one app may use of it before it is killed.
        storage_class: How much room it has; None: as `rules.storage_class` tells from memory.
        free_bytes: What is free of its storage.
        unmetered: Whether its network is.
        locale: Its user's language, e.g. ``pt-BR``.
        app: Application id of the host app, e.g. ``com.example.feed``.

    Raises:
        InvalidDeviceProfile: If a value is impossible.
    """

    device_model: str = "a device"
    os_release: str | None = None
    memory_mb: float | None = None
    app_memory_mb: float | None = None
    storage_class: StorageClass | None = None
    free_bytes: int | None = None
    unmetered: bool | None = None
    locale: str | None = None
    app: str | None = None

    def __post_init__(self) -> None:
        for name in ("device_model", "app"):
            value = getattr(self, name)
            if value is not None and not _is_short_text(value):
                raise _wrong(name, value, f"text of at most {MAX_SHORT_CHARACTERS} characters")
        if self.os_release is not None and not _matches(_MONTH, self.os_release):
            raise _wrong("os_release", self.os_release, "a month such as 2021-10")
        for name in ("memory_mb", "app_memory_mb"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value <= MAX_MEMORY_MB):
                raise _wrong(name, value, "10^6 bytes above 0, such as 4000")
        if self.storage_class is not None:
            if self.storage_class not in list(StorageClass):
                raise _wrong("storage_class", self.storage_class, f"{', '.join(StorageClass)}")
            object.__setattr__(self, "storage_class", StorageClass(self.storage_class))
        if self.free_bytes is not None and not (
            type(self.free_bytes) is int and 0 <= self.free_bytes <= MAX_BYTES
        ):
            raise _wrong("free_bytes", self.free_bytes, "a whole number of bytes")
        if self.unmetered is not None and not isinstance(self.unmetered, bool):
            raise _wrong("unmetered", self.unmetered, "true or false")
        if self.locale is not None and not _matches(_LOCALE, self.locale):
            raise _wrong("locale", self.locale, "a language tag such as en or pt-BR")

    @classmethod
    def enrolled(cls, device_model: str, os_release: str) -> Self:
        """Of a device that enrolled, which may have said anything as its OS release.

        >>> DeviceProfile.enrolled("Pixel 3", "unknown").os_release is None
        True
        """
        is_month = _matches(_MONTH, os_release)
        is_model = _is_short_text(device_model)
        return cls(device_model if is_model else "a device", os_release if is_month else None)

    def to_json(self) -> dict[str, Any]:
        """What is known, as JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read `to_json` output, or what a user wrote in a file.

        Raises:
            InvalidDeviceProfile: If a key is unknown or a value impossible.
        """
        known = [field.name for field in fields(cls)]
        for key in found:
            if key not in known:
                raise InvalidDeviceProfile(
                    f"{spelt(key)} is nothing a device profile says{did_you_mean(key, known)}; it "
                    f"may say {', '.join(known)}"
                )
        return cls(**found)


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_SHORT_CHARACTERS and value.isprintable()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _wrong(name: str, value: object, wanted: str) -> InvalidDeviceProfile:
    return InvalidDeviceProfile(
        f"{name} of a device profile is {shown(value)}; it must be {wanted}, or be left out"
    )
