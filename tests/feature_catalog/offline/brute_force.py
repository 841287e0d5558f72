"""The rule of point-in-time joins, row by row in plain Python; nothing of the engines is in it."""

import math
from collections.abc import Mapping, Sequence

Row = Mapping[str, object]


def newest_known(
    source: Sequence[Row],
    key: tuple[object, ...],
    moment_us: int,
    *,
    keys: Sequence[str],
    fields: Sequence[str],
    ttl_us: int | None,
) -> Row | None:
    """The row that a feature's value is of, or None.

    Args:
        source: Rows with ``event_ts`` and, if it is known, ``created_ts``, microseconds.
        fields: All of the view, in order of name.
    """
    best: Row | None = None
    for row in source:
        if None in key or tuple(row[name] for name in keys) != key:
            continue
        event, created = row["event_ts"], row.get("created_ts", row["event_ts"])
        if event is None or created is None or event > moment_us or created > moment_us:
            continue
        if best is None or age_order(row, fields) > age_order(best, fields):
            best = row
    if best is not None and ttl_us is not None and not best["event_ts"] > moment_us - ttl_us:
        return None
    return best


def age_order(row: Row, fields: Sequence[str]) -> tuple[object, ...]:
    """Orders rows from oldest to newest."""
    created = row.get("created_ts", row["event_ts"])
    return (row["event_ts"], created, *(value_order(row[name]) for name in fields))


def value_order(value: object) -> tuple[int, object]:
    """NULL, then numbers and text in their order, then NaN."""
    if value is None:
        return (0, 0)
    if isinstance(value, float) and math.isnan(value):
        return (2, 0)
    return (1, value.encode() if isinstance(value, str) else value)
