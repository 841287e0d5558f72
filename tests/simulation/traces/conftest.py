"""Small trace files, written as a user would."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def write_table(tmp_path):
    """Write columns to a file of the given name (Parquet or CSV) and return its path."""

    def write(name: str = "trace.parquet", **columns) -> Path:
        path = tmp_path / name
        if path.suffix == ".csv":
            lines = [",".join(columns)]
            lines += [",".join(str(v) for v in row) for row in zip(*columns.values(), strict=True)]
            path.write_text("\n".join(lines) + "\n")
        else:
            pq.write_table(pa.table(columns), path)
        return path

    return write
