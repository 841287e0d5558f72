"""Arrow tables into Postgres and out of it by COPY, which is several times quicker than rows."""

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.types as pat
from sqlalchemy import Connection, Select, Table
from sqlalchemy.dialects import postgresql

_BATCH_ROWS = 65_536
_BLOCK_BYTES = 2**20


def copy_in(connection: Connection, target: Table, rows: pa.Table) -> None:
    """Append an Arrow table's rows to a table with the same columns.

    Raises:
        psycopg2.Error: If Postgres refuses them.
    """
    names = ", ".join(_quoted(connection, column.name) for column in target.columns)
    ordered = rows.select([column.name for column in target.columns])
    with _cursor(connection) as cursor:
        cursor.copy_expert(
            f"COPY {_quoted(connection, target.name)} ({names}) FROM STDIN WITH (FORMAT csv)",
            _CsvLines(ordered),
            _BLOCK_BYTES,
        )


def copy_out(
    connection: Connection,
    statement: Select[tuple[object, ...]],
    column_types: Mapping[str, pa.DataType | None],
) -> pa.Table:
    """The rows of a query.

    Args:
        column_types: Of each of its columns, in order: integers, floats, booleans, text; None for
            JSON, which is parsed and has Arrow's type for it.

    Raises:
        psycopg2.Error: If the query fails.
    """
    sql = statement.compile(
        dialect=postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
        compile_kwargs={"literal_binds": True},
    )
    received = io.BytesIO()
    with _cursor(connection) as cursor:
        cursor.copy_expert(f"COPY ({sql}) TO STDOUT WITH (FORMAT csv)", received, _BLOCK_BYTES)
    parsed = {name: kind or pa.string() for name, kind in column_types.items()}
    if not received.tell():
        table = pa.table({name: pa.array([], kind) for name, kind in parsed.items()})
    else:
        received.seek(0)
        table = pyarrow.csv.read_csv(
            received,
            pyarrow.csv.ReadOptions(column_names=list(column_types)),
            pyarrow.csv.ParseOptions(newlines_in_values=True),
            pyarrow.csv.ConvertOptions(
                column_types=parsed,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,  # the empty text is a value
            ),
        )
    for place, (name, kind) in enumerate(column_types.items()):
        if kind is None:
            table = table.set_column(place, name, _from_json(table[name]))
    return table
