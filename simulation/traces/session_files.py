"""Availability traces from Parquet and CSV: ``client_id, start_s, end_s`` and what may stand by."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.traces.sessions import AvailabilityTrace, trace_of_spans
from simulation.traces.spans import MAX_TIME_S, InvalidSpan, SpanRules, order_spans
from simulation.traces.trace_tables import TraceTable, read_trace_table

_SPAN_COLUMNS = ("client_id", "start_s", "end_s")
_OPTIONAL_COLUMNS = ("device_model", "repeat_every_s")


def read_sessions(
    path: Path,
    rules: SpanRules | None = None,
    *,
    only: Mapping[str, str | int] | None = None,
) -> AvailabilityTrace:
    """Read a trace: one row a span in which a client's device is available.

    Columns: ``client_id`` (whole numbers or text), ``start_s`` and ``end_s`` (seconds since the
    trace began at local midnight); optional ``device_model`` and ``repeat_every_s``, the same in
    all rows of a client. Rows may be in any order.

    Args:
        rules: What to do about overlaps and overlong spans, and when the trace repeats.
        only: Rows to keep, by column value, e.g. ``{"criteria": "strict"}``.

    Raises:
        UnreadableDataFile: If the file cannot be read.
        EmptyDataFile: If it has no rows, or none that ``only`` keeps.
        MissingColumn: If a column is missing.
        InvalidSpan: If a row cannot be; names file, row and column.
        OverlappingSpans: If spans of a client overlap and ``rules.merge`` is off.
    """
    table = read_trace_table(path, _SPAN_COLUMNS, optional=_OPTIONAL_COLUMNS, only=only)
    return trace_of_table(table, rules or SpanRules())


def trace_of_table(table: TraceTable, rules: SpanRules) -> AvailabilityTrace:
    """Build a trace of rows already read; see `read_sessions`."""
    clients, client = _numbered(table.client_ids("client_id", InvalidSpan))
    period_s = _periods(table, clients, client, rules)
    spans, repairs = order_spans(table, clients, client, period_s, rules)
    model, models = _device_models(table, clients, client)
    return trace_of_spans(
        clients, spans, period_s, repairs, device_model=model, device_models=models
    )


def _numbered(values: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Distinct values, ascending, and the number of each row's."""
    encoded = values.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary.take(pa.array(order)), number[codes]


def _periods(
    table: TraceTable, clients: pa.Array, client: NDArray[np.int64], rules: SpanRules
) -> NDArray[np.float64]:
    if rules.repeat_every_s is not None:
        if not 0 < rules.repeat_every_s <= MAX_TIME_S or rules.repeat_every_s % 1:
            raise InvalidSpan(
                f"{table.source}: repeat_every_s is {rules.repeat_every_s:g}; "
                "give a positive whole number of seconds"
            )
        return np.broadcast_to(float(rules.repeat_every_s), len(clients))
    if not table.has("repeat_every_s"):
        return np.broadcast_to(np.inf, len(clients))
    period_s = np.full(len(clients), np.inf)
    values_s = table.numbers("repeat_every_s", InvalidSpan)
    table.refuse(
        (values_s <= 0) | (values_s > MAX_TIME_S) | (values_s % 1 != 0),
        lambda row: f"repeat_every_s is {values_s[row]:g}; give a positive whole number of seconds",
        InvalidSpan,
    )
    period_s[client] = values_s
    _refuse_two_values(table, clients, client, values_s != period_s[client], "repeat_every_s")
    return period_s


def _device_models(
    table: TraceTable, clients: pa.Array, client: NDArray[np.int64]
) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    if not table.has("device_model"):
        return None, ()
    names, code = _numbered(table.texts("device_model", InvalidSpan))
    model = np.empty(len(clients), dtype=np.int32)
    model[client] = code
    _refuse_two_values(table, clients, client, code != model[client], "device_model")
    return model, tuple(names.to_pylist())


def _refuse_two_values(
    table: TraceTable,
    clients: pa.Array,
    client: NDArray[np.int64],
    differs: NDArray[np.bool_],
    column: str,
) -> None:
    table.refuse(
        differs,
        lambda row: (
            f"client {clients[int(client[row])].as_py()} has another {column} in another row; "
            "give each client one"
        ),
        InvalidSpan,
    )
