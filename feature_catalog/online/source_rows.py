"""What materialising needs of a source, whatever holds it, and the statements that find it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Select,
    collate,
    column,
    literal,
    select,
    table,
    tuple_,
)

from feature_catalog.definitions import CloudSource, Dtype
from feature_catalog.offline.newest_rows import SourceColumns

Keys = Sequence[tuple[str, Dtype]]
"""Join keys with their types, in the order of `OnlineView.join_keys`."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Which rows of a source are read.

    Attributes:
        start_us: Rows that became true after it, microseconds since 1970; None: from the first.
        end_us: Up to and with it.
        with_late: Also rows that became true before the start and were written after it, where the
            source says when rows were written.
    """

    start_us: int | None
    end_us: int
    with_late: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows of a source that may be of an interval, and are not read: a column of theirs is NULL.

    Attributes:
        first: Where the first of them stands; empty where rows have no place.
    """

    column: str
    rows: int
    first: str = ""


class SourceRows(Protocol):
    """A view's source, open for reading."""

    def stamp(self) -> str:
        """What changes when the source does; empty where that cannot be known."""
        ...

    def left_out(self, interval: Interval) -> tuple[LeftOut, ...]:
        """Rows that are not read, by column; a row counts once, under the first."""
        ...

    def find_newest(self, interval: Interval) -> int:
        """Find the newest row of each key in an interval; how many there are."""
        ...

    def field_types(self) -> Sequence[pa.DataType]:
        """Types of ``f0``... of the rows found."""
        ...

    def keys_found(self) -> Iterator[pa.Table]:
        """The keys of the rows found, ``k0``..., in any order."""
        ...

    def batches(self, after: Sequence[Any] | None, rows: int) -> Iterator[pa.Table]:
        """The rows found, in the order of their keys.

        Args:
            after: Key of the last row that is not wanted; None: from the first.
            rows: Of one batch, at most.

        Returns:
            Tables of ``k0``..., ``event_us``, ``created_us`` (where the source has it), ``f0``...
        """
        ...


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Names of the columns of rows found.

    Attributes:
        times: ``event``, and ``created`` where the source has it.
    """

    keys: tuple[str, ...]
    times: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, source: SourceColumns) -> "RowColumns":
        """Those of a source."""
        return cls(
            tuple(f"k{place}" for place in range(len(source.keys))),
            ("event",) if source.created_ts is None else ("event", "created"),
            tuple(f"f{place}" for place in range(len(source.fields))),
        )


def in_key_order(
    found_in: str,
    columns: RowColumns,
    times_us: Sequence[ColumnElement[Any]],
    keys: Keys,
    after: Sequence[Any] | None,
) -> Select[Any]:
    """Rows found, in the order of their keys: text by its bytes, numbers by size."""
    ordered: list[ColumnElement[Any]] = [
        collate(column(key), "C") if dtype is Dtype.STRING else column(key)
        for key, (_, dtype) in zip(columns.keys, keys, strict=True)
    ]
    found = [*map(column, columns.keys), *times_us, *map(column, columns.fields)]
    after_it = [] if after is None else [tuple_(*ordered) > tuple_(*map(literal, after))]
    statement: Any = select(*found).select_from(table(found_in)).where(*after_it)
    return cast(Select[Any], statement.order_by(*ordered))


def time_names(source: CloudSource) -> list[str]:
    """A source's columns of time."""
    return [name for name in (source.event_ts, source.created_ts) if name is not None]
