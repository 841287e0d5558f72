"""What devices may spend on features: one table of budgets by storage class, and a few limits.

The budgets are choices of this project, not measurements: FLINT's vocabularies have 1.28 MB
(section 4.2), and a phone of the smallest class shall take one of them. A deployment that knows its
phones gives rules of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Self

from device_runtime.errors import FlintError
from feature_catalog.definitions.errors import DefinitionError, did_you_mean, shown, spelt
from feature_catalog.definitions.quantities import parse_bytes
from feature_catalog.on_device.profile import DeviceProfile, StorageClass

SMALL_BELOW_MEMORY_MB = 3_000.0
MEDIUM_BELOW_MEMORY_MB = 6_000.0

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


class InvalidDeviceRules(FlintError):
    """Rules for what devices may spend on features that make no sense."""

    code = "FLN-2981"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a device of a storage class may spend on one service.

    Attributes:
        total_bytes: On its storage: events, cached values and assets together.
        asset_bytes: On one asset.
        asset_memory_bytes: In memory, on all assets of the service together.
    """

    total_bytes: int
    asset_bytes: int
    asset_memory_bytes: int


BUDGETS: Mapping[StorageClass, Budget] = MappingProxyType(
    {
        StorageClass.SMALL: Budget(12 * 10**6, 2 * 10**6, 16 * 10**6),
        StorageClass.MEDIUM: Budget(48 * 10**6, 8 * 10**6, 64 * 10**6),
        StorageClass.LARGE: Budget(192 * 10**6, 64 * 10**6, 256 * 10**6),
    }
)


@dataclass(frozen=True)
class DeviceRules:
    """By which it is decided what a device stores, caches and downloads.

    Attributes:
        budgets: By storage class.
        max_share_of_free: Of the free bytes of a device's storage, at most so much is spent.
        max_share_of_app_memory: Of what an app may use, assets take at most so much.
        metered_asset_bytes: A larger asset is downloaded over an unmetered network only.
        text_bytes: UTF-8 bytes of a text or a key of text, where nothing bounds them: an estimate.
        min_os_release: Month of the oldest OS release that is served at all, ``YYYY-MM``.
    """

    budgets: Mapping[StorageClass, Budget] = field(default_factory=lambda: BUDGETS)
    max_share_of_free: float = 0.05
    max_share_of_app_memory: float = 0.25
    metered_asset_bytes: int = 100_000
    text_bytes: int = 32
    min_os_release: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_share_of_free", "max_share_of_app_memory"):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise _wrong(name, share, "a share above 0, at most 1")
        if type(self.text_bytes) is not int or not 1 <= self.text_bytes <= 2**16:
            raise _wrong("text_bytes", self.text_bytes, "a number of bytes from 1 to 65536")
        if self.min_os_release is not None and not (
            isinstance(self.min_os_release, str) and _MONTH.fullmatch(self.min_os_release)
        ):
            raise _wrong("min_os_release", self.min_os_release, "a month such as 2021-10")

    def budget_for(self, profile: DeviceProfile) -> Budget:
        """What a device may spend, its free storage and its apps' memory considered."""
        budget = self.budgets[storage_class(profile)]
        total_bytes, memory_bytes = budget.total_bytes, budget.asset_memory_bytes
        if profile.free_bytes is not None:
            total_bytes = min(total_bytes, int(profile.free_bytes * self.max_share_of_free))
        if profile.app_memory_mb is not None:
            its_share = profile.app_memory_mb * 1e6 * self.max_share_of_app_memory
            memory_bytes = min(memory_bytes, int(its_share))
        return Budget(total_bytes, min(budget.asset_bytes, total_bytes), memory_bytes)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read what a user wrote: keys as the attributes; sizes as numbers, or ``2MB``.

        Raises:
            InvalidDeviceRules: If a key is unknown or a value impossible.
        """
        given = dict(found)
        _require_known(given, [each.name for each in fields(cls)], "the rules for devices")
        if "budgets" in given:
            given["budgets"] = _budgets(given["budgets"])
        if "metered_asset_bytes" in given:
            asked = given["metered_asset_bytes"]
            given["metered_asset_bytes"] = _bytes("metered_asset_bytes", asked)
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """The keys that `from_json` reads, all of them; sizes in bytes."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {"budgets": {str(name): asdict(row) for name, row in self.budgets.items()}}


DEFAULT_RULES = DeviceRules()


def storage_class(profile: DeviceProfile) -> StorageClass:
    """A device's storage class: as it says, else by its memory, which phones' storage goes with.

    Below 3 GB of memory small, below 6 GB medium, else large; medium where nothing is known.

    >>> storage_class(DeviceProfile("Pixel 3", memory_mb=4000))
    <StorageClass.MEDIUM: 'medium'>
    """
    if profile.storage_class is not None:
        return profile.storage_class
    if profile.memory_mb is None:
        return StorageClass.MEDIUM
    if profile.memory_mb < SMALL_BELOW_MEMORY_MB:
        return StorageClass.SMALL
    return StorageClass.MEDIUM if profile.memory_mb < MEDIUM_BELOW_MEMORY_MB else StorageClass.LARGE


def _budgets(found: object) -> Mapping[StorageClass, Budget]:
    """The table with those rows or values exchanged that a user gives."""
    if not isinstance(found, Mapping):
        raise _wrong("budgets", found, f"blocks named {', '.join(StorageClass)}")
    _require_known(found, list(StorageClass), "budgets")
    table = dict(BUDGETS)
    for name, row in found.items():
        if not isinstance(row, Mapping):
            raise _wrong(f"budgets.{name}", row, "a block such as {total_bytes: 20MB}")
        _require_known(row, [each.name for each in fields(Budget)], f"budgets.{name}")
        given = {key: _bytes(f"budgets.{name}.{key}", value) for key, value in row.items()}
        table[StorageClass(name)] = replace(table[StorageClass(name)], **given)
    return MappingProxyType(table)


def _require_known(found: Mapping[Any, object], known: list[str], where: str) -> None:
    for key in found:
        if key not in known:
            raise InvalidDeviceRules(
                f"{spelt(key)} is no key of {where}{did_you_mean(key, known)}; it has "
                f"{', '.join(known)}"
            )


def _bytes(name: str, value: object) -> int:
    try:
        return parse_bytes(value, name)
    except DefinitionError as error:
        raise InvalidDeviceRules(error.sentence) from error


def _wrong(name: str, value: object, wanted: str) -> InvalidDeviceRules:
    return InvalidDeviceRules(f"{name} is {shown(value)}; it must be {wanted}")
