"""The newest rows of a Postgres table, by Postgres."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    cast,
    column,
    extract,
    func,
    select,
    table,
)

from feature_catalog.definitions import CloudSource, Dtype
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.newest_rows import SourceColumns
from feature_catalog.offline.postgres_copy import copy_out
from feature_catalog.offline.postgres_source import postgres_sources
from feature_catalog.offline.sql_text import to_sql
from feature_catalog.online.newest_by_key import counts, left_out, newest_by_key
from feature_catalog.online.source_rows import (
    Interval,
    Keys,
    LeftOut,
    RowColumns,
    SourceRows,
    in_key_order,
    time_names,
)


@contextmanager
def table_rows(
    view: FeatureView, source: CloudSource, keys: Keys, engine: Engine, *, naive_is_utc: bool
) -> Iterator[SourceRows]:
    """Rows of a Postgres table, as they are at one moment.

    Raises:
        FlintError: If it cannot be read, lacks a column, or has keys or times of another type
            (`offline.errors`).
    """
    where = f"the table {source.table} of the view {view.name}"
    with postgres_sources(engine) as sources:
        columns, kinds = sources.columns(view, source, keys, where, naive_is_utc)
        yield _TableRows(sources.connection, columns, keys, source, kinds)


@dataclass(frozen=True, slots=True)
class _TableRows:
    connection: Connection
    source: SourceColumns
    keys: Keys
    defined: CloudSource
    kinds: Sequence[pa.DataType]
    _found: list[str] = field(default_factory=list)

    def stamp(self) -> str:
        return ""

    def left_out(self, interval: Interval) -> tuple[LeftOut, ...]:
        names = [*(name for name, _ in self.keys), *time_names(self.defined)]
        statement = counts(self.source, left_out(self.source, interval))
        found = zip(names, self.connection.execute(statement).one(), strict=True)
        return tuple(LeftOut(name, rows) for name, rows in found if rows)

    def find_newest(self, interval: Interval) -> int:
        name = f"flint_newest_{len(self._found)}"
        newest = newest_by_key(self.source, interval).subquery("newest")
        arrays = self._array_columns()
        sent = [func.to_json(c).label(c.name) if c.name in arrays else c for c in newest.c]
        keys = ", ".join(
            f'k{place} COLLATE "C"' if dtype is Dtype.STRING else f"k{place}"
            for place, (_, dtype) in enumerate(self.keys)
        )
        for statement in (
            f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {to_sql(select(*sent))}",
            f"CREATE INDEX ON {name} ({keys})",
            f"ANALYZE {name}",
        ):
            # Values stand in the text: nothing in it is a parameter.
            self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        self._found.append(name)
        return self.connection.execute(select(func.count()).select_from(table(name))).scalar_one()

    def field_types(self) -> Sequence[pa.DataType]:
        return self.kinds

    def keys_found(self) -> Iterator[pa.Table]:
        kinds = self._key_kinds()
        statement: Any = select(*map(column, kinds)).select_from(table(self._found[-1]))
        yield copy_out(self.connection, statement, kinds)

    def batches(self, after: Sequence[Any] | None, rows: int) -> Iterator[pa.Table]:
        columns = RowColumns.of(self.source)
        times = [
            cast(extract("epoch", column(name)) * 1_000_000, BigInteger).label(f"{name}_us")
            for name in columns.times
        ]
        kinds = {
            **self._key_kinds(),
            **{f"{name}_us": pa.int64() for name in columns.times},
            **dict(zip(columns.fields, self.kinds, strict=True)),
        }
        while True:
            statement = in_key_order(self._found[-1], columns, times, self.keys, after)
            batch = copy_out(self.connection, statement.limit(rows), kinds)
            if batch.num_rows:
                yield batch
            if batch.num_rows < rows:
                return
            after = [batch[name][-1].as_py() for name in columns.keys]

    def _key_kinds(self) -> dict[str, pa.DataType]:
        names = RowColumns.of(self.source).keys
        return {
            name: pa.string() if dtype is Dtype.STRING else pa.int64()
            for name, (_, dtype) in zip(names, self.keys, strict=True)
        }

    def _array_columns(self) -> set[str]:
        """Columns that go out as JSON."""
        fields = zip(RowColumns.of(self.source).fields, self.kinds, strict=True)
        return {name for name, kind in fields if pa.types.is_list(kind)}
