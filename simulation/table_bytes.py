"""Tables as Parquet, in memory."""

import io

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file.

    Dictionaries are kept of integers and text only: of seconds hardly two are equal, nor are two
    numbers of tasks, and to look for equal ones took two thirds of the time to write a table of
    tasks, and a quarter of the file.
    """
    buffer = io.BytesIO()
    repeated = [
        field.name
        for field in table.schema
        if not pa.types.is_floating(field.type) and field.name != "task"
    ]
    pq.write_table(table, buffer, compression="zstd", use_dictionary=repeated)
    return buffer.getvalue()
