"""From sessions to spans: overlaps merged, background gaps subtracted, hours cut out, days folded.

Spans are `simulation.traces.spans.Spans`: by client, then start.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.traces.criteria import DAY_S, DailyHours
from simulation.traces.spans import Spans

Index = NDArray[np.int64]


def overlaps_one_before(spans: Spans) -> NDArray[np.bool_]:
    """Which spans begin before one that began earlier, of the same client, has ended."""
    overlaps = np.zeros(len(spans.client), dtype=np.bool_)
    if len(overlaps):
        same = spans.client[1:] == spans.client[:-1]
        overlaps[1:] = same & (spans.start_s[1:] < _reached_s(spans)[:-1])
    return overlaps


def merge_overlaps(spans: Spans) -> tuple[Spans, Index]:
    """Unite spans that overlap; ones that only touch stay two.

    Returns:
        The spans, and the index of the first that each was made of.
    """
    overlaps = overlaps_one_before(spans)
    first = np.flatnonzero(~overlaps)
    if len(first) == len(overlaps):
        return spans, first
    last = np.append(first[1:], len(overlaps)) - 1
    return Spans(spans.client[first], spans.start_s[first], _reached_s(spans)[last]), first


def subtract_gaps(spans: Spans, max_gap_s: float) -> tuple[Spans, Index]:
    """Unite spans with gaps up to this long; the gaps are taken off the end.

    What results begins with the first span and lasts as long as all of them together, so that a
    task that pauses in the gaps is timed right (FLINT subtracts short background intervals).

    Args:
        spans: Disjoint.

    Returns:
        The spans, and the index of the first that each was made of.
    """
    if not len(spans.client):
        return spans, np.zeros(0, dtype=np.int64)
    begins = np.ones(len(spans.client), dtype=np.bool_)
    begins[1:] = (spans.client[1:] != spans.client[:-1]) | (
        spans.start_s[1:] - spans.end_s[:-1] > max_gap_s
    )
    first = np.flatnonzero(begins)
    length_s = np.add.reduceat(spans.end_s - spans.start_s, first)
    return Spans(spans.client[first], spans.start_s[first], spans.start_s[first] + length_s), first


def within_hours(spans: Spans, hours: DailyHours) -> tuple[Spans, Index]:
    """The parts of spans inside a daily window.

    Returns:
        The parts, and the index of the span of each.
    """
    opened_s = np.floor((spans.start_s - hours.start_s) / DAY_S) * DAY_S + hours.start_s
    days = np.ceil((spans.end_s - opened_s) / DAY_S).astype(np.int64)
    span = np.repeat(np.arange(len(days)), days)
    day = np.arange(len(span)) - np.repeat(np.cumsum(days) - days, days)
    open_s = opened_s[span] + day * DAY_S
    start_s = np.maximum(spans.start_s[span], open_s)
    end_s = np.minimum(spans.end_s[span], open_s + hours.length_s)
    some = end_s > start_s
    return Spans(spans.client[span[some]], start_s[some], end_s[some]), span[some]


def folded(spans: Spans, period_s: float) -> Spans:
    """All periods laid over one another: a client is available when it was in any of them."""
    whole = spans.end_s - spans.start_s >= period_s
    start_s = np.where(whole, 0.0, np.mod(spans.start_s, period_s))
    end_s = np.where(whole, period_s, start_s + (spans.end_s - spans.start_s))
    over = end_s > period_s
    parts = Spans(
        np.concatenate((spans.client, spans.client[over])),
        np.concatenate((start_s, np.zeros(int(over.sum())))),
        np.concatenate((np.minimum(end_s, period_s), end_s[over] - period_s)),
    )
    return merge_overlaps(in_order(parts))[0]


def in_order(spans: Spans) -> Spans:
    """By client, then start, then end."""
    order = np.lexsort((spans.end_s, spans.start_s, spans.client))
    return Spans(spans.client[order], spans.start_s[order], spans.end_s[order])


def _reached_s(spans: Spans) -> NDArray[np.float64]:
    """Largest end up to each span within its client."""
    starts_new = spans.client[1:] != spans.client[:-1]
    if not len(spans.client) or (starts_new | (spans.end_s[1:] >= spans.end_s[:-1])).all():
        return spans.end_s
    # Ranks of ends, shifted so that a later client's are all larger, have a plain running maximum.
    order = np.argsort(spans.end_s, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    block = np.concatenate(([0], np.cumsum(starts_new))) * len(order)
    reached_s: NDArray[np.float64] = spans.end_s[order][np.maximum.accumulate(rank + block) - block]
    return reached_s
