"""Point-in-time joins over Postgres tables, by Postgres."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    FromClause,
    MetaData,
    Table,
    Text,
    cast,
    column,
    extract,
    func,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy import types as sql
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.definitions.sources import CloudSource
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.entity_rows import MOMENT, ROW
from feature_catalog.offline.errors import MissingSourceColumn, UnfitValues, UnreadableSource
from feature_catalog.offline.newest_rows import (
    EVENT,
    SourceColumns,
    newest_rows,
    newest_rows_by_index,
)
from feature_catalog.offline.postgres_copy import copy_in, copy_out
from feature_catalog.offline.source_columns import refuse_key, refuse_time

_WORK_MEMORY = "256MB"
"""What one sort may hold; Postgres's 4 MB made a join of a million rows a third slower."""

ROWS_PER_LOOK_UP = 4
"""So many rows are sorted in the time of one look-up by an index (15 and 3 us were measured)."""

_CLASSES = table("pg_class", column("oid"), column("reltuples"), schema="pg_catalog")


@contextmanager
def postgres_sources(engine: Engine) -> Iterator["PostgresSources"]:
    """Sources that are tables of a database, all seen as they are at one moment.

    Raises:
        UnreadableSource: If the database does not answer.
    """
    isolated = engine.execution_options(isolation_level="REPEATABLE READ")
    try:
        with isolated.begin() as connection:
            for name, value in (("work_mem", _WORK_MEMORY), ("jit", "off")):
                connection.execute(select(func.set_config(name, value, True)))
            yield PostgresSources(connection)
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        raise UnreadableSource(f"the database cannot be read ({_brief(error)})") from error


@dataclass(frozen=True, slots=True)
class PostgresSources:
    """Sources that are tables, within one transaction."""

    connection: Connection
    _asked: dict[tuple[str, ...], FromClause] = field(default_factory=dict)

    def newest(
        self,
        view: FeatureView,
        source: CloudSource,
        asked: pa.Table,
        keys: Sequence[tuple[str, Dtype]],
        wanted: Sequence[Field],
        *,
        naive_is_utc: bool,
    ) -> pa.Table:
        """The newest visible row for each asked row; see `newest_rows.newest_rows`.

        Args:
            asked: Of one set of entity rows, always: rows with the same keys are sent once.

        Raises:
            UnreadableSource: If there is no such table, or it may not be read.
            MissingSourceColumn: If it lacks a column.
            UnfitValues: If a field's column is of a type that no field is.
            MismatchedKeys: If a join key is of another type than the entity says.
            NaiveTimestamps: If a column of time has no time zone.
        """
        where = f"the table {source.table} of the view {view.name}"
        try:
            columns, kinds = self.columns(view, source, keys, where, naive_is_utc)
            places = [view.schema.index(each) for each in wanted]
            is_quicker = self._is_quicker_by_index(source, columns, len(asked))
            statement_of = newest_rows_by_index if is_quicker else newest_rows
            found = statement_of(self._send(asked, keys), columns, places).subquery("found")
            since_1970_us = cast(extract("epoch", found.c[EVENT]) * 1_000_000, BigInteger)
            statement = select(
                found.c[ROW],
                since_1970_us.label(EVENT),
                *(_sent(found.c[f"f{place}"], kinds[place]) for place in places),
            )
            received = {f"f{place}": kinds[place] for place in places}
            return copy_out(
                self.connection, statement, {ROW: pa.int64(), EVENT: pa.int64(), **received}
            )
        except (DBAPIError, self.connection.dialect.loaded_dbapi.Error) as error:
            raise UnreadableSource(f"{where} cannot be read ({_brief(error)})") from error

    def columns(
        self,
        view: FeatureView,
        source: CloudSource,
        keys: Sequence[tuple[str, Dtype]],
        where: str,
        naive_is_utc: bool,
    ) -> tuple[SourceColumns, list[pa.DataType]]:
        """The source's columns, and what its fields come out as.

        Args:
            where: What refusals call the source.

        Raises:
            UnreadableSource: If there is no such table.
            MissingSourceColumn: If it lacks a column.
            UnfitValues: If a field's column is of a type that no field is.
            MismatchedKeys: If a join key is of another type than the entity says.
            NaiveTimestamps: If a column of time has no time zone.
        """
        schema, _, name = (source.table or "").rpartition(".")
        try:
            reflected = inspect(self.connection).get_columns(name, schema or None)
        except NoSuchTableError as error:
            raise UnreadableSource(
                f"{where} cannot be read: there is no such table in the database; make it, or "
                "correct source.table"
            ) from error
        found: dict[str, Any] = {each["name"]: each["type"] for each in reflected}
        times = [name for name in (source.event_ts, source.created_ts) if name is not None]
        needed = [*(key for key, _ in keys), *times, *(each.name for each in view.schema)]
        for each in needed:
            if each not in found:
                raise MissingSourceColumn(
                    f"{where} has no column {each}{did_you_mean(each, list(found))}; it has "
                    f"{listed(list(found))}"
                )
        for key, dtype in keys:
            kind = sql.String if dtype is Dtype.STRING else sql.Integer
            if not isinstance(found[key], kind):
                refuse_key(where, key, str(found[key]), dtype)
        columns = (column(each, found[each]) for each in needed)
        stored = table(name, *columns, schema=schema or None)
        moments = {time: _moment(stored.c[time], where, naive_is_utc) for time in times}
        fields = [_received(stored.c[each.name], where) for each in view.schema]
        return SourceColumns(
            table=stored,
            keys=[_key(stored.c[key]) for key, _ in keys],
            event_ts=moments[source.event_ts],
            created_ts=None if source.created_ts is None else moments[source.created_ts],
            fields=[each.expression for each in fields],
            conditions=[func.isfinite(stored.c[time]) for time in times],
        ), [each.kind for each in fields]

    def _is_quicker_by_index(
        self, source: CloudSource, columns: SourceColumns, asked_rows: int
    ) -> bool:
        schema, _, name = (source.table or "").rpartition(".")
        keys = {_name(key) for key in columns.keys}
        by_key_and_time = any(
            set(index["column_names"][: len(keys)]) == keys
            and index["column_names"][len(keys) : len(keys) + 1] == [source.event_ts]
            for index in inspect(self.connection).get_indexes(name, schema or None)
        )
        if not by_key_and_time:
            return False
        relation = func.to_regclass(source.table)
        statement = select(_CLASSES.c.reltuples).where(_CLASSES.c.oid == relation)
        rows = self.connection.execute(statement).scalar_one()
        return bool(rows > ROWS_PER_LOOK_UP * asked_rows)

    def _send(self, asked: pa.Table, keys: Sequence[tuple[str, Dtype]]) -> FromClause:
        """Asked rows as a temporary table, which goes with the transaction."""
        names = tuple(name for name, _ in keys)
        if names not in self._asked:
            sent = Table(
                f"flint_asked_{len(self._asked)}",
                MetaData(),
                Column(ROW, BigInteger),
                Column(MOMENT, BigInteger),
                *(
                    Column(f"k{place}", Text if dtype is Dtype.STRING else BigInteger)
                    for place, (_, dtype) in enumerate(keys)
                ),
                prefixes=["TEMPORARY"],
                postgresql_on_commit="DROP",
            )
            sent.create(self.connection)
            # Numbers: Arrow writes a million times in a second, and these in a tenth of it.
            since_1970_us = asked[MOMENT].cast(pa.int64())
            place = asked.column_names.index(MOMENT)
            copy_in(self.connection, sent, asked.set_column(place, MOMENT, since_1970_us))
            self.connection.execute(text(f"ANALYZE {sent.name}"))
            moment = _at(sent.c[MOMENT]).label(MOMENT)
            others = [each for each in sent.c if each.name != MOMENT]
            self._asked[names] = select(*others, moment).subquery("asked")
        return self._asked[names]


class _Received(NamedTuple):
    expression: ColumnElement[Any]
    kind: pa.DataType


_KINDS: tuple[tuple[type[sql.TypeEngine[Any]], pa.DataType], ...] = (
    (sql.SmallInteger, pa.int16()),
    (sql.BigInteger, pa.int64()),
    (sql.Integer, pa.int32()),
    (sql.REAL, pa.float32()),
    (sql.Float, pa.float64()),
    (sql.Boolean, pa.bool_()),
    (sql.String, pa.string()),
)


def _received(stored: ColumnElement[Any], where: str) -> _Received:
    """A field's column, and what it comes out as."""
    found = stored.type
    if isinstance(found, sql.ARRAY):
        item = _received(column(_name(stored), found.item_type), where).kind
        return _Received(stored, pa.list_(item))
    for cls, kind in _KINDS:
        if isinstance(found, cls):
            is_padded = isinstance(found, sql.CHAR)
            return _Received(cast(stored, Text) if is_padded else stored, kind)
    if isinstance(found, sql.Numeric):
        return _Received(cast(stored, Double), pa.float64())
    raise UnfitValues(
        f"{where} holds {_name(stored)} as {found}, and fields are booleans, numbers, text or "
        "arrays of them; convert the column, or leave the field out"
    )


def _sent(plain: ColumnElement[Any], kind: pa.DataType) -> ColumnElement[Any]:
    return func.to_json(plain) if pa.types.is_list(kind) else plain


def _key(stored: ColumnElement[Any]) -> ColumnElement[Any]:
    # A padded text would not equal the one without its blanks.
    return cast(stored, Text) if isinstance(stored.type, sql.CHAR) else stored


def _moment(stored: ColumnElement[Any], where: str, naive_is_utc: bool) -> ColumnElement[Any]:
    """A column of time as timestamp with time zone."""
    is_timestamp = isinstance(stored.type, sql.DateTime)
    is_zoned = isinstance(stored.type, sql.DateTime) and stored.type.timezone
    if not is_zoned and not (is_timestamp and naive_is_utc):
        refuse_time(where, _name(stored), str(stored.type), is_timestamp=is_timestamp)
    return stored if is_zoned else func.timezone("UTC", stored)


def _name(stored: ColumnElement[Any]) -> str:
    return str(stored.key)


def _at(since_1970_us: ColumnElement[int]) -> ColumnElement[Any]:
    """A timestamp of microseconds, exactly: as one float they would not all be."""
    whole_s, rest_us = since_1970_us // 1_000_000, func.mod(since_1970_us, 1_000_000)
    return func.to_timestamp(whole_s) + func.make_interval(0, 0, 0, 0, 0, 0, rest_us / 1e6)


def _brief(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0].rstrip(".")[:300]
