"""Benchmark results by device model, as criteria of compute capability need them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import open_table
from server.device_criteria import BENCHMARK_RECORDS
from simulation.traces.device_profiles import read_device_profiles
from simulation.traces.trace_tables import read_trace_table

_PROFILED = frozenset({"per_example_s", "mean_s"})


class InvalidMeasurement(FlintError):
    """A benchmark result that no device can have."""

    code = "FLN-2610"


@dataclass(frozen=True, slots=True)
class MeasuredDevices:
    """What training costs each measured device model.

    Attributes:
        row: Index of each device model.
        train_s: Of `BENCHMARK_RECORDS` records, by index.
        memory_mb: By index; NaN if it was not asked for.
    """

    row: dict[str, int]
    train_s: NDArray[np.float64]
    memory_mb: NDArray[np.float64]


def read_measurements(path: Path, *, memory: bool) -> MeasuredDevices:
    """Read ``device_model, train_s_per_5000`` and, where asked for, ``memory_mb``.

    A model in several rows gets the mean of them. Device profiles of an environment
    (``per_example_s``, or ``mean_s``) do as well where memory is not asked for.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidMeasurement: If a time is not positive or memory negative; names the row.
        InvalidDeviceProfile: The same of profiles.
    """
    columns_there = set(open_table(path).schema.names)
    if not memory and "train_s_per_5000" not in columns_there and columns_there & _PROFILED:
        profiles = read_device_profiles(path)
        row = {name: number for number, name in enumerate(profiles.device_models)}
        train_s = profiles.mean_s() * BENCHMARK_RECORDS
        return MeasuredDevices(row, train_s, np.full(len(row), np.nan))
    columns = ["train_s_per_5000", *(["memory_mb"] if memory else [])]
    table = read_trace_table(path, ["device_model", *columns])
    names = table.texts("device_model", InvalidMeasurement).to_pylist()
    row = {name: number for number, name in enumerate(dict.fromkeys(names))}
    code = np.array([row[name] for name in names])
    rows_of = np.bincount(code)
    means = {}
    for column in columns:
        values = table.numbers(column, InvalidMeasurement)
        # Training takes time; that of a tiny model may take no memory beyond what is there.
        is_memory = column == "memory_mb"
        table.refuse(
            values < 0 if is_memory else values <= 0,
            lambda at, values=values, column=column, is_memory=is_memory: (  # type: ignore[misc]
                f"{column} is {values[at]:g}; give a measurement "
                f"{'not below' if is_memory else 'above'} 0"
            ),
            InvalidMeasurement,
        )
        means[column] = np.bincount(code, weights=values) / rows_of
    missing = np.full(len(row), np.nan)
    return MeasuredDevices(row, means["train_s_per_5000"], means.get("memory_mb", missing))
