"""Mean number of available clients in each hour of the local week, over what a log covers."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulation.availability.statistics import HOURS_OF_WEEK

Floats = NDArray[np.float64]

WEEK_S = 604_800.0
HOUR_S = 3600.0
# Less than this of an hour of the week says too little of it.
_LEAST_OBSERVED_S = 1800.0


@dataclass(slots=True)
class WeeklyHours:
    """Seconds of availability by time zone and hour of the week, so far."""

    _seconds: Floats = field(default_factory=lambda: np.zeros((0, HOURS_OF_WEEK)))

    def add(self, zone: NDArray[np.int16], start_s: Floats, end_s: Floats) -> None:
        """Count spans; times are local, second 0 is Monday 00:00; shapes ``(spans,)``."""
        if not len(zone):
            return
        zones = max(int(zone.max()) + 1, len(self._seconds))
        grown = np.zeros((zones, HOURS_OF_WEEK))
        grown[: len(self._seconds)] = self._seconds
        self._seconds = grown + seconds_by_hour(zone, start_s, end_s, zones)

    def means(self, observed_s: Floats) -> list[float | None]:
        """Mean number available in each hour; None where some zone was not observed then.

        Args:
            observed_s: Seconds for which the log covers each hour of each zone's week, shape
                ``(zones, 168)``.
        """
        if not len(observed_s):
            return [None] * HOURS_OF_WEEK
        least_s = observed_s.min(axis=0)
        # A log of minutes has no such hour: what there is of it.
        enough = least_s >= min(_LEAST_OBSERVED_S, max(float(least_s.max()), 1e-9))
        seconds = np.zeros(observed_s.shape)
        seconds[: len(self._seconds)] = self._seconds
        means = seconds / np.maximum(observed_s, 1e-9)
        # Exact sums: zones come in the order in which the log names them.
        return [math.fsum(means[:, h]) if enough[h] else None for h in range(HOURS_OF_WEEK)]


def seconds_by_hour(zone: NDArray[np.int16], start_s: Floats, end_s: Floats, zones: int) -> Floats:
    """Seconds of spans in each hour of the week, shape ``(zones, 168)``."""
    group = zone.astype(np.int64)
    weeks = np.floor((end_s - start_s) / WEEK_S)
    total = np.bincount(group, weights=weeks * HOUR_S, minlength=zones)[:, None]
    start_s = np.mod(start_s, WEEK_S)
    end_s = start_s + (end_s - np.floor(end_s / WEEK_S) * WEEK_S - start_s) % WEEK_S
    over = end_s > WEEK_S
    if over.any():
        group = np.concatenate((group, group[over]))
        start_s = np.concatenate((start_s, np.zeros(int(over.sum()))))
        end_s = np.concatenate((np.minimum(end_s, WEEK_S), end_s[over] - WEEK_S))
    # An hour more than the week has, for what ends with it.
    bins = HOURS_OF_WEEK + 1
    first, last = (np.floor(each / HOUR_S).astype(np.int64) for each in (start_s, end_s))
    inside = first == last
    head_s = np.where(inside, end_s, (first + 1) * HOUR_S) - start_s
    tail_s = np.where(inside, 0.0, end_s - last * HOUR_S)
    size = zones * bins
    partial = np.bincount(group * bins + first, weights=head_s, minlength=size)
    partial += np.bincount(group * bins + last, weights=tail_s, minlength=size)
    across = ~inside
    begun = np.bincount((group * bins + first + 1)[across], minlength=size + 1)[:size]
    ended = np.bincount((group * bins + last)[across], minlength=size)
    whole = np.cumsum((begun - ended).reshape(zones, bins), axis=1) * HOUR_S
    by_hour: Floats = (partial.reshape(zones, bins) + whole)[:, :HOURS_OF_WEEK] + total
    return by_hour
