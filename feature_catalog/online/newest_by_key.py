"""The newest row of each key of a source, as one SQL statement for Postgres and DuckDB alike.

Equally new rows are told apart as in point-in-time joins (`feature_catalog.offline.newest_rows`),
so that a model is served what it was trained on: by ``created_ts``, then by the values themselves.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    String,
    and_,
    collate,
    func,
    literal,
    or_,
    select,
)

from feature_catalog.offline.newest_rows import SourceColumns

NUMBER = "number"

_BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Interval:
    """Which rows of a source are read.

    Attributes:
        start: Rows that became true after it; None: from the first.
        end: Up to and with it.
        with_late: Also rows that became true before ``start`` and were written after it, where the
            source says when rows were written.
    """

    start: dt.datetime | None
    end: dt.datetime
    with_late: bool = False


def newest_by_key(source: SourceColumns, interval: Interval) -> Select[Any]:
    """The newest row of each key in an interval.

    Returns:
        A query of ``k0``..., ``event``, ``created`` (where the source has it) and ``f0``..., a row
        a key, in any order.
    """
    numbered = (
        select(
            *(key.label(f"k{place}") for place, key in enumerate(source.keys)),
            source.event_ts.label("event"),
            *([] if source.created_ts is None else [source.created_ts.label("created")]),
            *(field.label(f"f{place}") for place, field in enumerate(source.fields)),
            func.row_number()
            .over(partition_by=list(source.keys), order_by=_newest_first(source))
            .label(NUMBER),
        )
        .select_from(source.table)
        .where(within(source, interval), *(key.is_not(None) for key in source.keys))
        .subquery("numbered")
    )
    columns = [column for column in numbered.c if column.name != NUMBER]
    return select(*columns).where(numbered.c[NUMBER] == 1)


def within(source: SourceColumns, interval: Interval) -> ColumnElement[bool]:
    """Whether a row is in an interval; one whose times are not known is in none."""
    start = _moment(interval.start or _BEGINNING)
    since = source.event_ts > start
    is_known: list[ColumnElement[bool]] = []
    if source.created_ts is not None:
        is_known.append(source.created_ts.is_not(None))
        if interval.with_late:
            since = or_(since, source.created_ts > start)
    return and_(source.event_ts <= _moment(interval.end), since, *is_known)


def left_out(source: SourceColumns, key_names: list[str], times: list[str]) -> Select[Any]:
    """How many rows are read by no interval: one row of counts, by the column that is NULL.

    A row is counted once, under the first of: its keys, ``event_ts``, ``created_ts``.
    """
    parts = [*source.keys, source.event_ts]
    if source.created_ts is not None:
        parts.append(source.created_ts)
    counts = []
    for place, (name, part) in enumerate(zip([*key_names, *times], parts, strict=True)):
        before = (each.is_not(None) for each in parts[:place])
        counts.append(func.count().filter(and_(part.is_(None), *before)).label(name))
    return select(*counts).select_from(source.table)


def bytewise(column: ColumnElement[object]) -> ColumnElement[object]:
    """A column in an order that does not depend on a database's language."""
    ordered: ColumnElement[Any] = collate(column, "C")
    return ordered if isinstance(column.type, String) else column


def _newest_first(source: SourceColumns) -> list[ColumnElement[object]]:
    times = [source.event_ts, *([] if source.created_ts is None else [source.created_ts])]
    fields = [bytewise(field) for field in source.fields]
    return [part.desc().nulls_last() for part in (*times, *fields)]


def _moment(value: dt.datetime) -> ColumnElement[dt.datetime]:
    return literal(value.astimezone(dt.UTC), DateTime(timezone=True))
