"""Measured costs as the device profiles of an environment, and as a criteria file reads them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from device_runtime.errors import FlintError
from feature_catalog.measurements import MeasurementRow, Measurements
from flint.bench_table import newest_file
from server.device_criteria import BENCHMARK_RECORDS
from simulation.fitting.input_file import write_input


class NoMeasurements(FlintError):
    """There is nothing valid to report or to export."""

    code = "FLN-2509"


@dataclass(frozen=True, slots=True)
class MeasuredProfiles:
    """What goes into the file.

    Attributes:
        samples_s: Seconds per record of each run, by device model.
        memory_mb: Memory that training takes, 10^6 bytes, of the models where it was measured.
        emulated: Device models that are emulated.
        left_out: Device models measured with another file of the model only.
    """

    samples_s: Mapping[str, Sequence[float]]
    memory_mb: Mapping[str, float]
    emulated: tuple[str, ...]
    left_out: tuple[str, ...]


def measured_profiles(
    measurements: Measurements, model: str, *, with_emulated: bool = True
) -> MeasuredProfiles:
    """Samples of each device model's newest valid training measurement.

    Raises:
        NoMeasurements: If there is none; says how to measure.
    """
    found, left_out = newest_file(measurements, model)
    kept = {name: row for name, row in found.items() if with_emulated or not _is_emulated(row)}
    if not kept:
        raise NoMeasurements(_none_of(measurements, model, emulated_only=bool(found)))
    return MeasuredProfiles(
        samples_s={name: row.measurement.per_example_samples_s for name, row in kept.items()},
        memory_mb={
            name: row.measurement.memory_mb
            for name, row in kept.items()
            if row.measurement.memory_mb is not None
        },
        emulated=tuple(name for name, row in kept.items() if _is_emulated(row)),
        left_out=left_out,
    )


def write_profiles(path: Path, profiles: MeasuredProfiles) -> None:
    """Write ``device_model, per_example_s``, a row a sample, as environments read it.

    Raises:
        UnwritableInputFile: If it cannot be written.
    """
    rows = [(name, s) for name, samples_s in profiles.samples_s.items() for s in samples_s]
    names, seconds = zip(*rows, strict=True)
    write_input(path, pa.table({"device_model": names, "per_example_s": seconds}), {})


def write_measurements(path: Path, profiles: MeasuredProfiles) -> None:
    """Write ``device_model, train_s_per_5000, memory_mb``, a row a model, as criteria read them.

    Memory that was not measured is left empty.

    Raises:
        UnwritableInputFile: If it cannot be written.
    """
    names = list(profiles.samples_s)
    train_s = [BENCHMARK_RECORDS * statistics.fmean(profiles.samples_s[name]) for name in names]
    memory_mb = pa.array([profiles.memory_mb.get(name) for name in names], pa.float64())
    columns = {"device_model": names, "train_s_per_5000": train_s, "memory_mb": memory_mb}
    write_input(path, pa.table(columns), {})


def _is_emulated(row: MeasurementRow) -> bool:
    return row.measurement.emulated


def _none_of(measurements: Measurements, model: str, *, emulated_only: bool) -> str:
    if emulated_only:
        return (
            f"all measurements of {model} are of emulated devices; measure real ones with `flint "
            "bench run`, or leave --without-emulated out"
        )
    rows = measurements.list(model=model)
    if rows:
        reasons = [row.measurement.reasons[0] for row in rows if row.measurement.reasons]
        why = f"; the last failed: {reasons[-1]}" if reasons else ""
        return f"{model} has no valid training time among {len(rows)} measurements{why}"
    models = sorted({row.measurement.model for row in measurements.list()})
    others = f"; measured are {', '.join(models)}" if models else ""
    return f"{model} has not been measured{others}; run `flint bench run --model {model}`"
