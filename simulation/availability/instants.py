"""Columns of times in whatever form a log has them, as seconds and what those seconds count."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.traces.spans import to_grid

TimeForm = Literal["auto", "epoch_s", "epoch_ms", "trace"]

NOT_A_TIME, UTC, LOCAL = 0, 1, 2

# As seconds, numbers from here on would be after the year 5000; as milliseconds they are from 1973.
_MILLISECONDS_FROM = 1e11
_NUMBER = r"^[-+]?\d{1,17}(\.\d*)?([eE][-+]?\d{1,2})?$"
_WALL_CLOCK = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
_WITH_OFFSET = _WALL_CLOCK + r"(Z|[+-]\d{2}:?\d{2})$"


class UnusableLogColumn(FlintError):
    """A column of the log holds a type that cannot be what it is mapped to."""

    code = "FLN-2606"


@dataclass(frozen=True, slots=True)
class Instants:
    """Times of a column, shapes ``(rows,)``.

    Attributes:
        seconds: Since 1970 of UTC or of the local clock (since the trace began, for traces); on the
            grid of `simulation.traces.spans`. Zero where there is no time.
        kind: ``NOT_A_TIME``, ``UTC`` or ``LOCAL``.
    """

    seconds: NDArray[np.float64]
    kind: NDArray[np.int8]


def read_instants(values: pa.Array, form: TimeForm, *, column: str, path: Path) -> Instants:
    """Read timestamps, numbers (seconds or milliseconds) or texts (ISO 8601, or numbers).

    Timestamps and texts without offset are of a local clock. What is no time is marked, not raised.

    Raises:
        UnusableLogColumn: If the column's type holds no times.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if pa.types.is_timestamp(kind):
        return _of_timestamps(values, UTC if kind.tz is not None else LOCAL)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _of_numbers(values, form)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_texts(values, form)
    if pa.types.is_null(kind):
        return Instants(np.zeros(len(values)), np.zeros(len(values), dtype=np.int8))
    raise UnusableLogColumn(
        f"{path}: column {column} holds {kind}, not times; give seconds or milliseconds since "
        "1970, timestamps, or ISO 8601 text"
    )


def _of_timestamps(values: pa.Array, kind: int) -> Instants:
    there = values.is_valid().to_numpy(zero_copy_only=False)
    ticks = values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
    seconds = ticks.fill_null(0).to_numpy(zero_copy_only=False) / 1e6
    return Instants(to_grid(seconds), np.where(there, kind, NOT_A_TIME).astype(np.int8))


def _of_numbers(values: pa.Array, form: TimeForm) -> Instants:
    if values.null_count == 0:
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        there = np.isfinite(numbers)
    else:
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        there = np.isfinite(numbers)
    if not there.all():
        numbers = np.where(there, numbers, 0.0)
    if form == "epoch_ms":
        numbers = numbers / 1000.0
    elif form == "auto":
        large = np.abs(numbers) >= _MILLISECONDS_FROM
        if large.any():
            numbers = np.where(large, numbers / 1000.0, numbers)
    there &= np.abs(numbers) < _MILLISECONDS_FROM
    kind = np.where(there, UTC, NOT_A_TIME).astype(np.int8)
    return Instants(to_grid(np.where(there, numbers, 0.0)), kind)


def _of_texts(values: pa.Array, form: TimeForm) -> Instants:
    texts = pc.utf8_trim_whitespace(values)
    seconds = np.zeros(len(texts))
    kind = np.zeros(len(texts), dtype=np.int8)
    for pattern, read in (
        (_NUMBER, _numbers_of_texts),
        (_WITH_OFFSET, _instants_of_texts),
        (_WALL_CLOCK + "$", _wall_clocks_of_texts),
    ):
        matches = _matching(texts, pattern) & (kind == NOT_A_TIME)
        if matches.any():
            found = read(texts.filter(pa.array(matches)), form)
            seconds[matches], kind[matches] = found.seconds, found.kind
        if matches.all():
            break
    return Instants(seconds, kind)


def _matching(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    matches = pc.match_substring_regex(texts, pattern).fill_null(False)
    found: NDArray[np.bool_] = matches.to_numpy(zero_copy_only=False)
    return found


def _numbers_of_texts(texts: pa.Array, form: TimeForm) -> Instants:
    return _of_numbers(pc.cast(texts, pa.float64()), form)


def _instants_of_texts(texts: pa.Array, _: TimeForm) -> Instants:
    return _of_timestamps(_parsed(texts, pa.timestamp("ns", "UTC")), UTC)


def _wall_clocks_of_texts(texts: pa.Array, _: TimeForm) -> Instants:
    return _of_timestamps(_parsed(texts, pa.timestamp("ns")), LOCAL)


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """Texts as timestamps; null where the calendar has no such time (30 February, 25:00)."""
    try:
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind)
        half = len(texts) // 2
        return pa.concat_arrays([_parsed(texts[:half], kind), _parsed(texts[half:], kind)])
