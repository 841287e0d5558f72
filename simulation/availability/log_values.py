"""Columns of a log that are no times: numbers, truth values, months and names, in any form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.availability.instants import UnusableLogColumn

UNKNOWN_MONTH = -1
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*$"
_TRUE = ("true", "1", "yes", "t", "wifi", "unmetered")
_FALSE = ("false", "0", "no", "f", "cellular", "mobile", "metered", "none")


def plain(values: pa.Array) -> pa.Array:
    """Values without dictionary encoding."""
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def encoded(values: pa.Array) -> pa.DictionaryArray:
    """Values with dictionary encoding, of a dictionary that may hold a value twice."""
    return values if pa.types.is_dictionary(values.type) else values.dictionary_encode()


def codes_of(
    values: pa.Array, code: Callable[[str], int], *, missing: int, column: str, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str | None]]:
    """Code of each text: each distinct one is asked for once.

    Args:
        code: Of a text.
        missing: Code of null and empty.

    Returns:
        Codes, shape ``(rows,)``; and the index of each row in the list of distinct texts, which
        follows (with None at its end).

    Raises:
        UnusableLogColumn: If the column holds neither texts nor whole numbers.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise UnusableLogColumn(f"{path}: column {column} holds {kind}, not names; give text")
    few = encoded(values)
    texts: list[str | None] = few.dictionary.cast(pa.string()).to_pylist()
    known = np.array([code(text) if text else missing for text in texts] + [missing])
    index = few.indices.cast(pa.int64()).fill_null(len(texts)).to_numpy(zero_copy_only=False)
    return known[index], index, [*texts, None]


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def read_ids(values: pa.Array, *, column: str, path: Path) -> pa.Array:
    """Device ids: ``int64`` if they are whole numbers, else ``large_string``; empty ones are null.

    Raises:
        UnusableLogColumn: If they are neither numbers nor texts.
    """
    values = plain(values)
    kind = values.type
    if pa.types.is_null(kind):
        return values.cast(pa.large_string())
    if pa.types.is_integer(kind):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:  # unsigned ids beyond int64
            return values.cast(pa.large_string())
    if not is_text(kind):
        raise UnusableLogColumn(
            f"{path}: column {column} holds {kind}, not device ids; give text or whole numbers"
        )
    texts = values.cast(pa.large_string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)


def read_numbers(
    values: pa.Array, *, column: str, path: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers, NaN where there is none; and which values are there and are no number.

    Raises:
        UnusableLogColumn: If the column's type holds no numbers.
    """
    values = plain(values)
    kind = values.type
    none = np.zeros(len(values), dtype=np.bool_)
    if pa.types.is_null(kind):
        return np.full(len(values), np.nan), none
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _floats(values), none
    if not is_text(kind):
        raise UnusableLogColumn(f"{path}: column {column} holds {kind}, not numbers; give numbers")
    matches = pc.match_substring_regex(values, _NUMBER)
    texts = pc.if_else(matches, pc.utf8_trim_whitespace(values), pa.scalar(None, values.type))
    there = values.is_valid().to_numpy(zero_copy_only=False)
    numbers = _floats(texts)
    return numbers, there & ~np.isfinite(numbers)


def read_flags(
    values: pa.Array, *, column: str, path: Path
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """True as 1, false as 0, not known as -1; and which values are there and are neither.

    Raises:
        UnusableLogColumn: If the column's type holds no truth values.
    """
    values = plain(values)
    kind = values.type
    there: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_boolean(kind):
        flags = values.cast(pa.int8()).fill_null(-1).to_numpy(zero_copy_only=False)
        return flags, np.zeros(len(values), dtype=np.bool_)
    if pa.types.is_null(kind):
        return np.full(len(values), -1, dtype=np.int8), np.zeros(len(values), dtype=np.bool_)
    if is_text(kind):
        words = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        yes = _among(words, _TRUE)
        no = _among(words, _FALSE)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = _floats(values)
        yes, no = numbers == 1, numbers == 0
        there &= ~np.isnan(numbers)
    else:
        raise UnusableLogColumn(
            f"{path}: column {column} holds {kind}, not true and false; give booleans or 0 and 1"
        )
    return np.where(yes, 1, np.where(no, 0, -1)).astype(np.int8), there & ~yes & ~no


def read_months(values: pa.Array, *, column: str, path: Path) -> NDArray[np.int32]:
    """Months, counted from year 0, of dates, timestamps or texts ``YYYY-MM[-DD]``; -1: not known.

    Raises:
        UnusableLogColumn: If the column's type holds no dates.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_null(kind):
        return np.full(len(values), UNKNOWN_MONTH, dtype=np.int32)
    if is_text(kind):
        few = encoded(values)  # few releases, many sessions
        parts = pc.extract_regex(few.dictionary, r"^\s*(?P<y>\d{4})-(?P<m>0[1-9]|1[0-2])(?:-|\s*$)")
        months = pc.add(
            pc.multiply(pc.cast(pc.struct_field(parts, "y"), pa.int32()), 12),
            pc.subtract(pc.cast(pc.struct_field(parts, "m"), pa.int32()), 1),
        )
        taken = months.take(few.indices)
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        values = plain(values)
        years = pc.multiply(pc.year(values).cast(pa.int32()), 12)
        taken = pc.add(years, pc.subtract(pc.month(values).cast(pa.int32()), 1))
    else:
        raise UnusableLogColumn(
            f"{path}: column {column} holds {kind}, not dates; give dates, or text as YYYY-MM"
        )
    found: NDArray[np.int32] = taken.fill_null(UNKNOWN_MONTH).to_numpy(zero_copy_only=False)
    return found


def month_number(month: str) -> int:
    """``"2019-09"`` as `read_months` counts.

    >>> month_number("2019-09")
    24236
    """
    year, number = month.split("-")
    return int(year) * 12 + int(number) - 1


def month_text(number: int) -> str | None:
    """The other way round; None if it is not known.

    >>> month_text(24236)
    '2019-09'
    """
    return None if number == UNKNOWN_MONTH else f"{number // 12:04d}-{number % 12 + 1:02d}"


def _floats(values: pa.Array) -> NDArray[np.float64]:
    floats: NDArray[np.float64] = values.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return floats


def _among(words: pa.Array, wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (
        pc.is_in(words, value_set=pa.array(wanted, words.type))
        .fill_null(False)
        .to_numpy(zero_copy_only=False)
    )
    return found
