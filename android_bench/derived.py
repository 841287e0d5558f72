"""Figures of a benchmark, recomputed from raw runs; nothing a worker derived is ever used."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from android_bench.protocol import BenchResult

BYTES_A_MB = 1e6
"""MB are 10^6 bytes, as in FLINT's tables."""


@dataclass(frozen=True, slots=True)
class DerivedFigures:
    """What a model costs one device (a row behind FLINT's Table 5).

    Attributes:
        storage_mb: Model file and manifest.
        checkpoint_mb: Parameters a training device keeps beside them, and its update.
        records_mb: The records themselves, as they lay on the device's disk.
        network_mb: Of one task: parameters down, update up. Model file and manifest are fetched
            once a job and stand in ``storage_mb``.
        memory_mb: Largest growth of the peak resident size beyond that after imports.
        pass_s: Seconds of one pass over the records, of each run.
        pass_s_mean: Their mean.
        pass_s_stdev: Sample standard deviation across repeats; None of a single run.
        cpu_percent: CPU seconds over wall seconds of the measuring windows; 100 is one core.
        latency_p50_ms: Median of a call of inference, all runs together; None for training, and
            under a throttle, whose slices are longer than a call: only a pass is slowed down.
        latency_p95_ms: 95th percentile.
    """

    storage_mb: float
    checkpoint_mb: float
    records_mb: float
    network_mb: float
    memory_mb: float
    pass_s: tuple[float, ...]
    pass_s_mean: float
    pass_s_stdev: float | None
    cpu_percent: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None


def derive(result: BenchResult) -> DerivedFigures | None:
    """Figures of a result; None if it is not ok, for then there is nothing to draw them from."""
    if not result.validity.ok or not result.runs:
        return None
    runs = result.runs
    pass_s = tuple(run.wall_s / run.passes for run in runs)
    is_throttled = any(run.requested_duty is not None and run.requested_duty < 1 for run in runs)
    latencies_ns = [ns for run in runs for ns in run.latencies_ns if not is_throttled]
    return DerivedFigures(
        storage_mb=_largest_mb(run.model_file_bytes for run in runs),
        checkpoint_mb=_largest_mb(run.parameters_bytes + run.update_bytes for run in runs),
        records_mb=_largest_mb(run.records_bytes for run in runs),
        network_mb=_largest_mb(run.parameters_bytes + run.update_bytes for run in runs),
        memory_mb=_largest_mb(run.memory_peak_bytes - run.memory_imported_bytes for run in runs),
        pass_s=pass_s,
        pass_s_mean=mean(pass_s),
        pass_s_stdev=stdev(pass_s) if len(pass_s) > 1 else None,
        cpu_percent=100.0 * sum(run.cpu_s for run in runs) / sum(run.wall_s for run in runs),
        latency_p50_ms=_percentile_ms(latencies_ns, 50),
        latency_p95_ms=_percentile_ms(latencies_ns, 95),
    )


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """A model across device models, each counted once (the columns of FLINT's Table 5).

    Attributes:
        device_models: How many.
        mean: Of the device models' means.
        stdev: Sample standard deviation across device models, not across repeats; None of one.
    """

    device_models: int
    mean: float
    stdev: float | None


def across_device_models(values: Mapping[str, Sequence[float]]) -> FleetFigures | None:
    """Mean and spread across device models of a figure; None without any.

    Args:
        values: Of each device model, one value a device that measured it.
    """
    means = [mean(of_model) for of_model in values.values() if of_model]
    if not means:
        return None
    return FleetFigures(len(means), mean(means), stdev(means) if len(means) > 1 else None)


def _largest_mb(values: Iterable[int]) -> float:
    return max(values) / BYTES_A_MB


def _percentile_ms(latencies_ns: Sequence[int], percent: int) -> float | None:
    """By the nearest rank, so it is a latency that really was."""
    if not latencies_ns:
        return None
    ranked = sorted(latencies_ns)
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] / 1e6
