"""Entity rows as callers give them, and the keys of views in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from device_runtime.feature_values import encode_key
from feature_catalog.definitions import Dtype
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.online.errors import InvalidEntityRow
from feature_catalog.online.online_view import JoinKey, OnlineView

EntityRows: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pa.Table
"""Rows as mappings, or columns by name, or a table."""

_BITS = {Dtype.INT32: 31, Dtype.INT64: 63}


@dataclass(frozen=True, slots=True)
class ViewKeys:
    """Keys of one view in entity rows.

    Attributes:
        keys: Each once, encoded.
        places: Which of them each entity row has; None: row by row.
    """

    keys: Sequence[bytes]
    places: Sequence[int] | None

    def spread(self, values: list[Any]) -> list[Any]:
        """One value a key as one an entity row."""
        return values if self.places is None else [values[place] for place in self.places]


def entity_columns(given: EntityRows) -> dict[str, list[Any]]:
    """Entity rows as columns of plain values, all of one length.

    Raises:
        InvalidEntityRow: If rows lack columns that others have, or columns differ in length.
    """
    if isinstance(given, pa.Table):
        return {name: given[name].to_pylist() for name in given.column_names}
    if isinstance(given, Mapping):
        columns = {name: list(values) for name, values in given.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise InvalidEntityRow(
                f"the columns of the entity rows have different lengths ({shown}); give each as "
                "many values"
            )
        return columns
    names = list(given[0]) if given else []
    try:
        columns = {name: [row[name] for row in given] for name in names}
    except KeyError as error:
        (name,) = error.args
        place = next(i for i, row in enumerate(given) if name not in row)
        raise InvalidEntityRow(
            f"entity row {place} has no {name}, which row 0 has; give all rows the same keys"
        ) from None
    return columns


def keys_of(columns: Mapping[str, list[Any]], view: OnlineView) -> ViewKeys:
    """The keys of a view in entity rows.

    Raises:
        InvalidEntityRow: If a join key is not there, is missing in a row, or of another type.
    """
    parts = [_checked(columns, key, view) for key in view.join_keys]
    if len(parts) == 1:
        values = parts[0]
        known = dict.fromkeys(values)
        if len(known) == len(values):
            return ViewKeys([encode_key((value,)) for value in values], None)
        encoded = [encode_key((value,)) for value in known]
        places = {value: place for place, value in enumerate(known)}
        return ViewKeys(encoded, [places[value] for value in values])
    rows = list(zip(*parts, strict=True))
    places_of = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    return ViewKeys([encode_key(row) for row in places_of], [places_of[row] for row in rows])


def _checked(columns: Mapping[str, list[Any]], key: JoinKey, view: OnlineView) -> list[Any]:
    values = columns.get(key.name)
    if values is None:
        names = list(columns)
        raise InvalidEntityRow(
            f"the entity rows have no {key.name}{did_you_mean(key.name, names)}, a join key of "
            f"{view.name}; they have {listed(names) if names else 'nothing'}"
        )
    wanted = str if key.dtype is Dtype.STRING else int
    if all(type(value) is wanted for value in values):
        if wanted is int:
            _check_range(values, key)
        else:
            _check_text(values, key)
        return values
    if wanted is int and all(map(_is_whole, values)):
        return _checked({key.name: [int(value) for value in values]}, key, view)
    place = next(i for i, value in enumerate(values) if type(value) is not wanted)
    found = values[place]
    if found is None:
        raise InvalidEntityRow(
            f"entity row {place} has no value of {key.name}, a join key of {view.name}; leave the "
            "row out, or give it one"
        )
    raise InvalidEntityRow(
        f"entity row {place} has {key.name} = {found!r:.80}, of type {type(found).__name__}, and "
        f"the join key is of type {key.dtype}: keys are compared exactly; convert it"
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_range(values: list[int], key: JoinKey) -> None:
    bits = _BITS[key.dtype]
    for place, value in enumerate(values):
        if not -(2**bits) <= value < 2**bits:
            raise InvalidEntityRow(
                f"entity row {place} has {key.name} = {value!r:.80}, which does not fit "
                f"{key.dtype}; correct it"
            )


def _check_text(values: list[str], key: JoinKey) -> None:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        raise InvalidEntityRow(
            f"a value of {key.name} in the entity rows has a lone surrogate, which no text in "
            "UTF-8 holds; clean the text"
        ) from None
