"""What the catalog lets a device keep: retention of records, caching of cloud features.

Both are written in the catalog and travel in a device's manifest, as JSON objects of the same
names. Three times have three names: ``ttl`` of a join is the cloud's alone, a record's retention
``max_age_s`` is when the device deletes it, a cache's ``max_age_s`` how old a served value may be.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self, TypeVar

from device_runtime.errors import FlintError


class InvalidFeaturePolicy(FlintError):
    """A retention or cache policy that makes no sense."""

    code = "FLN-2853"


class OnFull(StrEnum):
    """What happens to a record for which there is no room."""

    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"


class CacheMode(StrEnum):
    """When cloud features come to the device."""

    NEVER = "never"
    ON_DEMAND = "on_demand"
    PREFETCH = "prefetch"
    BUNDLED = "bundled"


class Network(StrEnum):
    """Over which network features may be fetched."""

    UNMETERED = "unmetered"
    ANY = "any"


class OnMiss(StrEnum):
    """What a read does for a key whose features are not there."""

    FETCH = "fetch"
    DEFAULT = "default"
    SKIP_EXAMPLE = "skip_example"


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how much a device keeps of one kind of record. None: no such limit.

    Attributes:
        max_age_s: Older ones are deleted and never handed out.
        max_records: At most so many.
        max_bytes: At most so many bytes, each record's share of the file included.
        on_full: Which goes when there is no room.
    """

    max_age_s: float | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    on_full: OnFull = OnFull.DROP_OLDEST

    def __post_init__(self) -> None:
        _check_age("retention.max_age_s", self.max_age_s)
        _check_count("retention.max_records", self.max_records)
        _check_count("retention.max_bytes", self.max_bytes)
        object.__setattr__(self, "on_full", _choice("retention.on_full", self.on_full, OnFull))

    def to_json(self) -> dict[str, Any]:
        """As the manifest says it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read `to_json` output.

        Raises:
            InvalidFeaturePolicy: If a key is unknown or a value makes no sense.
        """
        return cls(**_known("retention", found, cls))


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How a view's cloud features are cached on a device.

    Attributes:
        mode: ``never``: fetched for each read and not kept; ``on_demand``: kept once a read wanted
            them; ``prefetch``: fetched ahead, see `FeatureReader.prefetch`; ``bundled``: come with
            the app and are never fetched.
        max_age_s: How old a served value may be.
        max_bytes: At most so many bytes of this view, processed values included.
        max_rows: At most so many values of this view, processed ones included.
        network: Over which network they may be fetched.
        on_miss: What a read does for a key that is not there. A fetch that cannot be made becomes
            the default where every field has one, else the example is skipped.
    """

    mode: CacheMode = CacheMode.ON_DEMAND
    max_age_s: float | None = None
    max_bytes: int | None = None
    max_rows: int | None = None
    network: Network = Network.UNMETERED
    on_miss: OnMiss = OnMiss.FETCH

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", _choice("cache.mode", self.mode, CacheMode))
        _check_age("cache.max_age_s", self.max_age_s)
        _check_count("cache.max_bytes", self.max_bytes)
        _check_count("cache.max_rows", self.max_rows)
        object.__setattr__(self, "network", _choice("cache.network", self.network, Network))
        object.__setattr__(self, "on_miss", _choice("cache.on_miss", self.on_miss, OnMiss))
        if self.mode is CacheMode.BUNDLED and self.on_miss is OnMiss.FETCH:
            raise InvalidFeaturePolicy(
                "cache.on_miss is fetch, but bundled features are never fetched; "
                "give default or skip_example"
            )

    def to_json(self) -> dict[str, Any]:
        """As the manifest says it."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read `to_json` output.

        Raises:
            InvalidFeaturePolicy: If a key is unknown or a value makes no sense.
        """
        return cls(**_known("cache", found, cls))


_Choice = TypeVar("_Choice", bound=StrEnum)


def _known(where: str, found: Mapping[str, Any], policy: type[Any]) -> dict[str, Any]:
    known = [field.name for field in fields(policy)]
    unknown = sorted(str(key) for key in found if key not in known)
    if unknown:
        raise InvalidFeaturePolicy(
            f"{where}.{unknown[0][:60]} is not a known key; known are {', '.join(known)}"
        )
    return dict(found)


def _choice(where: str, value: object, choices: type[_Choice]) -> _Choice:
    if not isinstance(value, str) or value not in list(choices):
        raise InvalidFeaturePolicy(f"{where} is {value!r}; give one of {', '.join(choices)}")
    return choices(value)


def _check_count(where: str, value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63
    ):
        raise InvalidFeaturePolicy(f"{where} is {value!r}; give an integer of at least 1, or none")


def _check_age(where: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < float(str(value)) < math.inf):
        raise InvalidFeaturePolicy(f"{where} is {value!r}; give seconds above 0, or none")
