"""Availability without recorded data: sessions whose number swings with the hour of the day.

FLINT's availability falls to 0.15 of its weekly peak (Fig. 2), elsewhere the paper says to a
fourteenth; FLASH's phones fall to 0.35: ``trough_ratio`` is a parameter.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.portable_math import Floats, normal_quantile, portable_exp
from simulation.random_streams import RandomStreams
from simulation.traces.spans import Spans, join_spans

DAY_S = 86_400
_STEPS = 1440
_STEP_S = DAY_S / _STEPS
_ACTIVITY_LIMITS = (0.1, 10.0)
# Chances of a Poisson count are built up from exp(-mean), which must not vanish.
_MOST_SESSIONS_A_DAY = 600.0


class InvalidGeneratedWorld(FlintError):
    """Parameters of a generated world that are out of range or contradict each other."""

    code = "FLN-1709"


@dataclass(frozen=True, slots=True)
class GeneratedAvailability:
    """Sessions that begin at random, more often at one hour of the day than at others.

    The share of devices available swings smoothly between ``peak_share`` and ``trough_ratio *
    peak_share``, every day alike; the trace repeats without a seam. Defaults are near FLASH's
    phones (idle, charging, on Wi-Fi), with FLINT's deeper swing.

    Attributes:
        devices: Number of devices; one without any session is not in the trace.
        days: Length of the trace, after which it repeats.
        peak_share: Share of devices available at the peak (FLASH: 0.3).
        trough_ratio: Availability at the trough as a share of the peak's (FLINT: 0.15).
        peak_hour: Hour of the peak, from 0 to 24 (FLASH: 3).
        median_session_s: Median length of a session (FLASH: 2,094).
        log_stdev_session: Standard deviation of the logarithm of a session's length.
        longest_session_s: Sessions are cut here.
        log_stdev_activity: How unequally active devices are: standard deviation of the logarithm
            of their rate of sessions, within a tenth and ten times the median.
    """

    devices: int
    days: int = 7
    peak_share: float = 0.3
    trough_ratio: float = 0.15
    peak_hour: float = 3.0
    median_session_s: float = 2100.0
    log_stdev_session: float = 1.0
    longest_session_s: float = 6 * 3600.0
    log_stdev_activity: float = 0.8


def generate_sessions(settings: GeneratedAvailability, *, seed: int) -> pa.Table:
    """Columns ``client_id, start_s, end_s, repeat_every_s``, sorted by client and start.

    Sessions begin as a Poisson process of rate ``activity * (1 + m cos(...))`` and last lognormal
    times. The number of open ones is then Poisson too, its mean the rate convolved with the chance
    that a session still lasts, and a device is available unless it is zero: ``m`` and the rate are
    solved for the shares asked for, given the devices' activities.

    Raises:
        InvalidGeneratedWorld: If a parameter is out of range, or sessions last too long for so deep
            a swing within a day.
    """
    _check(settings)
    streams = RandomStreams(seed)
    devices = np.arange(settings.devices)
    spread = settings.log_stdev_activity * streams["generate/activity"].normals(devices)
    activity = np.clip(portable_exp(spread), *_ACTIVITY_LIMITS)
    rate_per_s = _session_rate(settings, activity)
    means = activity * float(rate_per_s.sum() * _STEP_S)
    if means.max() > _MOST_SESSIONS_A_DAY:
        raise InvalidGeneratedWorld(
            f"{means.max():.0f} sessions a day would be needed of one device; make sessions longer "
            "(median_session_s) or peak_share smaller"
        )
    day = np.arange(settings.days)
    uniforms = streams["generate/counts"].uniforms(devices[:, None], day)
    counts = _poisson(np.broadcast_to(means[:, None], uniforms.shape), uniforms)
    owner = np.repeat(devices, counts.sum(axis=1))
    on_day = np.repeat(np.tile(day, settings.devices), counts.ravel())
    number = np.arange(len(owner)) - np.searchsorted(owner, owner)
    clock = np.concatenate(([0.0], np.cumsum(rate_per_s)))
    start_s = on_day * DAY_S + np.interp(
        streams["generate/starts"].uniforms(owner, number) * clock[-1],
        clock,
        np.arange(_STEPS + 1) * _STEP_S,
    )
    length_s = _session_lengths_s(settings, streams["generate/lengths"].uniforms(owner, number))
    whole_s = np.maximum(np.rint(length_s), 1.0)
    return _periodic(owner, np.floor(start_s), whole_s, settings.days * DAY_S)


def _session_lengths_s(settings: GeneratedAvailability, uniforms: Floats) -> Floats:
    spread = settings.log_stdev_session * normal_quantile(uniforms)
    lengths_s = settings.median_session_s * portable_exp(spread)
    return np.minimum(lengths_s, settings.longest_session_s)


def _session_rate(settings: GeneratedAvailability, activity: Floats) -> Floats:
    """Sessions begun a second by a device of activity 1, in each minute of the day; ``(1440,)``."""
    peak = _mean_open(activity, settings.peak_share)
    trough = _mean_open(activity, settings.peak_share * settings.trough_ratio)
    # Convolved with the chance to last, a cosine stays one, flattened and delayed.
    mean_s, real_s, imaginary_s = _survival_response(settings)
    swing = (peak - trough) / (peak + trough) * mean_s / math.hypot(real_s, imaginary_s)
    if swing > 1.0:
        raise InvalidGeneratedWorld(
            f"sessions of median {settings.median_session_s:g} s last too long for availability to "
            f"fall to {settings.trough_ratio:g} of its peak within a day; lower median_session_s, "
            "log_stdev_session or longest_session_s, or raise trough_ratio"
        )
    delay = math.atan2(imaginary_s, real_s)
    wave = [
        1.0
        + swing
        * math.cos(2 * math.pi * ((step + 0.5) / _STEPS - settings.peak_hour / 24.0) + delay)
        for step in range(_STEPS)
    ]
    return np.array(wave) * ((peak + trough) / 2 / mean_s)


def _survival_response(settings: GeneratedAvailability) -> tuple[float, float, float]:
    """Mean session length, and the daily Fourier term of the chance to last; all in seconds."""
    lengths_s = _session_lengths_s(settings, (np.arange(4000) + 0.5) / 4000)
    since_s = np.arange(0.5, settings.longest_session_s / _STEP_S) * _STEP_S
    lasting = 1.0 - np.searchsorted(lengths_s, since_s, side="right") / len(lengths_s)
    angles = (2 * math.pi / DAY_S * since_s).tolist()
    real = np.array([math.cos(angle) for angle in angles])
    imaginary = np.array([math.sin(angle) for angle in angles])
    return (
        float(lasting.sum() * _STEP_S),
        float((lasting * real).sum() * _STEP_S),
        float((lasting * imaginary).sum() * _STEP_S),
    )


def _mean_open(activity: Floats, share: float) -> float:
    """Mean open sessions of a device of activity 1 at which this share of devices has any."""

    def share_open(mean_open: float) -> float:
        return 1.0 - float(portable_exp(-activity * mean_open).mean())

    low, high = 0.0, 1.0
    while share_open(high) < share:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_open(middle) < share else (low, middle)
    return (low + high) / 2


def _poisson(means: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """Poisson counts by inversion, shape of the arguments."""
    counts = np.zeros(means.shape, dtype=np.int64)
    chance = portable_exp(-means)
    reached = chance.copy()
    waiting = uniforms > reached
    most = int(means.max() + 40 * math.sqrt(means.max()) + 40)
    for count in range(1, most):
        if not waiting.any():
            break
        chance = chance * means / count
        reached += chance
        counts[waiting] = count
        waiting &= uniforms > reached
    return counts


def _periodic(
    owner: NDArray[np.int64], start_s: Floats, length_s: Floats, period_s: int
) -> pa.Table:
    """Spans within one period; what goes beyond its end goes on at its beginning."""
    end_s = start_s + length_s
    over = end_s > period_s
    client = np.concatenate((owner, owner[over]))
    start_s = np.concatenate((start_s, np.zeros(int(over.sum()))))
    end_s = np.concatenate((np.minimum(end_s, period_s), end_s[over] - period_s))
    order = np.lexsort((start_s, client))
    joined = join_spans(Spans(client[order], start_s[order], end_s[order]))
    return pa.table(
        {
            "client_id": joined.client,
            "start_s": joined.start_s.astype(np.int64),
            "end_s": joined.end_s.astype(np.int64),
            "repeat_every_s": np.full(len(joined.client), period_s),
        }
    )


def _check(settings: GeneratedAvailability) -> None:
    ranges = {
        "devices": settings.devices >= 1,
        "days": settings.days >= 1,
        "peak_share": 0 < settings.peak_share < 1,
        "trough_ratio": 0 < settings.trough_ratio <= 1,
        "peak_hour": 0 <= settings.peak_hour <= 24,
        "median_session_s": settings.median_session_s > 0,
        "log_stdev_session": 0 <= settings.log_stdev_session <= 3,
        "longest_session_s": _STEP_S <= settings.longest_session_s < DAY_S,
        "log_stdev_activity": 0 <= settings.log_stdev_activity <= 3,
    }
    for name, possible in ranges.items():
        if not possible:
            raise InvalidGeneratedWorld(
                f"{name} = {getattr(settings, name)} cannot make availability; give shares between "
                "0 and 1, lengths above 0 and below a day, and deviations from 0 to 3"
            )
