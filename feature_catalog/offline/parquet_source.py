"""Point-in-time joins over Parquet files, folders and URLs, by DuckDB."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import fsspec
import pyarrow as pa
from sqlalchemy import BigInteger, ColumnElement, String, case, column, func, table

from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.definitions.sources import CloudSource
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.errors import MissingSourceColumn, UnreadableSource
from feature_catalog.offline.newest_rows import SourceColumns, newest_rows
from feature_catalog.offline.source_columns import refuse_key, refuse_time
from feature_catalog.offline.sql_text import to_sql

_TEXT = "VARCHAR"
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
}


@dataclass(frozen=True, slots=True)
class ParquetSources:
    """Sources that are files.

    Attributes:
        folder: Relative paths are under it.
        memory_bytes: What DuckDB may hold; the rest goes to temporary files. None: four fifths of
            the machine's memory.
    """

    folder: Path
    memory_bytes: int | None = None

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

        Raises:
            UnreadableSource: If a file is not there, or is damaged.
            MissingSourceColumn: If a file lacks a column.
            MismatchedKeys: If a join key is of another type than the entity says.
            NaiveTimestamps: If a column of time has no time zone.
        """
        where = f"{source.path} of the view {view.name}"
        with self.connection() as connection:
            try:
                columns = self.open(connection, view, source, keys, where, naive_is_utc)
                connection.register("asked", asked)
                places = [view.schema.index(field) for field in wanted]
                statement = newest_rows(
                    table("asked", *(column(name) for name in asked.column_names)), columns, places
                )
                return connection.sql(to_sql(statement)).to_arrow_table()
            except duckdb.OutOfMemoryException as error:
                raise UnreadableSource(
                    f"{where}: the join needs more memory than it may have, or more room for "
                    "temporary files than there is; give it more, or join fewer rows at once"
                ) from error
            except (duckdb.Error, OSError) as error:
                raise UnreadableSource(f"{where} cannot be read ({_brief(error)})") from error

    def open(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: FeatureView,
        source: CloudSource,
        keys: Sequence[tuple[str, Dtype]],
        where: str,
        naive_is_utc: bool,
    ) -> SourceColumns:
        """Make a view's rows the connection's view ``source``, and check their columns.

        Args:
            where: What refusals call the source.

        Raises:
            UnreadableSource: If a file is not there.
            MissingSourceColumn: If a file lacks a column.
            MismatchedKeys: If a join key is of another type than the entity says.
            NaiveTimestamps: If a column of time has no time zone.
            duckdb.Error: If a file is damaged.
        """
        path = source.path or ""
        files = self.files(connection, path, where)
        relation = connection.read_parquet(
            files,
            union_by_name=path.endswith("/"),
            hive_partitioning=path.endswith("/") and self._are_partitions(files, path),
        )
        relation.create_view("source")
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        times = [name for name in (source.event_ts, source.created_ts) if name is not None]
        needed = [*(key for key, _ in keys), *times, *(field.name for field in view.schema)]
        for name in needed:
            if name not in types:
                raise MissingSourceColumn(
                    f"{where} has no column {name}{did_you_mean(name, list(types))}; it has "
                    f"{listed(list(types))}"
                )
        for name, dtype in keys:
            fits = types[name] == _TEXT if dtype is Dtype.STRING else types[name] in _INTEGERS
            if not fits:
                refuse_key(where, name, types[name], dtype)
        # Qualified: DuckDB takes a bare "user" in a subquery for its function of that name.
        stored = table(
            "source",
            *(column(name) for name in (*(key for key, _ in keys), *times)),
            *(column(field.name, _sql_type(types[field.name])) for field in view.schema),
        )
        moments = {
            name: _moment(stored.c[name], types[name], where, naive_is_utc) for name in times
        }
        return SourceColumns(
            table=stored,
            keys=[stored.c[name] for name, _ in keys],
            event_ts=moments[source.event_ts],
            created_ts=None if source.created_ts is None else moments[source.created_ts],
            fields=[stored.c[field.name] for field in view.schema],
        )

    def files(self, connection: duckdb.DuckDBPyConnection, path: str, where: str) -> list[str]:
        """Files of a path, or patterns of them."""
        scheme = urlsplit(path).scheme
        if scheme and scheme != "file":
            try:
                connection.register_filesystem(fsspec.filesystem(scheme))
            except (ValueError, ImportError) as error:
                raise UnreadableSource(
                    f"{where} cannot be read ({_brief(error)}); give a path, or a URL whose fsspec "
                    "package is installed"
                ) from error
            return [f"{path}**/*.parquet" if path.endswith("/") else path]
        local = self.folder / path.removeprefix("file://")
        if path.endswith("/"):
            found = sorted(each for each in local.rglob("*.parquet") if _is_data(each, local))
        else:
            found = [local] if local.is_file() else []
        if not found:
            what = "no Parquet file in" if local.is_dir() else "no"
            raise UnreadableSource(
                f"{where} cannot be read: there is {what} {local}; relative paths are looked for "
                "in the folder of data (data_folder, --data), which may be another"
            )
        return [_literal(each) for each in found]

    def _are_partitions(self, files: Sequence[str], path: str) -> bool:
        """Whether a folder's files are in folders ``column=value`` of the same columns below it."""
        above = len((self.folder / path.removeprefix("file://")).parts)
        columns = {
            tuple(part.partition("=")[0] for part in Path(file).parts[above:-1] if "=" in part)
            for file in files
        }
        return len(columns) == 1 and columns != {()}

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A database of DuckDB in memory, its temporary files in a folder that goes with it."""
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "false",
        }
        if self.memory_bytes is not None:
            config["memory_limit"] = f"{self.memory_bytes}B"
        with tempfile.TemporaryDirectory(prefix="flint-join-") as spill:
            connection = duckdb.connect(config={**config, "temp_directory": spill})
            try:
                yield connection
            finally:
                connection.close()


def _moment(
    plain: ColumnElement[Any], found: str, where: str, naive_is_utc: bool
) -> ColumnElement[Any]:
    """A column of time as a timestamp with time zone, in microseconds, rounded up."""
    is_zoned = found in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"}
    if not is_zoned and not (found in {"TIMESTAMP", "TIMESTAMP_NS"} and naive_is_utc):
        refuse_time(where, str(plain.key), found, is_timestamp=found.startswith("TIMESTAMP"))
    if found.endswith("_NS"):
        ns = func.epoch_ns(plain, type_=BigInteger)
        # DuckDB divides towards zero.
        above = case((func.mod(ns, 1_000) > 0, 1), else_=0)
        return func.make_timestamptz(func.divide(ns, 1_000, type_=BigInteger) + above)
    return plain if is_zoned else func.timezone("UTC", plain)


def _sql_type(found: str) -> String | None:
    return String() if found == _TEXT else None


def _is_data(path: Path, folder: Path) -> bool:
    return not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)


def _literal(path: Path) -> str:
    """A path that DuckDB does not take as a pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
