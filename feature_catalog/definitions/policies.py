"""How long and how much of a feature a device may keep, and how it gets at cloud features."""

import datetime as dt
from dataclasses import dataclass

from device_runtime.feature_policies import CacheMode, Network, OnFull, OnMiss
from feature_catalog.definitions.bounds import checked_choice, checked_whole
from feature_catalog.definitions.errors import PolicyConflict
from feature_catalog.definitions.quantities import checked_bytes, checked_duration

MAX_RECORDS = 10_000_000


@dataclass(frozen=True)
class Retention:
    """Which of a view's events a device keeps. What exceeds any limit goes.

    Attributes:
        max_age: Older events go.
        on_full: Which go when ``max_records`` or ``max_bytes`` are reached.

    Raises:
        DefinitionError: If a limit is impossible, or the events could fill a device.
    """

    max_age: dt.timedelta | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    on_full: OnFull = OnFull.DROP_OLDEST

    def __post_init__(self) -> None:
        if self.max_age is not None:
            checked_duration(self.max_age, "max_age")
        if self.max_records is not None:
            checked_whole(self.max_records, "max_records", 1, MAX_RECORDS)
        if self.max_bytes is not None:
            checked_bytes(self.max_bytes, "max_bytes")
        object.__setattr__(self, "on_full", checked_choice(self.on_full, "on_full", OnFull))
        if self.max_records is None and self.max_bytes is None:
            raise PolicyConflict(
                "has neither max_records nor max_bytes, so a busy day could fill a device; "
                "add one of them (max_age bounds how old events get, not how many)"
            )


@dataclass(frozen=True)
class CachePolicy:
    """How devices keep a cloud view's features.

    Attributes:
        max_age: How old a served value may be, counted from when the cloud sent it.
        max_bytes: Of all the view's values on one device, processed ones included.
        max_rows: Number of those values.

    Raises:
        DefinitionError: If a limit is impossible or has no meaning with the mode.
    """

    mode: CacheMode = CacheMode.NEVER
    max_age: dt.timedelta | None = None
    max_bytes: int | None = None
    max_rows: int | None = None
    network: Network = Network.UNMETERED
    on_miss: OnMiss = OnMiss.FETCH

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", checked_choice(self.mode, "mode", CacheMode))
        if self.max_age is not None:
            checked_duration(self.max_age, "max_age")
        if self.max_bytes is not None:
            checked_bytes(self.max_bytes, "max_bytes")
        if self.max_rows is not None:
            checked_whole(self.max_rows, "max_rows", 1, MAX_RECORDS)
        object.__setattr__(self, "network", checked_choice(self.network, "network", Network))
        object.__setattr__(self, "on_miss", checked_choice(self.on_miss, "on_miss", OnMiss))
        if self.mode is CacheMode.NEVER:
            for key in ("max_age", "max_bytes", "max_rows"):
                if getattr(self, key) is not None:
                    raise PolicyConflict(
                        f"limits what a cache keeps, and mode: never keeps nothing; remove {key}, "
                        "or use mode: on_demand",
                        key=key,
                    )
        elif self.max_bytes is None:
            raise PolicyConflict(
                f"is missing, and mode: {self.mode} keeps values on the device; say how many "
                "bytes of them, e.g. 2MB",
                key="max_bytes",
            )
        if self.mode is CacheMode.BUNDLED and self.on_miss is OnMiss.FETCH:
            raise PolicyConflict(
                "= fetch (which it is where nothing is said) has no meaning with mode: bundled, "
                "whose values come with the app; say on_miss: default or skip_example",
                key="on_miss",
            )
