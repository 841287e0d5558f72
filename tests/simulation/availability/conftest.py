"""Logs as apps write them, and builds of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulation.availability.build import build_availability
from simulation.availability.criteria_file import parse_criteria

# Monday, 24 March 2025, 00:00 UTC.
MONDAY_S = 1_742_774_400


@pytest.fixture
def write_log(tmp_path):
    """Write rows (dicts) to a file of the given name (Parquet or CSV) and return its path."""

    def write(rows, name="sessions.parquet", schema=None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            header = list(rows[0])
            lines = [",".join(header)]
            lines += [",".join("" if r[c] is None else str(r[c]) for c in header) for r in rows]
            path.write_text("\n".join(lines) + "\n")
        else:
            pq.write_table(pa.Table.from_pylist(rows, schema), path)
        return path

    return write


@pytest.fixture
def build(tmp_path):
    """Build a trace; returns the statistics and the trace's rows."""

    def run(log, criteria="time_zone: UTC", **options):
        output = tmp_path / "trace.parquet"
        files = [log] if isinstance(log, Path) else log
        found = build_availability(files, parse_criteria(criteria), output, **options)
        return found, pq.read_table(output).to_pylist()

    return run


def session(device="a", start=0, end=600, **columns):
    """A row; times in seconds after Monday."""
    return {"device_id": device, "start": MONDAY_S + start, "end": MONDAY_S + end} | columns
