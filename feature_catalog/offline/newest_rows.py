"""The point-in-time join as one SQL statement, for Postgres and DuckDB alike.

For each asked row: of the source's rows of its keys that were true and written by its moment, the
newest. The usual forms are not right or not quick here: an as-of join finds the newest row by one
time only, and with two (when a row became true, when it was written) the newest true row may not
have been written yet; and a query for each row looks through many. So:

1. Number the source's rows of each key from oldest to newest (`event_ts`, then `created_ts`, then
   the values themselves, so that the order never depends on how rows are stored).
2. A row is visible from ``max(event_ts, created_ts)`` on. Sort source rows and asked rows of a key
   together by these moments, and run along with the maximum of the numbers: at an asked row it is
   the newest visible row's.
3. Join the numbers back to their rows.

Two sorts and a join, O(n log n) whatever the distribution of keys, late rows and ties. Where a
table is much larger than what is asked of it and has an index by key and time,
`newest_rows_by_index` looks each row up instead, and finds the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    SelectBase,
    String,
    and_,
    cast,
    collate,
    exists,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)

from feature_catalog.offline.entity_rows import MOMENT, ROW

EVENT = "event"
"""Column of the result: ``event_ts`` of the row found, null where none was."""


@dataclass(frozen=True, slots=True)
class SourceColumns:
    """What a source's rows are made of, as SQL expressions over its columns.

    Attributes:
        table: The source.
        keys: Join keys, in the order of the asked rows' ``k0``, ``k1``...
        event_ts: Timestamp with time zone; rows where it is null are left out.
        created_ts: The same, if the source has it.
        fields: Every field of the view, in order of name: by these equally new rows are ordered.
        conditions: Of the rows that count.
    """

    table: FromClause
    keys: Sequence[ColumnElement[Any]]
    event_ts: ColumnElement[Any]
    created_ts: ColumnElement[Any] | None
    fields: Sequence[ColumnElement[Any]]
    conditions: Sequence[ColumnElement[bool]] = ()


def newest_rows(asked: FromClause, source: SourceColumns, wanted: Sequence[int]) -> SelectBase:
    """The newest visible row for each asked row.

    Args:
        asked: Table with `ROW`, ``k0``..., `MOMENT`.
        wanted: Which of the source's fields the result has, by their place.

    Returns:
        A query of `ROW`, `EVENT` and ``f<place>`` of each wanted field; one row for each asked
        row, in any order.
    """
    keys = [f"k{place}" for place in range(len(source.keys))]
    known = _known_rows(asked, source).cte("known")
    order = [known.c.event, *([known.c.created] if source.created_ts is not None else [])]
    numbered = select(
        known,
        func.row_number()
        .over(
            partition_by=[known.c[key] for key in keys],
            order_by=[part.asc().nulls_first() for part in (*order, *_tie_order(known, source))],
        )
        .label("number"),
    ).cte("numbered")
    line = union_all(
        select(
            *(numbered.c[key] for key in keys),
            numbered.c.visible.label("at"),
            numbered.c.number,
            cast(null(), BigInteger).label(ROW),
        ),
        select(
            *(asked.c[key] for key in keys),
            asked.c[MOMENT].label("at"),
            cast(null(), BigInteger).label("number"),
            asked.c[ROW],
        ),
    ).subquery("line")
    newest = select(
        *(line.c[key] for key in keys),
        line.c[ROW],
        func.max(line.c.number)
        .over(
            partition_by=[line.c[key] for key in keys],
            order_by=line.c.at,
            range_=(None, 0),  # a row written at the very moment is visible
        )
        .label("number"),
    ).subquery("newest")
    found = select(newest).where(newest.c[ROW].is_not(null())).subquery("found")
    same = and_(
        found.c.number == numbered.c.number, *(found.c[key] == numbered.c[key] for key in keys)
    )
    return select(
        found.c[ROW],
        numbered.c.event.label(EVENT),
        *(numbered.c[f"f{place}"] for place in wanted),
    ).select_from(found.outerjoin(numbered, same))


def newest_rows_by_index(
    asked: FromClause, source: SourceColumns, wanted: Sequence[int]
) -> SelectBase:
    """What `newest_rows` gives, by a look-up for each asked row.

    An index of the keys and ``event_ts`` makes it quick; without one, each reads the whole source.
    """
    times = [source.event_ts, *([] if source.created_ts is None else [source.created_ts])]
    fields = [
        collate(field, "C") if isinstance(field.type, String) else field for field in source.fields
    ]
    newest = (
        select(
            source.event_ts.label(EVENT),
            *(source.fields[place].label(f"f{place}") for place in wanted),
        )
        .select_from(source.table)
        .where(
            *(key == asked.c[f"k{place}"] for place, key in enumerate(source.keys)),
            *(time <= asked.c[MOMENT] for time in times),
            *source.conditions,
        )
        .order_by(
            *(time.desc() for time in times), *(field.desc().nulls_last() for field in fields)
        )
        .limit(1)
        .lateral("newest")
    )
    return select(
        asked.c[ROW], newest.c[EVENT], *(newest.c[f"f{place}"] for place in wanted)
    ).select_from(asked.outerjoin(newest, true()))


def _known_rows(asked: FromClause, source: SourceColumns) -> SelectBase:
    """Rows of the source whose keys are asked for and whose times are known."""
    is_asked = exists(literal(1)).where(
        *(asked.c[f"k{place}"] == key for place, key in enumerate(source.keys))
    )
    times = [source.event_ts.label("event")]
    visible = source.event_ts
    known = [source.event_ts.is_not(null())]
    if source.created_ts is not None:
        times.append(source.created_ts.label("created"))
        visible = func.greatest(source.event_ts, source.created_ts)
        known.append(source.created_ts.is_not(null()))
    return (
        select(
            *(key.label(f"k{place}") for place, key in enumerate(source.keys)),
            *times,
            visible.label("visible"),
            *(field.label(f"f{place}") for place, field in enumerate(source.fields)),
        )
        .select_from(source.table)
        .where(*known, *source.conditions, is_asked)
    )


def _tie_order(known: FromClause, source: SourceColumns) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = [
        known.c[f"f{place}"] for place in range(len(source.fields))
    ]
    # By bytes: a database's own order of text depends on where it runs.
    return [collate(c, "C") if isinstance(c.type, String) else c for c in columns]
