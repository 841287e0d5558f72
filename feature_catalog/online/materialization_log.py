"""How far views are materialised: which intervals were read, and how far into one that is not done.

A run that was killed has a record without an end. The next one over the same interval goes on after
the last row that was written, as long as the source's files are what they were.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_not

from feature_catalog.audit_log import current_actor
from feature_catalog.online.errors import AlreadyMaterializing
from feature_catalog.online.moments import microseconds, moment_of
from feature_catalog.online.online_view import OnlineView
from feature_catalog.online.source_rows import Interval, LeftOut
from feature_catalog.online_schema import MaterializationRecord, OnlineValueSetRecord

_LOCKS = 0x464C4F4E
"""First half of the advisory locks, ours alone in this database; the second is of the value set."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A materialisation that is not done.

    Attributes:
        resume_after: Key of the last row that was written; None: none was.
        written: Keys gone through so far.
        total: Keys there are; None: not counted.
    """

    id: int
    interval: Interval
    resume_after: Sequence[Any] | None
    written: int
    total: int | None


@contextmanager
def only_one(engine: Engine, view: OnlineView) -> Iterator[None]:
    """Hold a view's values for oneself; whoever is killed lets go of them.

    Raises:
        AlreadyMaterializing: If another process has them.
    """
    key = (_LOCKS, view.value_set % 2**31)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(select(func.pg_try_advisory_lock(*key))).scalar_one():
            raise AlreadyMaterializing(
                f"{view.name} is being materialised by another process; wait until it is done"
            )
        try:
            yield
        finally:
            connection.execute(select(func.pg_advisory_unlock(*key)))


def materialized_until(engine: Engine, view: OnlineView) -> dt.datetime | None:
    """Up to when a view's source has been read; None: never."""
    record = OnlineValueSetRecord
    statement = select(record.materialized_until).where(record.value_set == view.value_set)
    with engine.connect() as connection:
        return connection.execute(statement).scalar_one_or_none()


def open_run(
    engine: Engine, view: OnlineView, interval: Interval, source_stamp: str, *, restart: bool
) -> OpenRun:
    """Begin a materialisation, or go on with one that was cut off.

    Args:
        restart: Begin anew in any case.
    """
    record = MaterializationRecord
    with engine.begin() as connection:
        _keep_value_set(connection, view)
        unfinished = connection.execute(
            select(record)
            .where(record.value_set == view.value_set, record.finished_at.is_(None))
            .order_by(record.id.desc())
            .limit(1)
        ).one_or_none()
        if unfinished is not None and not restart and _is_same(unfinished, interval, source_stamp):
            return OpenRun(
                unfinished.id,
                interval,
                unfinished.resume_after,
                unfinished.keys_written,
                unfinished.keys_total,
            )
        run_id = connection.execute(
            insert(record)
            .values(
                value_set=view.value_set,
                start_at=None if interval.start_us is None else moment_of(interval.start_us),
                end_at=moment_of(interval.end_us),
                is_incremental=interval.with_late,
                source_stamp=source_stamp,
                actor=current_actor(),
            )
            .returning(record.id)
        ).scalar_one()
    return OpenRun(run_id, interval, None, 0, None)


def unfinished_increment(engine: Engine, view: OnlineView) -> Interval | None:
    """The interval of the newest run, if it went on from the one before and was cut off."""
    record = MaterializationRecord
    statement = (
        select(record.start_at, record.end_at, record.is_incremental, record.finished_at)
        .where(record.value_set == view.value_set)
        .order_by(record.id.desc())
        .limit(1)
    )
    with engine.connect() as connection:
        found = connection.execute(statement).one_or_none()
    if found is None or found.finished_at is not None or not found.is_incremental:
        return None
    start_us = None if found.start_at is None else microseconds(found.start_at)
    return Interval(start_us, microseconds(found.end_at), with_late=True)


def first_window_start(engine: Engine, view: OnlineView) -> dt.datetime | None:
    """From when on runs without a start have read a view's source; None: from its first row.

    None also where the first run was told its start: then what is older is left out on purpose.
    """
    record = MaterializationRecord
    statement = (
        select(record.start_at, record.is_incremental)
        .where(record.value_set == view.value_set, record.finished_at.is_not(None))
        .order_by(record.id)
    )
    with engine.connect() as connection:
        runs = connection.execute(statement).all()
    if not runs or not runs[0].is_incremental:
        return None
    starts = [run.start_at for run in runs if run.is_incremental]
    return None if None in starts else min(starts)


def note_total(engine: Engine, run_id: int, total: int, skipped: Sequence[LeftOut]) -> None:
    """Keep what was found before the first row is written."""
    record = MaterializationRecord
    told = {each.column: {"rows": each.rows, "first": each.first} for each in skipped}
    with engine.begin() as connection:
        connection.execute(
            update(record).where(record.id == run_id).values(keys_total=total, skipped=told)
        )


def note_chunk(connection: Connection, run_id: int, last_key: Sequence[Any], keys: int) -> None:
    """Keep, with the rows themselves, how far they go."""
    record = MaterializationRecord
    connection.execute(
        update(record)
        .where(record.id == run_id)
        .values(
            resume_after=list(last_key),
            keys_written=record.keys_written + keys,
            chunks=record.chunks + 1,
        )
    )


def close_run(engine: Engine, view: OnlineView, run: OpenRun) -> None:
    """Keep that an interval has been read to its end.

    The moment up to which the view is materialised moves on to it, unless there is a gap before it.
    """
    record, value_set = MaterializationRecord, OnlineValueSetRecord
    start, end = run.interval.start_us, moment_of(run.interval.end_us)
    until = value_set.materialized_until
    reached = update(value_set).where(value_set.value_set == view.value_set)
    if start is not None:
        reached = reached.where(until.is_(None) | (until >= moment_of(start)))
    with engine.begin() as connection:
        connection.execute(update(record).where(record.id == run.id).values(finished_at=func.now()))
        connection.execute(reached.values(materialized_until=func.greatest(until, end)))


def _keep_value_set(connection: Connection, view: OnlineView) -> None:
    connection.execute(
        insert_or_not(OnlineValueSetRecord)
        .values(
            value_set=view.value_set,
            view=view.name,
            sha256=view.sha256,
            layout_json=view.layout_json,
        )
        .on_conflict_do_nothing()
    )


def _is_same(record: Any, interval: Interval, source_stamp: str) -> bool:  # noqa: ANN401
    start = None if interval.start_us is None else moment_of(interval.start_us)
    return bool(
        record.start_at == start
        and record.end_at == moment_of(interval.end_us)
        and record.is_incremental == interval.with_late
        and record.source_stamp == source_stamp
    )
