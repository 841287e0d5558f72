"""Some devices of a large session log, each with all its sessions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from simulation.availability.client_keys import client_keys
from simulation.availability.criteria_file import AvailabilityCriteria
from simulation.availability.log_values import read_ids
from simulation.availability.problems import Problems
from simulation.availability.session_log import BATCH_ROWS, LogFile, open_session_log

_BYTES_PER_CSV_ROW = 60
# The lowest bits of a key choose the part it is spilled to; these choose the sample.
_SAMPLE_BITS = np.uint64(24)


def sample_devices(
    files: Sequence[Path],
    criteria: AvailabilityCriteria,
    folder: Path,
    *,
    max_sessions: int,
    source: str,
) -> tuple[list[Path], float]:
    """Keep as large a share of the devices as makes about ``max_sessions`` sessions.

    Which devices are kept depends on their ids alone.

    Args:
        folder: Where sampled files go; a log that is small enough is left where it is.

    Returns:
        Files, and the share of devices that was asked for: 1.0 if they are the log's own.

    Raises:
        FlintError: As `open_session_log`.
    """
    opened = open_session_log(files, criteria, Problems(), source=source)
    rows = sum(
        file.rows if file.rows is not None else file.size_bytes // _BYTES_PER_CSV_ROW + 1
        for file in opened
    )
    if rows <= max_sessions:
        return list(files), 1.0
    share = max_sessions / rows
    below = np.uint64(int(share * (1 << 40)))
    sampled = []
    for number, file in enumerate(opened):
        path = folder / f"sample-{number:04d}.parquet"
        writer = None
        for batch in _batches(file):
            ids = read_ids(
                batch.column(file.columns["device_id"]),
                column=file.columns["device_id"],
                path=file.path,
            )
            named = ids.is_valid()
            batch, ids = batch.filter(named), ids.filter(named)  # noqa: PLW2901
            kept = (client_keys(ids) >> _SAMPLE_BITS) < below
            if writer is None:
                writer = pq.ParquetWriter(path, batch.schema)
            writer.write_batch(batch.filter(pa.array(kept)))
        if writer is not None:
            writer.close()
            sampled.append(path)
    return sampled, share


def _batches(file: LogFile) -> Iterator[pa.RecordBatch]:
    """Whole rows, as they are; of CSV as text, malformed lines left out."""
    if not file.is_csv:
        with pq.ParquetFile(file.path) as parquet:
            yield from parquet.iter_batches(batch_size=BATCH_ROWS)
        return
    names = pyarrow.csv.open_csv(
        file.path, parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda _: "skip")
    ).schema.names
    with pyarrow.csv.open_csv(
        file.path,
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda _: "skip"),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            null_values=["", "null", "NULL", "None", "NaN", "nan"],
        ),
    ) as reader:
        yield from reader
