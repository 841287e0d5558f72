"""Arrow tables into Postgres and out of it by COPY, which is several times quicker than rows."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.types as pat
from sqlalchemy import Connection, SelectBase, Table

from feature_catalog.offline.sql_text import quoted, to_sql

_BATCH_ROWS = 65_536
_READ_BYTES = 2**20


def copy_in(connection: Connection, target: Table, rows: pa.Table) -> None:
    """Append an Arrow table's rows to a table that has its columns.

    Raises:
        DBAPI's Error: If Postgres refuses them.
    """
    names = ", ".join(map(quoted, rows.column_names))
    with _cursor(connection) as cursor:
        cursor.copy_expert(
            f"COPY {quoted(target.name)} ({names}) FROM STDIN WITH (FORMAT csv)",
            _CsvOf(rows),
            _READ_BYTES,
        )


def copy_out(
    connection: Connection,
    statement: SelectBase,
    column_types: Mapping[str, pa.DataType],
) -> pa.Table:
    """The rows of a query.

    Args:
        column_types: Of each column, in order: a number, boolean or text; a list where it is the
            JSON of an array, whose nesting comes back as it is.

    Raises:
        DBAPI's Error: If the query fails.
    """
    received = io.BytesIO()
    with _cursor(connection) as cursor:
        cursor.copy_expert(f"COPY ({to_sql(statement)}) TO STDOUT WITH (FORMAT csv)", received)
    plain = {
        name: pa.string() if pat.is_list(kind) else kind for name, kind in column_types.items()
    }
    table = _read_csv(received, plain) if received.tell() else pa.schema(plain).empty_table()
    for place, (name, kind) in enumerate(column_types.items()):
        if pat.is_list(kind):
            table = table.set_column(place, name, _arrays(table[name], kind.value_type))
    return table


def _read_csv(received: io.BytesIO, plain: Mapping[str, pa.DataType]) -> pa.Table:
    received.seek(0)
    return pyarrow.csv.read_csv(
        received,
        pyarrow.csv.ReadOptions(column_names=list(plain)),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=plain,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,  # the empty text is a value
        ),
    )


def _arrays(texts: pa.ChunkedArray, item: pa.DataType) -> pa.ChunkedArray:
    rows = [None if text is None else json.loads(text) for text in texts.to_pylist()]
    if not any(row for row in rows):
        return pa.chunked_array([pa.nulls(len(rows), pa.list_(item))])
    if pat.is_floating(item):
        rows = [_floats(row, item) for row in rows]
    return pa.chunked_array([pa.array(rows)])


def _floats(value: Any, item: pa.DataType) -> Any:  # noqa: ANN401 - JSON
    """Numbers of a JSON value; Postgres writes NaN and infinities as text there."""
    if isinstance(value, list):
        return [_floats(part, item) for part in value]
    if value is None:
        return None
    return float(np.float32(value)) if pat.is_float32(item) else float(value)


class _CsvOf:
    """A table as a file of CSV lines, made batch by batch as it is read."""

    def __init__(self, rows: pa.Table) -> None:
        self._batches = iter(rows.to_batches(max_chunksize=_BATCH_ROWS))
        self._text = io.BytesIO()

    def read(self, size: int) -> bytes:
        while not (found := self._text.read(size)):
            batch = next(self._batches, None)
            if batch is None:
                return b""
            made = io.BytesIO()
            options = pyarrow.csv.WriteOptions(include_header=False)
            pyarrow.csv.write_csv(_without_nul(batch), made, options)
            self._text = io.BytesIO(made.getvalue())
        return found

    def readline(self, size: int = -1) -> bytes:
        """Not called by psycopg2 for COPY, which asks that it be there."""
        return self._text.readline(size)


def _without_nul(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Text with NUL as null: Postgres has no such text, so no row is of such a key."""
    columns = [
        pc.if_else(pc.match_substring(c, "\0"), pa.scalar(None, c.type), c)
        if pat.is_string(c.type)
        else c
        for c in batch.columns
    ]
    return pa.record_batch(columns, names=batch.schema.names)


@contextmanager
def _cursor(connection: Connection) -> Iterator[Any]:
    """The driver's cursor, in the connection's transaction: SQLAlchemy has no COPY."""
    cursor = connection.connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()
