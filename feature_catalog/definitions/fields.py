"""Fields, their types, and the entities that features are of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from device_runtime.columns import Kind
from feature_catalog.definitions.bounds import (
    MAX_DESCRIPTION_CHARACTERS,
    checked_choice,
    checked_column,
    checked_list,
    checked_name,
    checked_tags,
    checked_text,
    checked_whole,
    distinct,
)
from feature_catalog.definitions.errors import refusal, refuse, within

MAX_FIELDS = 500
MAX_JOIN_KEYS = 8
MAX_DIMENSIONS = 4
MAX_DIMENSION = 65_536
MAX_DEFAULT_CHARACTERS = 200

Value = bool | int | float | str


class Dtype(StrEnum):
    """Type of one value."""

    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"

    @property
    def column_kind(self) -> Kind:
        """What transforms take such values as."""
        if self is Dtype.STRING:
            return Kind.STRING
        return Kind.FLOAT if self in {Dtype.FLOAT32, Dtype.FLOAT64} else Kind.INT


# As in feast.types.
Bool, Int32, Int64 = Dtype.BOOL, Dtype.INT32, Dtype.INT64
Float32, Float64 = Dtype.FLOAT32, Dtype.FLOAT64
String = Dtype.STRING


@dataclass(frozen=True)
class Field:
    """A named value of a feature view or an event.

    Attributes:
        shape: Of an array; empty for a single value.
        default: Stands for a value that a device does not have; without one, nothing may.

    Raises:
        InvalidDefinition: If an attribute is impossible.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...] = ()
    default: Value | None = None
    description: str = ""

    def __post_init__(self) -> None:
        checked_column(self.name)
        object.__setattr__(self, "dtype", checked_choice(self.dtype, "dtype", Dtype))
        sizes = checked_list(self.shape, "shape", MAX_DIMENSIONS)
        for index, size in enumerate(sizes):
            checked_whole(size, f"shape[{index}]", 1, MAX_DIMENSION)
        object.__setattr__(self, "shape", sizes)
        if self.default is not None:
            object.__setattr__(self, "default", _checked_default(self.default, self.dtype))
        checked_text(self.description, "description", MAX_DESCRIPTION_CHARACTERS)


@dataclass(frozen=True)
class Entity:
    """What features are of, e.g. a user; joined by one key or several.

    Attributes:
        join_keys: Columns that tell one from another; without any, the entity's name.
        dtype: Type of every join key.

    Raises:
        DefinitionError: If an attribute is impossible.
    """

    kind: ClassVar[str] = "entity"

    name: str
    join_keys: tuple[str, ...] = ()
    dtype: Dtype = Dtype.STRING
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_name(self.name)
        keys = checked_list(self.join_keys or (self.name,), "join_keys", MAX_JOIN_KEYS)
        columns = [checked_column(key, f"join_keys[{i}]") for i, key in enumerate(keys)]
        distinct(columns, "join_keys", "the key")
        object.__setattr__(self, "join_keys", tuple(sorted(columns)))
        dtype = checked_choice(self.dtype, "dtype", Dtype)
        if dtype not in {Dtype.STRING, Dtype.INT32, Dtype.INT64}:
            refuse("dtype", str(dtype), "string, int32 or int64: keys are compared exactly")
        object.__setattr__(self, "dtype", dtype)
        documented = checked_documentation(self.owner, self.description, self.tags)
        object.__setattr__(self, "tags", documented)

    def __hash__(self) -> int:
        return hash((self.kind, self.name))


def checked_fields(value: object, key: str = "schema") -> tuple[Field, ...]:
    """Fields by name, which tells them apart; their order means nothing."""
    items = checked_list(value, key, MAX_FIELDS)
    fields: list[Field] = []
    for index, item in enumerate(items):
        if not isinstance(item, Field):
            refuse(f"{key}[{index}]", item, "a Field")
        fields.append(item)
    distinct((field.name for field in fields), key, "the field")
    return tuple(sorted(fields, key=lambda field: field.name))


def checked_documentation(owner: object, description: object, tags: object) -> Mapping[str, str]:
    """Check what people read of a definition; its tags, in order."""
    checked_text(owner, "owner")
    checked_text(description, "description", MAX_DESCRIPTION_CHARACTERS)
    return checked_tags(tags)


def _checked_default(value: object, dtype: Dtype) -> Value:
    if dtype is Dtype.BOOL and isinstance(value, bool):
        return value
    if dtype in {Dtype.INT32, Dtype.INT64} and type(value) is int:
        bits = 31 if dtype is Dtype.INT32 else 63
        if -(2**bits) <= value < 2**bits:
            return value
    if dtype in {Dtype.FLOAT32, Dtype.FLOAT64} and type(value) in {int, float}:
        number = float(value)  # type: ignore[arg-type]
        if math.isfinite(number):
            return number
    if dtype is Dtype.STRING and isinstance(value, str):
        return checked_text(value, "default", MAX_DEFAULT_CHARACTERS)
    raise refusal("default", value, f"a value of type {dtype}")


def names_of(
    value: object, key: str, most: int, kind: type[Any], *, least: int = 0
) -> tuple[str, ...]:
    """Names of definitions, each given as itself or by its name; their order means nothing."""
    names = []
    for index, item in enumerate(checked_list(value, key, most, least=least)):
        with within(f"{key}[{index}]"):
            names.append(checked_name(item.name if isinstance(item, kind) else item, ""))
    distinct(names, key, "the name")
    return tuple(sorted(names))
