"""The newest rows of Parquet files, by DuckDB."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import column, func

from feature_catalog.definitions import CloudSource
from feature_catalog.definitions.plain import canonical_json
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.errors import UnreadableSource
from feature_catalog.offline.newest_rows import SourceColumns
from feature_catalog.offline.parquet_source import ParquetSources
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

_FOUND = "flint_newest"
_MEMORY_BYTES = 2 * 2**30


@contextmanager
def parquet_rows(
    view: FeatureView, source: CloudSource, keys: Keys, folder: Path, *, naive_is_utc: bool
) -> Iterator[SourceRows]:
    """Rows of Parquet files.

    Raises:
        FlintError: If they cannot be read, lack a column, or have keys or times of another type
            (`offline.errors`).
    """
    sources = ParquetSources(folder, _MEMORY_BYTES)
    where = f"{source.path} of the view {view.name}"
    try:
        with sources.connection() as connection:
            columns = sources.open(connection, view, source, keys, where, naive_is_utc)
            files = sources.files(connection, source.path or "", where)
            yield _ParquetRows(connection, columns, keys, source, files, _stamp(folder, source))
    except duckdb.OutOfMemoryException as error:
        raise UnreadableSource(
            f"{where}: to find the newest rows needs more room for temporary files than there is; "
            "give it more, or materialise shorter intervals"
        ) from error
    except duckdb.Error as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
        raise UnreadableSource(f"{where} cannot be read ({line})") from error


@dataclass(frozen=True, slots=True)
class _ParquetRows:
    connection: duckdb.DuckDBPyConnection
    source: SourceColumns
    keys: Keys
    defined: CloudSource
    files: Sequence[str]
    stamped: str

    def stamp(self) -> str:
        return self.stamped

    def left_out(self, interval: Interval) -> tuple[LeftOut, ...]:
        names = [*(name for name, _ in self.keys), *time_names(self.defined)]
        conditions = left_out(self.source, interval)
        found = self._row(to_sql(counts(self.source, conditions)))
        return tuple(
            LeftOut(name, rows, self._first(to_sql(condition)))
            for name, rows, condition in zip(names, found, conditions, strict=True)
            if rows
        )

    def _first(self, condition: str) -> str:
        """Where the first row stands that meets a condition."""
        with self.connection.cursor() as reading:
            rows = reading.read_parquet(
                self.files, union_by_name=True, filename=True, file_row_number=True
            )
            places = rows.set_alias("source").filter(condition)
            first = places.select("filename, file_row_number").order("filename, file_row_number")
            found = first.limit(1).fetchall()
        return "".join(f"{Path(file).name}, row {row}" for file, row in found)

    def find_newest(self, interval: Interval) -> int:
        newest = to_sql(newest_by_key(self.source, interval))
        self.connection.execute(f"CREATE OR REPLACE TABLE {_FOUND} AS {newest}").fetchall()
        return self._row(f"SELECT count(*) FROM {_FOUND}")[0]  # noqa: S608

    def field_types(self) -> Sequence[pa.DataType]:
        fields = ", ".join(RowColumns.of(self.source).fields)
        with self.connection.cursor() as reading:
            none = reading.sql(f"SELECT {fields} FROM {_FOUND} LIMIT 0").to_arrow_table()  # noqa: S608
        return list(none.schema.types)

    def keys_found(self) -> Iterator[pa.Table]:
        columns = ", ".join(RowColumns.of(self.source).keys)
        with self.connection.cursor() as reading:
            for batch in reading.sql(f"SELECT {columns} FROM {_FOUND}").to_arrow_reader():  # noqa: S608
                yield pa.table(batch)

    def batches(self, after: Sequence[Any] | None, rows: int) -> Iterator[pa.Table]:
        columns = RowColumns.of(self.source)
        times = [func.epoch_us(column(name)).label(f"{name}_us") for name in columns.times]
        statement = in_key_order(_FOUND, columns, times, self.keys, after)
        # A connection has one result at a time, and this one may be left half read.
        with self.connection.cursor() as reading:
            for batch in reading.sql(to_sql(statement)).to_arrow_reader(rows):
                yield pa.table(batch)

    def _row(self, statement: str) -> tuple[int, ...]:
        (row,) = self.connection.execute(statement).fetchall()
        return tuple(row)


def _stamp(folder: Path, source: CloudSource) -> str:
    """Digest of local files' names, sizes and times of change; empty for others."""
    path = source.path or ""
    if "://" in path and not path.startswith("file://"):
        return ""
    local = folder / path.removeprefix("file://")
    files = sorted(local.rglob("*.parquet")) if path.endswith("/") else [local]
    facts = [[str(each), each.stat().st_size, each.stat().st_mtime_ns] for each in files]
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()
