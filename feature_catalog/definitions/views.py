"""Feature views: named features of an entity, from one source, with what devices may do."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, overload

from device_runtime.feature_policies import OnMiss
from feature_catalog.definitions.bounds import (
    MAX_SHORT_CHARACTERS,
    checked_list,
    checked_name,
    checked_text,
    distinct,
)
from feature_catalog.definitions.errors import (
    InvalidDefinition,
    PolicyConflict,
    did_you_mean,
    refuse,
)
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.fields import (
    MAX_JOIN_KEYS,
    Entity,
    Field,
    checked_documentation,
    checked_fields,
    names_of,
)
from feature_catalog.definitions.policies import CachePolicy, Retention
from feature_catalog.definitions.quantities import checked_duration, format_duration
from feature_catalog.definitions.sources import CloudSource, DeviceSource

MAX_AUDIENCE = 100

Source = CloudSource | DeviceSource


@dataclass(frozen=True, init=False)
class FeatureView:
    """Features of one entity (or several) that come from one source.

    ``view["ctr"]`` and ``view[["ctr", "age"]]`` are features for a service; the view itself stands
    for all.

    Attributes:
        entities: Names of what the features are of.
        schema: The features. Of a device view left out: all that the event holds.
        ttl: How long a value is true after its event; None: until the next.
        retention: Of a device view: which events a device keeps.
        cache: Of a cloud view: how devices keep its values.
        audience: Host apps among which a device may share the view's values, by application id;
            without any, each app keeps its own.

    Raises:
        DefinitionError: If an attribute is impossible, or policies contradict each other.
    """

    kind: ClassVar[str] = "feature_view"

    name: str
    entities: tuple[str, ...]
    source: Source
    schema: tuple[Field, ...]
    ttl: dt.timedelta | None
    retention: Retention | None
    cache: CachePolicy | None
    audience: tuple[str, ...]
    description: str
    owner: str
    tags: Mapping[str, str]

    def __init__(
        self,
        name: str,
        *,
        entities: Iterable[Entity | str],
        source: Source,
        schema: Iterable[Field] = (),
        ttl: dt.timedelta | None = None,
        retention: Retention | None = None,
        cache: CachePolicy | None = None,
        audience: Iterable[str] = (),
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        fixed = object.__setattr__
        fixed(self, "name", checked_name(name))
        fixed(self, "entities", names_of(entities, "entities", MAX_JOIN_KEYS, Entity, least=1))
        if not isinstance(source, CloudSource | DeviceSource):
            refuse("source", source, "a CloudSource or a DeviceSource")
        fixed(self, "source", source)
        fixed(self, "schema", _checked_schema(checked_fields(schema), source))
        fixed(self, "ttl", None if ttl is None else checked_duration(ttl, "ttl"))
        fixed(self, "retention", retention)
        fixed(self, "cache", cache)
        apps = [
            checked_text(app, f"audience[{i}]", MAX_SHORT_CHARACTERS)
            for i, app in enumerate(checked_list(audience, "audience", MAX_AUDIENCE))
        ]
        distinct(apps, "audience", "the app")
        fixed(self, "audience", tuple(sorted(apps)))
        fixed(self, "description", description)
        fixed(self, "owner", owner)
        fixed(self, "tags", tags)
        documented = checked_documentation(self.owner, self.description, self.tags)
        object.__setattr__(self, "tags", documented)
        self._check_policies()

    @property
    def is_on_device(self) -> bool:
        """Whether the values are made on the device."""
        return isinstance(self.source, DeviceSource)

    def field(self, name: str) -> Field | None:
        """The field of that name, if there is one."""
        return next((field for field in self.schema if field.name == name), None)

    @overload
    def __getitem__(self, names: str) -> Feature: ...

    @overload
    def __getitem__(self, names: list[str]) -> tuple[Feature, ...]: ...

    def __getitem__(self, names: str | list[str]) -> Feature | tuple[Feature, ...]:
        """One feature, or several, for a service.

        Raises:
            InvalidDefinition: If the view has no such field.
        """
        if not isinstance(names, str):
            return tuple(self[name] for name in names)
        if self.field(names) is None:
            known = [field.name for field in self.schema]
            raise InvalidDefinition(
                f"{self.name} has no field {names!r}{did_you_mean(names, known)}; it has "
                f"{', '.join(known)}"
            )
        return Feature(f"{self.name}:{names}")

    def __hash__(self) -> int:
        return hash((self.kind, self.name))

    def _check_policies(self) -> None:
        if self.is_on_device:
            self._check_device_policies()
        else:
            self._check_cloud_policies()

    def _check_device_policies(self) -> None:
        if self.cache is not None:
            raise PolicyConflict(
                "is how devices keep what comes from the cloud, and these values are made on the "
                "device; remove it, and bound what is kept with retention",
                key="cache",
            )
        if self.retention is None:
            raise PolicyConflict(
                "is missing: which events a device keeps; add e.g. {max_age: 30d, max_bytes: 2MB}",
                key="retention",
            )
        if not isinstance(self.retention, Retention):
            refuse("retention", self.retention, "a Retention")
        kept = self.retention.max_age
        if self.ttl is not None and kept is not None and self.ttl > kept:
            raise PolicyConflict(
                f"= {format_duration(self.ttl)} asks for events that retention.max_age "
                f"({format_duration(kept)}) has deleted; lower ttl, or raise retention.max_age",
                key="ttl",
            )

    def _check_cloud_policies(self) -> None:
        if self.retention is not None:
            raise PolicyConflict(
                "is which events a device keeps of those made on it, and these values come from "
                "the cloud; remove it: ttl says how long a value is true, cache how long and how "
                "much of it a device keeps",
                key="retention",
            )
        if self.cache is None:
            object.__setattr__(self, "cache", CachePolicy())
        elif not isinstance(self.cache, CachePolicy):
            refuse("cache", self.cache, "a CachePolicy")
        bare = next((field.name for field in self.schema if field.default is None), None)
        if self.cache is not None and self.cache.on_miss is OnMiss.DEFAULT and bare is not None:
            raise PolicyConflict(
                f"= default, and the field {bare} has no default to take; give it one, or say "
                "on_miss: fetch or skip_example",
                key="cache.on_miss",
            )
        kept = None if self.cache is None else self.cache.max_age
        if self.ttl is not None and kept is not None and kept > self.ttl:
            raise PolicyConflict(
                f"= {format_duration(kept)} is longer than ttl ({format_duration(self.ttl)}): "
                "devices would use values that training data leave out as too old; lower it, or "
                "raise ttl",
                key="cache.max_age",
            )


def _checked_schema(schema: tuple[Field, ...], source: Source) -> tuple[Field, ...]:
    """A view's fields, which of a device view are those of its event, or some of them."""
    if isinstance(source, CloudSource):
        if not schema:
            refuse("schema", (), "a list with at least one field")
        for time in (source.event_ts, source.created_ts):
            if any(field.name == time for field in schema):
                refuse("schema", time, "without the source's columns of time, which are no feature")
        return schema
    recorded = {field.name: field for field in source.schema}
    for field in schema:
        found = recorded.get(field.name)
        if found is None:
            raise InvalidDefinition(
                f"has {field.name}, which the event {source.event} does not hold"
                f"{did_you_mean(field.name, list(recorded))}; it holds {', '.join(recorded)}",
                key="schema",
            )
        if (found.dtype, found.shape) != (field.dtype, field.shape):
            raise InvalidDefinition(
                f"says that {field.name} is {field.dtype} {list(field.shape)}, and the event "
                f"{source.event} that it is {found.dtype} {list(found.shape)}; make them equal",
                key="schema",
            )
    return schema or source.schema
