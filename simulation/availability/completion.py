"""Whether tasks fit into the time devices are available (FLINT, sections 3.2 and 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.statistics import LengthHistogram
from simulation.durations import TaskWork, task_durations
from simulation.portable_math import Floats, portable_exp, portable_log
from simulation.random_streams import RandomStreams
from simulation.run_summary import TIERS, speed_tiers
from simulation.traces.bandwidth import Bandwidth
from simulation.traces.device_profiles import DevicePopulation, DeviceProfiles
from simulation.traces.sessions import AvailabilityTrace

DRAWS = 100_000
_WEEK_S = 7 * 86_400.0
_POINTS_PER_BIN = 32
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class NoDeviceToMeasure(FlintError):
    """Task durations were asked for, but no device has a measured speed."""

    code = "FLN-2722"


@dataclass(frozen=True)
class AvailableSpans:
    """Spans in which devices are available.

    Attributes:
        length_s: Infinite for a device that is always available; shape ``(spans,)``.
        device_model: Index into ``device_models``, or -1 where it is not known; shape ``(spans,)``.
        device_models: Names.
        weight: How many spans each stands for, shape ``(spans,)``.
    """

    length_s: Floats
    device_model: NDArray[np.int64]
    device_models: Sequence[str]
    weight: Floats


def spans_of_trace(trace: AvailabilityTrace) -> AvailableSpans:
    """Spans of a trace, each with the model of its device."""
    length_s = trace.end_s - trace.start_s
    model = np.full(len(length_s), -1, dtype=np.int64)
    if trace.device_model is not None:
        model = np.repeat(trace.device_model.astype(np.int64), trace.window_counts())
    return AvailableSpans(length_s, model, trace.device_models, np.ones(len(length_s)))


def spans_of_histogram(lengths: LengthHistogram) -> AvailableSpans:
    """Spans as a histogram of lengths has them: even in their logarithm within a bin."""
    length_s, weight = _lengths(lengths.edges_s, lengths.spans)
    unknown = np.full(len(length_s), -1, dtype=np.int64)
    return AvailableSpans(length_s, unknown, (), weight)


def share_outlasting(lengths: LengthHistogram, duration_s: Floats) -> float:
    """Share of all sessions of the log, eligible or not, that last as long as a task drawn apart.

    Args:
        duration_s: Of tasks, ascending.
    """
    length_s, weight = _lengths(lengths.edges_s, lengths.sessions)
    done = np.searchsorted(duration_s, length_s, side="right") / len(duration_s)
    return float(np.average(done, weights=weight))


def _lengths(edges_s: Sequence[float], bins: Sequence[int]) -> tuple[Floats, Floats]:
    """Lengths within the bins of a histogram, and how many each stands for."""
    edges = np.array(edges_s)
    counts = np.array(bins, dtype=np.float64)
    low = np.maximum(edges[: len(counts)], 0.5)
    above = np.append(edges[1:], edges[-1] * 2**0.25)[: len(counts)]
    within = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN
    log_low, log_high = portable_log(low), portable_log(np.maximum(above, low))
    length_s = portable_exp(log_low[:, None] + (log_high - log_low)[:, None] * within)
    weight = np.repeat(counts / _POINTS_PER_BIN, _POINTS_PER_BIN)
    some = weight > 0
    return length_s.ravel()[some], weight[some]


@dataclass(frozen=True)
class Completion:
    """Tasks against spans.

    Attributes:
        share_from_start: Of spans that outlast a task that starts when they do.
        share_from_check_in: Of moments at which a device is available, those from which a task
            still finishes before the span ends.
        unmeasured_share: Of spans whose device model has no speed; left out of everything here.
        by_tier: ``share_from_start`` of fast, middle and slow devices.
        duration_s: Of the tasks drawn, ascending, shape ``(draws,)``.
        span_s: Of the spans drawn, ascending, shape ``(draws,)``.
        train_share: Of a task's time that is training, the rest is transfers; mean.
    """

    share_from_start: float
    share_from_check_in: float
    unmeasured_share: float
    by_tier: dict[str, float]
    duration_s: Floats
    span_s: Floats
    train_share: float

    def as_json(self) -> dict[str, Any]:
        """Plain values; quantiles instead of draws."""
        return {
            "share_from_start": self.share_from_start,
            "share_from_check_in": self.share_from_check_in,
            "unmeasured_share": self.unmeasured_share,
            "share_from_start_by_tier": self.by_tier,
            "train_share_of_duration": self.train_share,
            "duration_s": _quantiles(self.duration_s),
            "span_s": _quantiles(self.span_s),
        }


def completion(
    spans: AvailableSpans,
    work: TaskWork,
    profiles: DeviceProfiles,
    bandwidth: Bandwidth,
    *,
    records: int,
    population: DevicePopulation | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Completion:
    """Draw spans and tasks on their devices, ``t * E * |D| + M_down / N + M_up / N``, and compare.

    Args:
        records: Of a client.
        population: Decides the device of spans that do not name one; shares over any models.

    Raises:
        NoDeviceToMeasure: If no span's device has a measured speed.
    """
    streams = RandomStreams(seed)
    numbers = np.arange(draws)
    bounds = np.cumsum(spans.weight)
    if len(bounds) == 0:
        raise NoDeviceToMeasure(
            "the trace has no span, so no task can be set against one; relax the criteria "
            "(`flint availability tune` shows which)"
        )
    chosen = np.searchsorted(bounds, streams["completion/span"].uniforms(numbers) * bounds[-1])
    chosen = np.minimum(chosen, len(bounds) - 1)
    code = {name: at for at, name in enumerate(profiles.device_models)}
    own = np.array([code.get(name, -1) for name in spans.device_models] + [-1], dtype=np.int64)
    model = own[spans.device_model[chosen]]
    unnamed = spans.device_model[chosen] < 0
    if population is not None and unnamed.any():
        drawn = population.draw(streams["completion/model"].uniforms(numbers[unnamed]))
        known = np.array([code.get(name, -1) for name in population.device_models])
        model[unnamed] = known[drawn]
    measured = model >= 0
    if not measured.any():
        raise NoDeviceToMeasure(
            "no span names a device model that the profiles have; give --population for devices "
            "the trace does not name, or profiles of its device models"
        )
    length_s, model, kept = spans.length_s[chosen][measured], model[measured], numbers[measured]
    down, up = bandwidth.links(
        streams["completion/down"].uniforms(kept), streams["completion/up"].uniforms(kept)
    )
    durations = task_durations(
        work,
        records=np.full(len(kept), records),
        per_example_s=profiles.per_example_s_many(
            model.astype(np.int32), streams["completion/train"].uniforms(kept)
        ),
        down_bits_per_s=bandwidth.down.bits_per_s_many(
            down, streams["completion/transfer down"].uniforms(kept)
        ),
        up_bits_per_s=bandwidth.up.bits_per_s_many(
            up, streams["completion/transfer up"].uniforms(kept)
        ),
    )
    total_s = durations.total_s
    fits = length_s >= total_s
    return Completion(
        share_from_start=float(fits.mean()),
        share_from_check_in=_share_of_moments(length_s, total_s),
        unmeasured_share=float(1 - measured.mean()),
        by_tier=_by_tier(fits, model, profiles),
        duration_s=np.sort(total_s),
        span_s=np.sort(length_s),
        train_share=float((durations.train_s / total_s).mean()),
    )


def population_of_clients(
    device_models: NDArray[np.object_], weights: NDArray[np.int64]
) -> DevicePopulation | None:
    """Shares of device models among clients' spans; None if no client names one."""
    named = np.array([name is not None for name in device_models]) & (weights > 0)
    if not named.any():
        return None
    distinct, code = np.unique(device_models[named].astype(str), return_inverse=True)
    total = np.bincount(code, weights=weights[named])
    return DevicePopulation(tuple(distinct.tolist()), total / total.sum())


def _share_of_moments(length_s: Floats, total_s: Floats) -> float:
    """Share of spans' time that lies at least a task before their end; an endless one is a week."""
    endless = ~np.isfinite(length_s)
    counted_s = np.where(endless, _WEEK_S, length_s)
    inside_s = np.where(endless, _WEEK_S, np.maximum(length_s - total_s, 0.0))
    return float(inside_s.sum() / counted_s.sum())


def _by_tier(
    fits: NDArray[np.bool_], model: NDArray[np.int64], profiles: DeviceProfiles
) -> dict[str, float]:
    median_s = profiles.per_example_s_many(model.astype(np.int32), np.full(len(model), 0.5))
    tier = speed_tiers(median_s)
    return {
        name: float(fits[tier == at].mean()) for at, name in enumerate(TIERS) if (tier == at).any()
    }


def _quantiles(values: Floats) -> dict[str, float | None]:
    found = np.quantile(values, _QUANTILES, method="inverted_cdf")
    return {
        f"p{100 * p:g}": float(v) if np.isfinite(v) else None
        for p, v in zip(_QUANTILES, found, strict=True)
    }
