"""A cloud view as the online tables hold it, and the number its values are stored under.

The number follows from what decides the values: join keys, source and fields. So a view that only
gets another owner, ttl or cache policy keeps its values; one whose keys, source or fields change
has none until it is materialised, and what its former definition had stays beside it.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from feature_catalog.definitions import CloudSource, Dtype, Field
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.plain import canonical_json, to_plain
from feature_catalog.online.errors import NotServedOnline

_VALUE_SET_BYTES = 8


@dataclass(frozen=True, slots=True)
class JoinKey:
    """A column that tells one entity from another."""

    name: str
    dtype: Dtype


@dataclass(frozen=True)
class OnlineView:
    """What is stored of one cloud view, and how it is read.

    Attributes:
        join_keys: In the order in which `device_runtime.feature_values.encode_key` takes values:
            entities by name, each one's keys by name.
        fields: By name.
        ttl_s: How long a value is true after its event; None: until the next.
    """

    name: str
    join_keys: tuple[JoinKey, ...]
    fields: tuple[Field, ...]
    source: CloudSource
    ttl_s: float | None = None

    @classmethod
    def of(cls, definitions: DefinitionSet, name: str) -> "OnlineView":
        """The view of that name in a set that `check_set` has accepted.

        Raises:
            NotServedOnline: If there is none, or its values are made on devices.
        """
        view = definitions.view(name)
        if view is None:
            names = definitions.names("feature_view")
            there = f"; there are {listed(names)}" if names else "; there are none yet"
            raise NotServedOnline(
                f"there is no feature view {name!r}{did_you_mean(name, names)}{there}"
            )
        if not isinstance(view.source, CloudSource):
            raise NotServedOnline(
                f"the values of {name} are made on devices and never leave them; only views with a "
                "source in the cloud have online values"
            )
        entities = [definitions.entity(each) for each in view.entities]
        keys = [
            JoinKey(key, entity.dtype)
            for entity in entities
            if entity is not None
            for key in entity.join_keys
        ]
        ttl_s = None if view.ttl is None else view.ttl.total_seconds()
        return cls(view.name, tuple(keys), view.schema, view.source, ttl_s)

    @cached_property
    def layout_json(self) -> str:
        """Canonical JSON of all that decides what is stored."""
        return canonical_json(
            {
                "view": self.name,
                "join_keys": [[key.name, str(key.dtype)] for key in self.join_keys],
                "fields": [[f.name, str(f.dtype), list(f.shape)] for f in self.fields],
                "source": to_plain(self.source),
            }
        )

    @cached_property
    def sha256(self) -> bytes:
        """Digest of `layout_json`."""
        return hashlib.sha256(self.layout_json.encode()).digest()

    @cached_property
    def value_set(self) -> int:
        """Number the values are stored under: 64 bits of the digest, signed."""
        return int.from_bytes(self.sha256[:_VALUE_SET_BYTES], "big", signed=True)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where in a stored row each field stands."""
        return {field.name: place for place, field in enumerate(self.fields)}


def online_views(definitions: DefinitionSet) -> tuple[OnlineView, ...]:
    """Every view with a source in the cloud, by name."""
    views = ((name, definitions.view(name)) for name in definitions.names("feature_view"))
    return tuple(
        OnlineView.of(definitions, name)
        for name, view in views
        if view is not None and not view.is_on_device
    )
