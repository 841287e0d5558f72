"""What the catalog's benchmarks say of devices, for a job's `participation.device`."""

from collections.abc import Callable, Mapping
from typing import Any

from device_runtime.errors import FlintError
from feature_catalog.measurements import Measurement, Measurements
from server.device_criteria import BENCHMARK_RECORDS, DeviceCriteria, MeasuredModel
from server.job import Job


class NoDeviceMeasurements(FlintError):
    """A job limits what training may cost a device, and nobody has measured that."""

    code = "FLN-2550"


class NoDeviceModelPasses(FlintError):
    """No measured device model is within a job's limits."""

    code = "FLN-2551"


def measured_memory_mb(measurements: Measurements, model: str) -> dict[str, float]:
    """Memory that training a model takes, 10^6 bytes, by device model."""
    found = measurements.latest_by_device_model(model)
    return {
        name: row.measurement.memory_mb
        for name, row in found.items()
        if row.measurement.memory_mb is not None
    }


def with_measured_devices(job: Job, measurements: Measurements, note: Callable[[str], None]) -> Job:
    """The job with the measurements its devices are judged by; itself if it asks for none.

    Args:
        note: Told what the user should know of them.

    Raises:
        NoDeviceMeasurements: If the job's model, or the memory asked for, was never measured.
        NoDeviceModelPasses: If no device model would be given a task.
    """
    criteria = job.participation.device
    if criteria is None or not criteria.asks_for_measurements:
        return job
    limits = " and ".join(
        name for name in ("max_train_s", "max_memory_mb") if getattr(criteria, name) is not None
    )
    rows = measurements.latest_by_device_model(job.model)
    newest = {name: row.measurement for name, row in rows.items()}
    measured = {name: model for name, m in newest.items() if (model := _judged(criteria, m))}
    if not measured:
        raise NoDeviceMeasurements(
            f"participation.device asks for {limits}, and the catalog has no valid benchmark of "
            f"training {job.model} on any device; run `flint bench run --model {job.model}`, or "
            f"remove {limits}"
        )
    frozen = criteria.with_measured(measured)
    if not frozen.admitted_models:
        fastest = min(measured, key=lambda name: measured[name].train_s)
        raise NoDeviceModelPasses(
            f"participation.device excludes every device: of {len(measured)} measured device "
            f"model(s) none keeps to {limits} (the fastest, {fastest}, takes "
            f"{_cost(measured[fastest])}); raise the limit, or train a smaller model than "
            f"{job.model}"
        )
    note(_summary(job, frozen, newest))
    participation = job.participation.model_copy(update={"device": frozen})
    return job.model_copy(update={"participation": participation})


def describe_devices(job: Job) -> dict[str, Any] | None:
    """Which devices a job admits, as JSON; None if it admits all."""
    criteria = job.participation.device
    if criteria is None:
        return None
    asked = criteria.model_dump(exclude={"measured"}, exclude_none=True)
    measured = criteria.measured or {}
    return {
        **asked,
        "admitted_models": list(criteria.admitted_models),
        "measured": {
            name: {**found.model_dump(), "refused": criteria.model_refusal(found)}
            for name, found in measured.items()
        },
    }


def _judged(criteria: DeviceCriteria, found: Measurement) -> MeasuredModel | None:
    """What a device model is judged by; None if the measurement lacks what the job asks for."""
    if found.per_example_s is None:
        return None
    if criteria.max_memory_mb is not None and found.memory_mb is None:
        return None
    return MeasuredModel(
        train_s=found.per_example_s * BENCHMARK_RECORDS,
        memory_mb=found.memory_mb,
        emulated=found.emulated,
    )


def _cost(found: MeasuredModel) -> str:
    memory = "" if found.memory_mb is None else f" and {found.memory_mb:.1f} MB"
    return f"{found.train_s:.3g} s for {BENCHMARK_RECORDS:,} records{memory}"


def _summary(job: Job, frozen: DeviceCriteria, newest: Mapping[str, Measurement]) -> str:
    measured, admitted = frozen.measured or {}, frozen.admitted_models
    told = [
        f"participation.device admits {len(admitted)} of {len(measured)} measured device models"
    ]
    emulated = sum(measured[name].emulated for name in admitted)
    if emulated:
        told.append(f"{emulated} of them measured on an emulated device only")
    others = {newest[name].batch_size for name in measured} - {job.client.batch_size}
    if others:
        sizes = ", ".join(str(size) for size in sorted(others))
        told.append(f"some measured with batch size {sizes}, not {job.client.batch_size}")
    return "; ".join(told)
