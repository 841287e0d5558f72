"""Results into the catalog: derived figures as a row, the raw result beside them."""

from collections.abc import Iterable
from dataclasses import replace

from android_bench.derived import derive
from android_bench.protocol import BenchResult
from feature_catalog.measurements import Measurement, MeasurementRow, Measurements


def store_results(
    measurements: Measurements, results: Iterable[BenchResult]
) -> list[MeasurementRow]:
    """Add results; one that is stored already is the row there is."""
    return [measurements.add(as_measurement(r), r.to_json().encode()) for r in results]


def as_measurement(result: BenchResult) -> Measurement:
    """A result as the catalog keeps it."""
    device, spec, figures = result.device, result.spec, derive(result)
    measurement = Measurement(
        model=spec.model,
        model_sha256=bytes.fromhex(spec.model_sha256),
        task=spec.task,
        device_id=device.id,
        device_model=device.device_model,
        backend=device.backend,
        emulated=device.emulated,
        timing_valid=device.timing_valid,
        ok=figures is not None,
        reasons=result.validity.reasons,
        records=spec.records,
        batch_size=spec.batch_size,
        repeats=len(result.runs),
        os_version=device.os_version,
        os_release=device.os_release,
        cores=device.cores,
        device_memory_mb=device.memory_mb,
    )
    if figures is None:
        return measurement
    return replace(
        measurement,
        pass_s=figures.pass_s,
        pass_s_mean=figures.pass_s_mean,
        pass_s_stdev=figures.pass_s_stdev,
        memory_mb=figures.memory_mb,
        cpu_percent=figures.cpu_percent,
        storage_mb=figures.storage_mb,
        network_mb=figures.network_mb,
        latency_p50_ms=figures.latency_p50_ms,
        latency_p95_ms=figures.latency_p95_ms,
    )
