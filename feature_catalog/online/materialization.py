"""Brings the newest rows of views' sources into the online tables.

Rows are written in the order of their keys, some ten thousand a transaction, each of which also
keeps how far it went: a run that is killed is gone on with where it was. A row replaces another one
only if it is newer, so intervals may be repeated, overlap, and come in any order.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.served import served_features
from feature_catalog.definitions.views import FeatureView
from feature_catalog.online.encoded_batch import check_keys, encode_batch, last_key, may_be_unfit
from feature_catalog.online.errors import InvalidInterval, NotServedOnline
from feature_catalog.online.materialization_log import (
    OpenRun,
    close_run,
    first_window_start,
    materialized_until,
    note_chunk,
    note_total,
    only_one,
    open_run,
    unfinished_increment,
)
from feature_catalog.online.moments import microseconds, moment_of
from feature_catalog.online.online_view import OnlineView, online_views
from feature_catalog.online.parquet_rows import parquet_rows
from feature_catalog.online.source_rows import Interval, LeftOut, SourceRows
from feature_catalog.online.table_rows import table_rows
from feature_catalog.online.value_writer import write_rows

CHUNK_ROWS = 20_000

Progress = Callable[[str, int, int | None], None]
"""Told what is done, how many keys have been, and how many there are."""


@dataclass(frozen=True, slots=True)
class Materialized:
    """What became of one view.

    Attributes:
        start: Rows that became true after it were read; None: all up to ``end``.
        keys: Keys with a row in the interval.
        written: Of them those whose row is new, or took the place of an older or different one.
        skipped: Rows of the source that were not read, by the column that is NULL.
        resumed_after: Keys that an earlier run had written before it was cut off.
    """

    view: str
    start: dt.datetime | None
    end: dt.datetime
    keys: int
    written: int
    skipped: tuple[LeftOut, ...]
    resumed_after: int = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where views' sources are, and how they are read.

    Attributes:
        folder: Relative paths are under it.
        engine: Database of sources that are tables; None: the catalog's own.
        naive_is_utc: Take timestamps without a time zone as UTC.
    """

    folder: Path
    engine: Engine | None = None
    naive_is_utc: bool = False


def materialize(
    engine: Engine,
    definitions: DefinitionSet,
    names: Sequence[str] | None = None,
    *,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
    sources: Sources | None = None,
    restart: bool = False,
    progress: Progress | None = None,
) -> tuple[Materialized, ...]:
    """Bring the newest row of each key, among those true from ``start`` to ``end``, online.

    Args:
        engine: On the catalog's database.
        names: Views, or services for all their views in the cloud; None: all there are.
        start: Rows that became true after it, with a time zone. None: those since the last time,
            with what was written since then of earlier ones; the first time those within the
            view's ttl, or all.
        end: Up to and with it, with a time zone; None: now.
        sources: Where sources are; None: under the working directory.
        restart: As if nothing had been materialised before; nothing is deleted.
        progress: May be called often.

    Returns:
        What became of each view, in the order in which they were done: by name.

    Raises:
        InvalidInterval: If the interval is empty, ends in the future, or has no time zone.
        NotServedOnline: If there is no view or service of a name, or none with a source in the
            cloud.
        AlreadyMaterializing: If another process is at one of the views.
        FlintError: If a source cannot be read, or holds what its view does not allow
            (`offline.errors`). Views done before stay done.
    """
    now = dt.datetime.now(dt.UTC)
    end_us = microseconds(end if end is not None else now)
    if end_us > microseconds(now):
        raise InvalidInterval(
            f"{moment_of(end_us).isoformat()} is in the future, and rows that will be written until"
            " then would never be read; end now, or earlier"
        )
    start_us = None if start is None else microseconds(start)
    if start_us is not None and start_us >= end_us:
        raise InvalidInterval(
            f"{moment_of(start_us).isoformat()} is not before {moment_of(end_us).isoformat()}; "
            "give a start before the end"
        )
    done: list[Materialized] = []
    for view in chosen_views(definitions, names):
        with only_one(engine, view):
            intervals = (
                [Interval(start_us, end_us)]
                if start_us is not None
                else _increments(engine, view, end_us, restart=restart)
            )
            parts = [
                _materialize_view(
                    engine,
                    definitions,
                    view,
                    interval,
                    sources or Sources(Path()),
                    restart=restart,
                    progress=progress,
                )
                for interval in intervals
            ]
        done.append(_together(parts) if parts else _nothing_to_do(engine, view, end_us))
    return tuple(done)


def chosen_views(definitions: DefinitionSet, names: Sequence[str] | None) -> tuple[OnlineView, ...]:
    """Views with a source in the cloud: those named, those of services named, or all, by name.

    Raises:
        NotServedOnline: If there is no view or service of a name, or none to choose.
    """
    if not names:
        views = online_views(definitions)
        if not views:
            raise NotServedOnline(
                "no feature view with a source in the cloud is defined; apply some with `flint "
                "catalog apply FILE`"
            )
        return views
    chosen: dict[str, OnlineView] = {}
    for name in names:
        service = definitions.service(name)
        if definitions.view(name) is not None:
            chosen[name] = OnlineView.of(definitions, name)
        elif service is not None:
            of_service = {
                each.view.name: each.view for each in served_features(definitions, service)
            }
            for view in of_service.values():
                if not view.is_on_device:
                    chosen[view.name] = OnlineView.of(definitions, view.name)
        else:
            known = [*definitions.names("feature_view"), *definitions.names("feature_service")]
            there = f"; there are {listed(known)}" if known else "; there are none yet"
            raise NotServedOnline(
                f"there is no feature view or service {name!r}{did_you_mean(name, known)}{there}"
            )
    if not chosen:
        raise NotServedOnline(
            f"{listed(list(names))} has no feature of the cloud: all values are made on devices, "
            "and there is nothing to materialise"
        )
    return tuple(chosen[name] for name in sorted(chosen))


def _increments(engine: Engine, view: OnlineView, end_us: int, *, restart: bool) -> list[Interval]:
    """What is to be read to be materialised up to a moment."""
    intervals = []
    until = None if restart else materialized_until(engine, view)
    reached_us = None if until is None else microseconds(until)
    cut_off = None if restart else unfinished_increment(engine, view)
    if cut_off is not None and cut_off.end_us <= end_us:
        intervals.append(cut_off)
        reached_us = max(cut_off.end_us, reached_us or cut_off.end_us)
    oldest_us = None if view.ttl_s is None else end_us - round(view.ttl_s * 1e6)
    since = None if reached_us is None else first_window_start(engine, view)
    if since is not None and (oldest_us is None or oldest_us < microseconds(since)):
        # The ttl is longer than it was: rows count again that were too old for the first run.
        intervals.append(Interval(oldest_us, microseconds(since), with_late=True))
    if reached_us is None and oldest_us is not None:
        intervals.append(Interval(oldest_us, end_us, with_late=True))
    elif reached_us is None or reached_us < end_us:
        intervals.append(Interval(reached_us, end_us, with_late=True))
    return intervals


def _materialize_view(
    engine: Engine,
    definitions: DefinitionSet,
    view: OnlineView,
    interval: Interval,
    sources: Sources,
    *,
    restart: bool,
    progress: Progress | None,
) -> Materialized:
    tell = progress or _tell_nobody
    defined = definitions.view(view.name)
    if defined is None:
        raise LookupError(f"{view.name} was not looked for before")
    where = f"{view.source.path or view.source.table} of the view {view.name}"
    written = 0
    tell(f"{view.name}: reading the source", 0, None)
    with _open(engine, defined, view, sources) as source:
        run = open_run(engine, view, interval, source.stamp(), restart=restart)
        skipped = source.left_out(interval)
        total = source.find_newest(interval)
        note_total(engine, run.id, total, skipped)
        if run.resume_after is None:
            _check_all(source, view, where, lambda n: tell(f"{view.name}: checking", n, total))
        gone_through = run.written
        tell(f"{view.name}: writing", gone_through, total)
        for batch in source.batches(run.resume_after, CHUNK_ROWS):
            rows = encode_batch(batch, view, where)
            with engine.begin() as connection:
                written += write_rows(connection, view.value_set, rows)
                note_chunk(connection, run.id, last_key(batch, view), len(rows.keys))
            gone_through += len(rows.keys)
            tell(f"{view.name}: writing", gone_through, total)
    close_run(engine, view, run)
    return _materialized(view, run, total, written, skipped)


def _open(
    engine: Engine, defined: FeatureView, view: OnlineView, sources: Sources
) -> AbstractContextManager[SourceRows]:
    keys = [(key.name, key.dtype) for key in view.join_keys]
    if view.source.table is not None:
        database = sources.engine or engine
        return table_rows(defined, view.source, keys, database, naive_is_utc=sources.naive_is_utc)
    return parquet_rows(
        defined, view.source, keys, sources.folder, naive_is_utc=sources.naive_is_utc
    )


def _check_all(
    source: SourceRows, view: OnlineView, where: str, tell: Callable[[int], None]
) -> None:
    """Refuse a source with unfit keys or values before any of it is written."""
    for found in source.keys_found():
        if found.num_rows:
            check_keys(found, view, where)
    if not may_be_unfit(source.field_types(), view):
        return
    checked = 0
    for batch in source.batches(None, CHUNK_ROWS):
        encode_batch(batch, view, where)
        checked += batch.num_rows
        tell(checked)


def _materialized(
    view: OnlineView, run: OpenRun, total: int, written: int, skipped: tuple[LeftOut, ...]
) -> Materialized:
    start_us = run.interval.start_us
    return Materialized(
        view=view.name,
        start=None if start_us is None else moment_of(start_us),
        end=moment_of(run.interval.end_us),
        keys=total,
        written=written,
        skipped=skipped,
        resumed_after=run.written,
    )


def _together(parts: Sequence[Materialized]) -> Materialized:
    first, last = parts[0], parts[-1]
    return Materialized(
        view=last.view,
        start=first.start,
        end=last.end,
        keys=sum(part.keys for part in parts),
        written=sum(part.written for part in parts),
        skipped=last.skipped,
        resumed_after=first.resumed_after,
    )


def _nothing_to_do(engine: Engine, view: OnlineView, end_us: int) -> Materialized:
    until = materialized_until(engine, view) or moment_of(end_us)
    return Materialized(view.name, until, until, 0, 0, ())


def _tell_nobody(_what: str, _done: int, _total: int | None) -> None:
    pass
