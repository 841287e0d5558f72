"""What is in a file that an environment names, found by the reader a dry-run uses."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from feature_catalog.environment_inputs import InputKind

_DAY_S = 86_400.0


def read_statistics(path: Path, kind: "InputKind") -> dict[str, Any]:
    """Read a file as a dry-run would and describe what is in it; JSON.

    Raises:
        FlintError: What the kind's reader raises for a file it does not take.
    """
    return {
        "availability": _availability,
        "device_profiles": _device_profiles,
        "device_population": _device_population,
        "bandwidth": _bandwidth,
    }[kind](path)


def in_short(kind: str, statistics: Mapping[str, Any]) -> str:
    """A line on what `read_statistics` found."""
    found = statistics
    if kind == "availability":
        return (
            f"{found['clients']} clients, {found['spans']} spans, "
            f"{found['horizon_s'] / _DAY_S:.3g} days, {found['available_share']:.2g} available"
        )
    if kind == "device_profiles":
        slow, fast = found["slowest_per_example_s"], found["fastest_per_example_s"]
        return f"{found['device_models']} device models, {fast:.2g} to {slow:.2g} s per example"
    if kind == "device_population":
        return f"{found['device_models']} device models, {found['most_common']} most common"
    down, up = found["median_down_kbps"], found["median_up_kbps"]
    return f"{found['links']} links, medians {down:.4g} kbit/s down and {up:.4g} up"


def _availability(path: Path) -> dict[str, Any]:
    from simulation.traces.session_files import read_sessions
    from simulation.traces.spans import OverlappingSpans, SpanRules

    overlapping = False
    try:
        trace = read_sessions(path)
    except OverlappingSpans:
        # Whether to merge them or to keep some of the rows is for the environment to say.
        overlapping = True
        trace = read_sessions(path, SpanRules(merge=True))
    spans_s = trace.end_s - trace.start_s
    periods_s = np.unique(trace.period_s)
    share = trace.available_share()
    return {
        "rows": trace.repairs.rows,
        "clients": len(trace),
        "spans": len(spans_s),
        "horizon_s": trace.horizon_s,
        "repeat_every_s": _one_repeat(periods_s),
        "available_share": float(share.mean()),
        "median_span_s": float(np.median(spans_s)) if len(spans_s) else None,
        "device_models": len(trace.device_models) if trace.device_model is not None else None,
        "overlapping": overlapping,
    }


def _one_repeat(periods_s: NDArray[np.float64]) -> float | str | None:
    """The period all clients share, ``"differs"``, or None where no trace repeats."""
    if len(periods_s) != 1:
        return "differs"
    return float(periods_s[0]) if np.isfinite(periods_s[0]) else None


def _device_profiles(path: Path) -> dict[str, Any]:
    from simulation.traces.device_profiles import read_device_profiles

    profiles = read_device_profiles(path)
    models = np.arange(len(profiles.device_models), dtype=np.int32)
    medians_s = profiles.per_example_s_many(models, np.full(len(models), 0.5))
    return {
        "device_models": len(models),
        "samples": len(profiles.samples_s),
        "distribution": "samples" if len(profiles.samples_s) else "lognormal",
        "fastest_per_example_s": float(medians_s.min()),
        "median_per_example_s": float(np.median(medians_s)),
        "slowest_per_example_s": float(medians_s.max()),
    }


def _device_population(path: Path) -> dict[str, Any]:
    from simulation.traces.device_profiles import read_device_population

    population = read_device_population(path)
    largest = int(population.share.argmax())
    return {
        "device_models": len(population.device_models),
        "most_common": population.device_models[largest],
        "largest_share": float(population.share[largest]),
    }


def _bandwidth(path: Path) -> dict[str, Any]:
    from simulation.traces.bandwidth import read_bandwidth

    bandwidth = read_bandwidth(path)
    statistics: dict[str, Any] = {
        "links": max(len(bandwidth.down), len(bandwidth.up)),
        "paired": bandwidth.paired,
    }
    for direction, speeds in (("down", bandwidth.down), ("up", bandwidth.up)):
        low, median, high = np.percentile(speeds.median_kbps, [5, 50, 95])
        statistics |= {
            f"p5_{direction}_kbps": float(low),
            f"median_{direction}_kbps": float(median),
            f"p95_{direction}_kbps": float(high),
        }
    return statistics
