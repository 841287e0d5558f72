"""The newest row of each key of a source, as one SQL statement for Postgres and DuckDB alike.

Equally new rows are told apart as in point-in-time joins (`feature_catalog.offline.newest_rows`),
so that a model is served what it was trained on: by ``created_ts``, then by the values themselves.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, cast

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
from feature_catalog.online.moments import moment_of
from feature_catalog.online.source_rows import Interval, RowColumns

_NUMBER = "number"
_BEGINNING = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


def newest_by_key(source: SourceColumns, interval: Interval) -> Select[Any]:
    """The newest row of each key in an interval.

    Returns:
        A query of ``k0``..., ``event``, ``created`` (where the source has it) and ``f0``..., a row
        a key, in any order.
    """
    names = RowColumns.of(source)
    times = [source.event_ts, *([] if source.created_ts is None else [source.created_ts])]
    given = zip(
        (*names.keys, *names.times, *names.fields),
        (*source.keys, *times, *source.fields),
        strict=True,
    )
    numbered = (
        select(
            *(part.label(name) for name, part in given),
            func.row_number()
            .over(
                partition_by=list(source.keys),
                order_by=[
                    part.desc().nulls_last()
                    for part in (*times, *(_bytewise(field) for field in source.fields))
                ],
            )
            .label(_NUMBER),
        )
        .select_from(source.table)
        .where(_within(source, interval), *(key.is_not(None) for key in source.keys))
        .subquery("numbered")
    )
    wanted = [column for column in numbered.c if column.name != _NUMBER]
    statement: Any = select(*wanted).where(numbered.c[_NUMBER] == 1)
    return cast(Select[Any], statement)


def left_out(source: SourceColumns, interval: Interval) -> list[ColumnElement[bool]]:
    """Which rows are not read though they may be of an interval, for a column of theirs is NULL.

    Returns:
        A condition for each key, for ``event_ts``, and for ``created_ts`` where the source has it;
        no row meets two.
    """
    parts = [*source.keys, source.event_ts]
    if source.created_ts is not None:
        parts.append(source.created_ts)
    event = source.event_ts
    may_be_of_it = or_(event.is_(None), and_(event > _start(interval), event <= _end(interval)))
    return [
        and_(part.is_(None), *(each.is_not(None) for each in parts[:place]), may_be_of_it)
        for place, part in enumerate(parts)
    ]


def counts(source: SourceColumns, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """How many rows of a source meet each condition: one row."""
    # The condition of all lets an index of a table be used.
    statement: Any = (
        select(*(func.count().filter(each) for each in conditions))
        .select_from(source.table)
        .where(or_(*conditions))
    )
    return cast(Select[Any], statement)


def _within(source: SourceColumns, interval: Interval) -> ColumnElement[bool]:
    """Whether a row is in an interval; one whose times are not known is in none."""
    start = _start(interval)
    since = source.event_ts > start
    is_known: list[ColumnElement[bool]] = []
    if source.created_ts is not None:
        is_known.append(source.created_ts.is_not(None))
        if interval.with_late:
            since = or_(since, source.created_ts > start)
    return and_(source.event_ts <= _end(interval), since, *is_known, *source.conditions)


def _bytewise(field: ColumnElement[Any]) -> ColumnElement[Any]:
    """Text in an order that does not depend on a database's language."""
    return collate(field, "C") if isinstance(field.type, String) else field


def _start(interval: Interval) -> ColumnElement[Any]:
    start_us = interval.start_us
    return _moment(_BEGINNING if start_us is None else moment_of(start_us))


def _end(interval: Interval) -> ColumnElement[Any]:
    return _moment(moment_of(interval.end_us))


def _moment(value: dt.datetime) -> ColumnElement[Any]:
    return literal(value, DateTime(timezone=True))
