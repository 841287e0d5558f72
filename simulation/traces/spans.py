"""Spans of availability, checked and put in order: sorted, disjoint, joined where they touch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.traces.trace_tables import TraceTable

# Times are kept on a grid of 2**-20 s. Up to 2**33 s (272 years) sums and differences of grid
# times are then exact in float64, so a repeated trace has no rounding at its seams.
TICKS_PER_S = 2.0**20
MAX_TIME_S = 2.0**32


class InvalidSpan(FlintError):
    """A span of availability that no device can have had."""

    code = "FLN-1701"


class OverlappingSpans(FlintError):
    """Two spans of one client overlap, and merging them was not asked for."""

    code = "FLN-1702"


@dataclass(frozen=True, slots=True)
class SpanRules:
    """What may be done to spans that are not as they should be.

    Attributes:
        merge: Join overlapping spans of one client instead of refusing them.
        max_span_s: Longest believable span; None believes all. Gaps in a log read as availability:
            in FedScale's trace spans above one day hold 43 % of all available time.
        longer: What becomes of spans beyond ``max_span_s``.
        repeat_every_s: Whole seconds after which the trace starts anew; None takes the file's own
            column ``repeat_every_s``, without which nobody is available after the last span.
    """

    merge: bool = False
    max_span_s: float | None = None
    longer: Literal["cut", "drop"] = "cut"
    repeat_every_s: float | None = None


@dataclass(frozen=True, slots=True)
class SpanRepairs:
    """What was done to the rows of a file.

    Attributes:
        rows: Rows read.
        empty: Dropped, as they end when they start.
        cut: Cut at ``max_span_s``.
        dropped: Dropped, as they were longer than ``max_span_s``.
        joined: Joined to the span before, as they overlapped or touched it.
    """

    rows: int
    empty: int = 0
    cut: int = 0
    dropped: int = 0
    joined: int = 0


def repairs_in_words(repairs: SpanRepairs) -> list[str]:
    """What was done to a trace's rows that changes who is available when, for the user."""
    done = (
        (repairs.dropped, "longer than max_span_s and dropped"),
        (repairs.cut, "longer than max_span_s and cut"),
        (repairs.empty, "empty and left out"),
    )
    return [
        f"availability: {count} of {repairs.rows} spans {'is' if count == 1 else 'are'} {what}"
        for count, what in done
        if count
    ]


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans in order of client and start, disjoint and not touching within a client.

    Attributes:
        client: Index of the client, shape ``(spans,)``.
        start_s: Shape ``(spans,)``.
        end_s: First moment no longer available, shape ``(spans,)``.
    """

    client: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


def to_grid(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round to multiples of 2**-20 s, about a microsecond."""
    return np.rint(seconds * TICKS_PER_S) / TICKS_PER_S


def order_spans(
    table: TraceTable,
    clients: pa.Array,
    client: NDArray[np.int64],
    period_s: NDArray[np.float64],
    rules: SpanRules,
) -> tuple[Spans, SpanRepairs]:
    """Check the columns ``start_s`` and ``end_s`` and put them in order by the rules.

    Args:
        clients: Client ids by index.
        client: Index of each row's client, shape ``(rows,)``.
        period_s: When each client's trace repeats; infinite if never; shape ``(clients,)``.

    Raises:
        InvalidSpan: Negative, NaN, empty or too late times, an end before its start, or an end
            after the trace repeats; names the row.
        OverlappingSpans: Names the client and both rows.
    """
    start_s, end_s = _checked_times(table, clients, client)
    kept = end_s > start_s
    empty = int((~kept).sum())
    cut = dropped = 0
    if rules.max_span_s is not None:
        too_long = end_s - start_s > rules.max_span_s
        if rules.longer == "drop":
            kept &= ~too_long
            dropped = int(too_long.sum())
        else:
            end_s = np.where(too_long, start_s + to_grid(np.array(rules.max_span_s)), end_s)
            cut = int(too_long.sum())
    table.refuse(
        kept & (end_s > period_s[client]),
        lambda row: (
            f"the span ends at {end_s[row]:g} s, after its trace repeats at "
            f"{period_s[client[row]]:g} s; give a later repeat_every_s"
        ),
        InvalidSpan,
    )
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((end_s[rows], start_s[rows], client[rows]))]
    ordered = Spans(client[rows], start_s[rows], end_s[rows])
    if not rules.merge:
        _refuse_overlap(table, clients, ordered, rows)
    joined = join_spans(ordered)
    repairs = SpanRepairs(
        rows=len(start_s),
        empty=empty,
        cut=cut,
        dropped=dropped,
        joined=len(rows) - len(joined.client),
    )
    return joined, repairs


def _checked_times(
    table: TraceTable, clients: pa.Array, client: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    start_s = table.numbers("start_s", InvalidSpan)
    end_s = table.numbers("end_s", InvalidSpan)

    def of_client(row: int) -> str:
        return f"client {clients[int(client[row])].as_py()}"

    table.refuse(
        start_s < 0,
        lambda row: (
            f"{of_client(row)} starts at {start_s[row]:g} s, before the trace begins; "
            "count seconds from the beginning of the trace"
        ),
        InvalidSpan,
    )
    table.refuse(
        end_s < start_s,
        lambda row: (
            f"{of_client(row)} ends at {end_s[row]:g} s, before it starts at {start_s[row]:g} s; "
            "correct or remove the row"
        ),
        InvalidSpan,
    )
    table.refuse(
        end_s > MAX_TIME_S,
        lambda row: (
            f"{of_client(row)} ends at {end_s[row]:g} s, beyond 136 years; count seconds, from the "
            "beginning of the trace"
        ),
        InvalidSpan,
    )
    return to_grid(start_s), to_grid(end_s)


def _refuse_overlap(
    table: TraceTable, clients: pa.Array, spans: Spans, rows: NDArray[np.int64]
) -> None:
    # In order of start, any overlap shows between neighbours.
    overlaps = (spans.client[1:] == spans.client[:-1]) & (spans.start_s[1:] < spans.end_s[:-1])
    if not overlaps.any():
        return
    at = int(np.argmax(overlaps))
    others = int(overlaps.sum()) - 1
    also = f", as do {others} more pairs" if others else ""
    raise OverlappingSpans(
        f"{table.source}: client {clients[int(spans.client[at])].as_py()}: rows "
        f"{table.rows[rows[at]]} ({spans.start_s[at]:g} to {spans.end_s[at]:g} s) and "
        f"{table.rows[rows[at + 1]]} ({spans.start_s[at + 1]:g} to {spans.end_s[at + 1]:g} s) "
        f"overlap{also}; correct them, or ask for overlapping spans to be joined "
        "(availability.merge: true)"
    )


def join_spans(spans: Spans) -> Spans:
    """Unite spans of one client that overlap or touch.

    Args:
        spans: In order of client and start.
    """
    if not len(spans.client):
        return spans
    # The largest end so far within each client: ranks of ends, shifted so that a later client's
    # are all larger, have a plain running maximum.
    order = np.argsort(spans.end_s, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    reach = np.maximum.accumulate(rank + spans.client * len(order)) - spans.client * len(order)
    reached_s = spans.end_s[order][reach]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (spans.client[1:] != spans.client[:-1]) | (spans.start_s[1:] > reached_s[:-1])
    last = np.append(first[1:], True)
    return Spans(spans.client[first], spans.start_s[first], reached_s[last])
