"""One benchmark run as people and programs read it."""

from collections.abc import Mapping
from typing import Any

from android_bench.derived import across_device_models, derive
from android_bench.devices.emulated import shipped_profiles
from android_bench.harness import BenchOutcomes
from android_bench.protocol import BenchResult
from android_bench.run_folder import RunFolder

COLUMNS = (
    "device",
    "s a pass",
    "stdev",
    "CPU %",
    "memory MB",
    "network MB",
    "storage MB",
    "p50 ms",
    "p95 ms",
)


def shown(outcomes: BenchOutcomes) -> list[tuple[object, ...]]:
    """Rows of `COLUMNS`, a device each: real ones before emulated ones, then by name."""
    rows: list[tuple[object, ...]] = []
    for result in sorted(
        outcomes.results, key=lambda each: (each.device.emulated, each.device.device_model)
    ):
        figures = derive(result)
        if figures is not None:
            rows.append(
                (
                    result.device.device_model,
                    figures.pass_s_mean,
                    figures.pass_s_stdev,
                    figures.cpu_percent,
                    figures.memory_mb,
                    figures.network_mb,
                    figures.storage_mb,
                    figures.latency_p50_ms,
                    figures.latency_p95_ms,
                )
            )
    return rows


def described(folder: RunFolder, outcomes: BenchOutcomes) -> dict[str, Any]:
    """The run for programs; times of emulated and of other devices are never averaged together."""
    real, emulated = _pass_s(outcomes, emulated=False), _pass_s(outcomes, emulated=True)
    return {
        "model": folder.spec.model,
        "task": folder.spec.task,
        "records": folder.spec.records,
        "repeats": folder.spec.repeats,
        "folder": str(folder.path),
        "devices": {
            outcome.name: _device(outcome.result)
            for outcome in outcomes.devices
            if outcome.result is not None
        },
        "across_device_models": {"real": _fleet(real), "emulated": _fleet(emulated)},
        "failures": outcomes.failures,
        "failed_repeats": outcomes.failed_repeats,
    }


def sentences(outcomes: BenchOutcomes) -> list[str]:
    """What went wrong: how much, and an example each."""
    told = []
    failures = outcomes.failures
    if failures:
        name, reason = next(iter(failures.items()))
        told.append(
            f"{len(failures)} of {len(outcomes.devices)} devices gave no figures; {name}: {reason}"
        )
    repeats = {n: r for n, r in outcomes.failed_repeats.items() if n not in failures}
    if repeats:
        name, reasons = next(iter(repeats.items()))
        count = sum(len(reasons) for reasons in repeats.values())
        told.append(f"{count} repeats failed, the others count; {name}: {reasons[0]}")
    return told


def _device(result: BenchResult) -> dict[str, Any]:
    figures, device = derive(result), result.device
    profile = shipped_profiles().get(device.profile or "") if device.emulated else None
    told: dict[str, Any] = {
        "device_model": device.device_model,
        "backend": device.backend,
        "emulated": device.emulated,
        "timing_valid": device.timing_valid,
        "ok": figures is not None,
        "reasons": list(result.validity.reasons),
    }
    if figures is None:
        return told
    told |= {
        "pass_s_mean": figures.pass_s_mean,
        "pass_s_stdev": figures.pass_s_stdev,
        "per_record_s": figures.pass_s_mean / result.spec.records,
        "cpu_percent": figures.cpu_percent,
        "memory_mb": figures.memory_mb,
        "network_mb": figures.network_mb,
        "storage_mb": figures.storage_mb,
        "checkpoint_mb": figures.checkpoint_mb,
        "records_mb": figures.records_mb,
        "latency_p50_ms": figures.latency_p50_ms,
        "latency_p95_ms": figures.latency_p95_ms,
        "repeats": len(result.runs),
    }
    if result.spec.task == "train":
        told |= {"loss_first": result.runs[0].loss_first, "loss_last": result.runs[0].loss_last}
    if profile is not None:
        run = result.runs[0]
        told |= {
            "requested_duty": profile.duty,
            "achieved_duty": [run.achieved_duty for run in result.runs],
            "transfer_s": profile.transfer_s(run.parameters_bytes, run.update_bytes),
        }
    return told


def _pass_s(outcomes: BenchOutcomes, *, emulated: bool) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for result in outcomes.results:
        figures = derive(result)
        device = result.device
        if figures is not None and device.timing_valid and device.emulated == emulated:
            found.setdefault(device.device_model, []).append(figures.pass_s_mean)
    return found


def _fleet(values: Mapping[str, list[float]]) -> dict[str, Any] | None:
    figures = across_device_models(values)
    if figures is None:
        return None
    return {
        "device_models": figures.device_models,
        "pass_s_mean": figures.mean,
        "pass_s_stdev": figures.stdev,
    }
