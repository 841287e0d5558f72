"""How many records each client holds where no data set says it: from a file, or drawn."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.environment import RecordCounts
from simulation.portable_math import normal_quantile, portable_exp
from simulation.random_streams import RandomStreams
from simulation.traces.trace_tables import read_trace_table

_MOST_RECORDS = 10**9


class InvalidRecordCounts(FlintError):
    """A row of a file of record counts that no client can hold."""

    code = "FLN-3080"


def read_record_counts(path: Path) -> NDArray[np.int32]:
    """Records of each client, shape ``(clients,)``, from Parquet or CSV with a column ``records``.

    A run's own ``population.parquet`` is such a file. Other columns are ignored.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidRecordCounts: If a count is no whole number from 0 to 10**9; names the row.
    """
    table = read_trace_table(path, ["records"])
    counts = table.numbers("records", InvalidRecordCounts)
    table.refuse(
        (counts < 0) | (counts > _MOST_RECORDS) | (counts != np.floor(counts)),
        lambda row: (
            f"records is {counts[row]:g}; give the number of records a client holds, a whole "
            "number from 0 to 1,000,000,000"
        ),
        InvalidRecordCounts,
    )
    return counts.astype(np.int32)


def draw_record_counts(settings: RecordCounts, clients: int, seed: int) -> NDArray[np.int32]:
    """Records of each client, lognormal, at least 1 and at most ``settings.most``.

    Args:
        settings: With a median.
        clients: How many to draw.
        seed: The population's.

    Returns:
        Shape ``(clients,)``.
    """
    if settings.median is None:
        raise ValueError("records are drawn around a median")
    uniforms = RandomStreams(seed)["population/records"].uniforms(np.arange(clients))
    normals = normal_quantile(uniforms)
    drawn = np.rint(settings.median * portable_exp(settings.log_stdev * normals))
    return np.clip(drawn, 1, settings.most).astype(np.int32)
