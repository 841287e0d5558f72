"""Definitions as plain values: what YAML files hold, and, made canonical, what the registry keeps.

One reader serves both, so a definition read back from the registry is the one that was applied, and
what `to_plain` gives can be pasted into a file.
"""

import dataclasses
import datetime as dt
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.errors import (
    InvalidDefinition,
    UnknownDefinitionKey,
    did_you_mean,
    refuse,
    shown,
    spelt,
    within,
)
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.fields import Entity, Field
from feature_catalog.definitions.policies import CachePolicy, Retention
from feature_catalog.definitions.quantities import format_duration, parse_bytes, parse_duration
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.sources import CloudSource, DeviceSource
from feature_catalog.definitions.transforms import Transform
from feature_catalog.definitions.views import FeatureView

Definition = Entity | Asset | FeatureView | FeatureService
DEFINITIONS: Mapping[str, type[Definition]] = {
    cls.kind: cls for cls in (Entity, Asset, FeatureView, FeatureService)
}
"""By kind, in the order in which they build on each other."""

Built = TypeVar("Built")
Reader = Callable[[object, str], object]


def to_plain(definition: object) -> dict[str, Any]:
    """A definition as mappings, lists, texts and numbers; what is empty is left out.

    >>> to_plain(Entity("user", join_keys=("user_id",)))
    {'name': 'user', 'join_keys': ['user_id'], 'dtype': 'string'}
    """
    plain = {}
    for field in dataclasses.fields(definition):  # type: ignore[arg-type]
        value = _plain(getattr(definition, field.name))
        if value is not None and value not in ("", [], {}):
            plain[field.name] = value
    if isinstance(definition, Field) and definition.default is not None:
        plain["default"] = definition.default  # an empty text is a default too
    return plain


def canonical_json(plain: object) -> str:
    """The one way plain values are written: keys sorted, no spaces, ASCII; floats as Python's."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(definition: Definition) -> str:
    """SHA-256 of a definition's canonical JSON, hexadecimal."""
    text = canonical_json(to_plain(definition))
    return hashlib.sha256(text.encode()).hexdigest()


def from_plain(kind: str, raw: object) -> Definition:
    """Build a definition of a kind from plain values.

    Raises:
        DefinitionError: If the values are not those of such a definition; its key is the path
            within.
    """
    return _build(DEFINITIONS[kind], raw)


def _build(cls: type[Built], raw: object) -> Built:
    if not isinstance(raw, Mapping):
        raise InvalidDefinition(f"= {shown(raw)} is not possible; it must be a block of keys")
    parameters = inspect.signature(cls).parameters
    for key in raw:
        if key not in parameters:
            raise UnknownDefinitionKey(
                f"is not a known key{did_you_mean(key, list(parameters))}; known are "
                f"{', '.join(sorted(parameters))}",
                key=spelt(key),
            )
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in raw:
            raise InvalidDefinition("is missing; add it", key=name)
    readers = _READERS.get(cls, {})
    values = {}
    for name, value in raw.items():
        if value is None:
            refuse(name, value, "given a value, or left out")
        values[name] = readers[name](value, name) if name in readers else value
    return cls(**values)


def _block(cls: type[object]) -> Reader:
    def read(raw: object, key: str) -> object:
        with within(key):
            return _build(cls, raw)

    return read


def _list_of(read: Reader) -> Reader:
    def read_list(raw: object, key: str) -> object:
        if not isinstance(raw, list):
            refuse(key, raw, "a list")
        return [read(item, f"{key}[{index}]") for index, item in enumerate(raw)]

    return read_list


def _source(raw: object, key: str) -> object:
    is_event = isinstance(raw, Mapping) and "event" in raw
    return _block(DeviceSource if is_event else CloudSource)(raw, key)


def _feature(raw: object, key: str) -> object:
    return raw if isinstance(raw, str) else _block(Feature)(raw, key)


_READERS: Mapping[type[object], Mapping[str, Reader]] = {
    DeviceSource: {"schema": _list_of(_block(Field))},
    Retention: {"max_age": parse_duration, "max_bytes": parse_bytes},
    CachePolicy: {"max_age": parse_duration, "max_bytes": parse_bytes},
    Asset: {"size_bytes": parse_bytes},
    FeatureView: {
        "source": _source,
        "schema": _list_of(_block(Field)),
        "ttl": parse_duration,
        "retention": _block(Retention),
        "cache": _block(CachePolicy),
    },
    Feature: {"transforms": _list_of(_block(Transform))},
    FeatureService: {"features": _list_of(_feature)},
}


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dt.timedelta):
        return format_duration(value)
    if isinstance(value, str):
        return str(value)  # also the words of an enumeration
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    return value
