"""Benchmark results by device model, as criteria of compute capability need them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.traces.trace_tables import read_trace_table

MEASURED_RECORDS = 5000


class InvalidMeasurement(FlintError):
    """A benchmark result that no device can have."""

    code = "FLN-2610"


@dataclass(frozen=True, slots=True)
class MeasuredDevices:
    """What training costs each measured device model.

    Attributes:
        row: Index of each device model.
        train_s: Of 5,000 records, by index.
        memory_mb: By index; NaN if it was not asked for.
    """

    row: dict[str, int]
    train_s: NDArray[np.float64]
    memory_mb: NDArray[np.float64]


def read_measurements(path: Path, *, memory: bool) -> MeasuredDevices:
    """Read ``device_model, train_s_per_5000`` and, where asked for, ``memory_mb``.

    A model in several rows gets the mean of them.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidMeasurement: If a value is not positive; names the row.
    """
    columns = ["train_s_per_5000", *(["memory_mb"] if memory else [])]
    table = read_trace_table(path, ["device_model", *columns])
    names = table.texts("device_model", InvalidMeasurement).to_pylist()
    row = {name: number for number, name in enumerate(dict.fromkeys(names))}
    code = np.array([row[name] for name in names])
    rows_of = np.bincount(code)
    means = {}
    for column in columns:
        values = table.numbers(column, InvalidMeasurement)
        table.refuse(
            values <= 0,
            lambda at, values=values, column=column: (  # type: ignore[misc]
                f"{column} is {values[at]:g}; give a measurement above 0"
            ),
            InvalidMeasurement,
        )
        means[column] = np.bincount(code, weights=values) / rows_of
    missing = np.full(len(row), np.nan)
    return MeasuredDevices(row, means["train_s_per_5000"], means.get("memory_mb", missing))
