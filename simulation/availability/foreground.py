"""When an app was in the foreground within each session, from a list column or a text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.availability.instants import (
    LOCAL,
    NOT_A_TIME,
    TimeForm,
    UnusableLogColumn,
    read_instants,
)
from simulation.availability.log_values import is_text, plain
from simulation.availability.time_zones import TimeZones

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ForegroundSpans:
    """Spans in the order of their sessions.

    Attributes:
        session: Index of each span's session, ascending; shape ``(spans,)``.
        start_s: Instants, shape ``(spans,)``.
        end_s: Shape ``(spans,)``.
        known: Whether each session says; shape ``(sessions,)``.
        not_understood: Sessions with a span that cannot be read; shape ``(sessions,)``.
        outside: Sessions with a span that is not wholly within; shape ``(sessions,)``.
    """

    session: NDArray[np.int64]
    start_s: Floats
    end_s: Floats
    known: NDArray[np.bool_]
    not_understood: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    def seconds(self) -> Floats:
        """Time in the foreground of each session, for spans that do not overlap."""
        lengths_s = self.end_s - self.start_s
        total = np.bincount(self.session, weights=lengths_s, minlength=len(self.known))
        return total.astype(np.float64)


def read_foreground(
    values: pa.Array,
    start_s: Floats,
    end_s: Floats,
    zone: NDArray[np.int16],
    zones: TimeZones,
    form: TimeForm,
    *,
    column: str,
    path: Path,
) -> ForegroundSpans:
    """Read lists of ``{start, end}``, or texts ``start/end;start/end``; cut them to their sessions.

    Args:
        values: One a session.
        start_s: Of the sessions, instants; shape ``(sessions,)``.
        end_s: Shape ``(sessions,)``.
        zone: Of the sessions, for spans on a local clock; shape ``(sessions,)``.

    Raises:
        UnusableLogColumn: If the column's type holds neither.
    """
    known: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    session, starts, ends, broken = _pairs(plain(values), column=column, path=path)
    begins = read_instants(starts, form, column=column, path=path)
    stops = read_instants(ends, form, column=column, path=path)
    times = []
    for instants in (begins, stops):
        local = instants.kind == LOCAL
        seconds = instants.seconds
        if local.any():
            seconds = np.where(local, zones.utc_s(zone[session], seconds), seconds)
        times.append(seconds)
    span_start_s, span_end_s = times
    unread = (begins.kind == NOT_A_TIME) | (stops.kind == NOT_A_TIME) | (span_end_s < span_start_s)
    not_understood = np.bincount(session[unread], minlength=len(known)) > 0
    not_understood |= broken
    cut_start_s = np.maximum(span_start_s, start_s[session])
    cut_end_s = np.minimum(span_end_s, end_s[session])
    outside = ~unread & ((cut_start_s != span_start_s) | (cut_end_s != span_end_s))
    # Of a session that cannot be read as a whole, nothing is believed.
    kept = ~not_understood[session] & (cut_end_s > cut_start_s)
    return ForegroundSpans(
        session[kept],
        cut_start_s[kept],
        cut_end_s[kept],
        known & ~not_understood,
        not_understood,
        np.bincount(session[outside], minlength=len(known)) > 0,
    )


def _pairs(
    values: pa.Array, *, column: str, path: Path
) -> tuple[NDArray[np.int64], pa.Array, pa.Array, NDArray[np.bool_]]:
    """Session, start and end of each span, and which sessions have a text of another form."""
    kind = values.type
    broken = np.zeros(len(values), dtype=np.bool_)
    if pa.types.is_null(kind):
        return np.zeros(0, dtype=np.int64), pa.nulls(0), pa.nulls(0), broken
    if is_text(kind):
        trimmed = pc.utf8_rtrim(pc.utf8_trim_whitespace(values), ";")
        spans = pc.split_pattern(trimmed, ";")
        session = pc.list_parent_indices(spans).to_numpy(zero_copy_only=False).astype(np.int64)
        texts = pc.list_flatten(spans)
        filled = pc.not_equal(texts, "").to_numpy(zero_copy_only=False)
        session, texts = session[filled], texts.filter(pa.array(filled))
        two = pc.match_substring_regex(texts, r"^[^/]+/[^/]+$").to_numpy(zero_copy_only=False)
        broken |= np.bincount(session[~two], minlength=len(values)) > 0
        parts = pc.list_flatten(pc.split_pattern(texts.filter(pa.array(two)), "/"))
        return session[two], parts[::2], parts[1::2], broken
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_type
        if pa.types.is_struct(inner) and {"start", "end"} <= {field.name for field in inner}:
            session = pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
            pairs = pc.list_flatten(values)
            start, end = pc.struct_field(pairs, "start"), pc.struct_field(pairs, "end")
            return session.astype(np.int64), start, end, broken
    raise UnusableLogColumn(
        f"{path}: column {column} holds {kind}, not foreground spans; give a list of structs with "
        "start and end, or text as start/end;start/end"
    )
