"""From events to curves: what a run's tasks add up to in each interval of virtual time."""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_NICE_S = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * m for m in (1, 2, 5, 10, 15, 30)),
    *(3600 * h for h in (1, 2, 3, 6, 12)),
    *(86400 * d for d in (1, 2, 7, 14, 28)),
)

Reals: TypeAlias = NDArray[np.float64]


def interval_edges(span_s: float, *, at_most: int = 180) -> Reals:
    """Edges of equal intervals of a width people count in (1, 2, 5 ... s, min, h, d) from 0.

    The last interval may reach beyond ``span_s``. Spans too short for whole seconds are cut into
    ``at_most`` parts.

    >>> interval_edges(600.0, at_most=5).tolist()
    [0.0, 120.0, 240.0, 360.0, 480.0, 600.0]
    """
    if not span_s > 0:
        return np.array([0.0, 1.0])
    if span_s < at_most / 4:
        return np.linspace(0.0, span_s, at_most + 1)
    width = next((w for w in _NICE_S if span_s <= w * at_most), None)
    if width is None:
        width = 28 * 86400 * math.ceil(span_s / (28 * 86400 * at_most))
    count = max(1, math.ceil(span_s / width))
    return np.arange(count + 1, dtype=np.float64) * width


def spread_over(start: Reals, end: Reals, amount: Reals, edges: Reals) -> Reals:
    """Sum in each interval of amounts that flow evenly from ``start`` to ``end``.

    An amount without duration falls into the interval of its start; what flows outside of the
    edges is left out, and so is what is not finite. Exact up to float64 rounding, in
    O(n log n) for n amounts.

    Args:
        start: When each begins, shape ``(n,)``.
        end: When each has flowed, not before its start, shape ``(n,)``.
        amount: How much flows, shape ``(n,)``.
        edges: Ascending, shape ``(k + 1,)``.

    Returns:
        Shape ``(k,)``.

    >>> spread_over(np.array([0.0]), np.array([4.0]), np.array([8.0]), np.array([0.0, 1, 3]))
    array([2., 4.])
    """
    known = np.isfinite(start) & np.isfinite(end) & np.isfinite(amount)
    start, end, amount = start[known], end[known], amount[known]
    lasts = end > start
    at_once, _ = np.histogram(start[~lasts], edges, weights=amount[~lasts])
    if not lasts.any():
        return np.asarray(at_once, dtype=np.float64)
    start, end, rate = start[lasts], end[lasts], amount[lasts] / (end[lasts] - start[lasts])
    when = np.concatenate([start, end])
    change = np.concatenate([rate, -rate])
    order = np.argsort(when, kind="stable")
    when, change = when[order], change[order]
    # Between two changes the rate is constant, so the cumulative amount is linear there.
    rates = np.cumsum(change)
    cumulative = np.concatenate([[0.0], np.cumsum(rates[:-1] * np.diff(when))])
    flowed = np.diff(np.interp(edges, when, cumulative))
    return np.asarray(at_once + np.maximum(flowed, 0.0), dtype=np.float64)


def mean_in_flight(started_s: Reals, ended_s: Reals, edges: Reals) -> Reals:
    """Tasks in flight in each interval, averaged over its time.

    Args:
        started_s: Shape ``(n,)``.
        ended_s: Shape ``(n,)``; NaN for a task that had not ended.
        edges: Ascending, shape ``(k + 1,)``.

    Returns:
        Shape ``(k,)``.
    """
    ended = np.where(np.isnan(ended_s), edges[-1], ended_s)
    return spread_over(started_s, ended, ended - started_s, edges) / np.diff(edges)


def peak_in_flight(started_s: Reals, ended_s: Reals) -> int:
    """Most tasks in flight at any time; one that ends when another starts makes room for it."""
    known = np.isfinite(started_s)
    started, ended = np.sort(started_s[known]), np.sort(ended_s[known])  # NaN sorts last
    if not started.size:
        return 0
    before = np.searchsorted(ended, started, side="right")
    return int(np.max(np.arange(1, started.size + 1) - before, initial=0))


def thinned(x: Reals, y: Reals, *, at_most: int = 600) -> tuple[Reals, Reals]:
    """Fewer points that look the same: of each stretch its lowest and its highest, and both ends.

    Args:
        x: Ascending, shape ``(n,)``.
        y: Shape ``(n,)``, finite.
    """
    if x.size <= at_most:
        return x, y
    kept = {0, x.size - 1}
    for stretch in np.array_split(np.arange(x.size), at_most // 2):
        kept.add(int(stretch[np.argmin(y[stretch])]))
        kept.add(int(stretch[np.argmax(y[stretch])]))
    chosen = np.array(sorted(kept))
    return x[chosen], y[chosen]
