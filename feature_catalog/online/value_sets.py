"""Which values the online tables hold: of views as they are, as they were, and of deleted ones."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, delete, func, select, tuple_

from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.online.online_view import online_views
from feature_catalog.online_schema import (
    MaterializationRecord,
    OnlineValueRecord,
    OnlineValueSetRecord,
)

_DELETED_ROWS = 50_000


class Standing(StrEnum):
    """What became of the definition that values were materialised under.

    ``current``: it is so still. ``former``: the view's keys, source or fields have changed since;
    only who holds on to the former definition reads these values. ``deleted``: there is no such
    view any more.
    """

    CURRENT = "current"
    FORMER = "former"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ValueSet:
    """Values of one view under one definition.

    Attributes:
        keys: How many have a row.
        materialized_until: Rows of the source up to then have been read; None: none yet.
        is_cut_off: Whether the newest materialisation is not done: it runs, or was killed.
    """

    number: int
    view: str
    standing: Standing
    keys: int
    materialized_until: dt.datetime | None
    is_cut_off: bool


def list_value_sets(engine: Engine, definitions: DefinitionSet) -> tuple[ValueSet, ...]:
    """All values there are, and views that have none yet; by name, those that count first."""
    record, run = OnlineValueSetRecord, MaterializationRecord
    counted = select(OnlineValueRecord.value_set, func.count().label("rows")).group_by(
        OnlineValueRecord.value_set
    )
    last = select(func.max(run.id)).group_by(run.value_set)
    newest = select(run.value_set, run.finished_at).where(run.id.in_(last))
    with engine.connect() as connection:
        keys = {row.value_set: row.rows for row in connection.execute(counted)}
        finished = {row.value_set: row.finished_at for row in connection.execute(newest)}
        stored = connection.execute(select(record)).all()
    current = {view.value_set: view.name for view in online_views(definitions)}
    found = [
        ValueSet(
            number=each.value_set,
            view=each.view,
            standing=_standing(each.value_set, each.view, current),
            keys=keys.get(each.value_set, 0),
            materialized_until=each.materialized_until,
            is_cut_off=each.value_set in finished and finished[each.value_set] is None,
        )
        for each in stored
    ]
    known = {each.number for each in found}
    found += [
        ValueSet(number, name, Standing.CURRENT, 0, None, is_cut_off=False)
        for number, name in current.items()
        if number not in known
    ]
    order = list(Standing)
    return tuple(sorted(found, key=lambda each: (each.view, order.index(each.standing))))


def emptied_views(engine: Engine, definitions: DefinitionSet) -> tuple[str, ...]:
    """Views that were materialised under a former definition, and not yet under this one; by name.

    Args:
        definitions: As they are, or as they would be.
    """
    record = OnlineValueSetRecord
    done = select(record.value_set, record.view).where(record.materialized_until.is_not(None))
    with engine.connect() as connection:
        materialized = {row.value_set: row.view for row in connection.execute(done)}
    names = set(materialized.values())
    return tuple(
        view.name
        for view in online_views(definitions)
        if view.name in names and view.value_set not in materialized
    )


def drop_former(engine: Engine, definitions: DefinitionSet) -> tuple[ValueSet, ...]:
    """Delete values whose definition has changed since or is gone; which they were.

    Rows go in parts, each a transaction, so that nobody waits long; the rest goes with the next
    call, should one be killed.
    """
    dropped = tuple(
        each
        for each in list_value_sets(engine, definitions)
        if each.standing is not Standing.CURRENT
    )
    for each in dropped:
        while True:
            with engine.begin() as connection:
                if not _delete_some(connection, each.number):
                    break
        with engine.begin() as connection:
            for table in (MaterializationRecord, OnlineValueSetRecord):
                connection.execute(delete(table).where(table.value_set == each.number))
    return dropped


def _delete_some(connection: Connection, number: int) -> int:
    value = OnlineValueRecord
    some = select(value.value_set, value.key).where(value.value_set == number).limit(_DELETED_ROWS)
    chosen = tuple_(value.value_set, value.key).in_(some)
    return connection.execute(delete(value).where(chosen)).rowcount


def _standing(number: int, name: str, current: dict[int, str]) -> Standing:
    if number in current:
        return Standing.CURRENT
    return Standing.FORMER if name in current.values() else Standing.DELETED
