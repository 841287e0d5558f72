"""What the online tables know of some keys of one view."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from device_runtime.columns import Column
from feature_catalog.definitions import Field
from feature_catalog.online.online_view import OnlineView


class ValueStatus(StrEnum):
    """What is known of one value, in Feast's words.

    ``PRESENT``: a value. ``NULL``: a row whose value is missing. ``NOT_FOUND``: no row of this key
    was true at that moment. ``OUTSIDE_MAX_AGE``: its row is older than the view's ttl, so its
    values count as missing, as they do in training data.
    """

    PRESENT = "PRESENT"
    NULL = "NULL"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"


@dataclass(frozen=True)
class ViewRows:
    """Rows of keys, in the order of the keys.

    Attributes:
        keys: As asked for.
        statuses: Of each key's row: `ValueStatus.PRESENT`, ``NOT_FOUND`` or ``OUTSIDE_MAX_AGE``.
        event_us: When each row became true, microseconds since 1970; None where there is none.
        rows: Each key's values in the order of the view's fields; None where none count.
    """

    view: OnlineView
    keys: Sequence[bytes]
    statuses: Sequence[ValueStatus]
    event_us: Sequence[int | None]
    rows: Sequence[list[Any] | None]

    def values(self, field: str) -> list[Any]:
        """A field's value of each key; None where it is missing. Arrays are nested lists."""
        place = self.view.places[field]
        found = list(self._by_place[place])
        shape = self.view.fields[place].shape
        if shape:
            return [None if value is None else _nested(value, shape) for value in found]
        return found

    def column(self, field: str) -> Column:
        """A field of all keys as transforms take it."""
        place = self.view.places[field]
        return column_of_stored(self._by_place[place], self.view.fields[place])

    def field_statuses(self, field: str) -> list[ValueStatus]:
        """What is known of a field's value of each key."""
        present, null = ValueStatus.PRESENT, ValueStatus.NULL
        values = self._by_place[self.view.places[field]]
        return [
            null if status is present and value is None else status
            for status, value in zip(self.statuses, values, strict=True)
        ]

    def age_s(self, at_us: int) -> list[float | None]:
        """How old each row is at a moment."""
        return [None if us is None else (at_us - us) / 1e6 for us in self.event_us]

    @cached_property
    def _by_place(self) -> list[tuple[Any, ...]]:
        nothing = [None] * len(self.view.fields)
        if not self.rows:
            return [()] * len(self.view.fields)
        return list(zip(*(nothing if row is None else row for row in self.rows), strict=True))


def column_of_stored(values: Sequence[Any], field: Field) -> Column:
    """Values of one field as they are stored, arrays as flat lists, as a column."""
    kind = field.dtype.column_kind
    if not field.shape:
        return Column.of(values, kind=kind)
    size = prod(field.shape)
    nothing = [None] * size
    flat = np.empty((len(values), size), object)
    for place, value in enumerate(values):
        flat[place] = nothing if value is None else value
    return Column.of(flat.reshape(len(values), *field.shape), kind=kind)


def _nested(flat: Sequence[Any], shape: tuple[int, ...]) -> list[Any]:
    """A flat list as one of lists, of a shape.

    >>> _nested([1, 2, 3, 4], (2, 2))
    [[1, 2], [3, 4]]
    """
    if len(shape) == 1:
        return list(flat)
    step = prod(shape[1:])
    return [_nested(flat[i : i + step], shape[1:]) for i in range(0, len(flat), step)]
