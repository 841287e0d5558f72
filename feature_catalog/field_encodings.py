"""How one column of a data file becomes features: decided and learnt on training clients only.

==================  ==============================================================================
treatment           columns, and what a value becomes
==================  ==============================================================================
``category``        strings, booleans, integers: the token ``column=value``
``quantile_bins``   floats, dates and times, and integers that nearly always differ (timestamps,
                    measurements; see `is_nearly_unique`): the token ``column=q3`` of its decile
``elements``        lists of strings or integers: a ``category`` token for each element
``element_bins``    lists of floats: a ``quantile_bins`` token for each element
``text``            the text field: its lower-cased words and punctuation marks, then each
                    neighbouring pair
``standardize``     (dense models) numbers: ``(value - mean) / std`` of the training clients
``left_out``        carries nothing a model could use again; the reason says why
==================  ==============================================================================

A missing value, and a float that is not a number, gives no token.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError

QUANTILE_BINS = 10
MAX_LEARNT_VALUES = 1_000_000

Treatment = Literal[
    "category", "quantile_bins", "elements", "element_bins", "text", "standardize", "left_out"
]


class UnsupportedColumn(FlintError):
    """A column's type has no encoding."""

    code = "FLN-1105"


@dataclass(frozen=True, slots=True)
class FieldEncoding:
    """What becomes of one column.

    Attributes:
        field: Column name.
        edges: Inner bin edges of ``quantile_bins`` and ``element_bins``, increasing.
        mean: Of ``standardize``.
        std: Of ``standardize``; positive.
        reason: Of ``left_out``.
    """

    field: str
    treatment: Treatment
    edges: tuple[float, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as stored with a data set."""
        return asdict(self) | {"edges": list(self.edges)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        return cls(**(raw | {"edges": tuple(raw["edges"])}))


def is_text_like(kind: pa.DataType) -> bool:
    """Whether values are strings (dictionary-encoded ones too)."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are integers, floats, decimals or booleans."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def is_time(kind: pa.DataType) -> bool:
    """Whether values are dates, times of day, instants or durations."""
    return bool(pa.types.is_temporal(kind) and not pa.types.is_interval(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any layout."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_nearly_unique(distinct: int, rows: int) -> bool:
    """Whether a column's values hardly ever recur, so tokens of them would teach nothing.

    >>> is_nearly_unique(900, 1000), is_nearly_unique(1500, 2000), is_nearly_unique(9000, 85000)
    (False, True, False)
    """
    return distinct > 1000 and distinct > 0.5 * rows


def as_floats(column: pa.Array) -> NDArray[np.float64]:
    """Numbers, dates and times as float64, shape ``(rows,)``; missing values are NaN."""
    if is_time(column.type):
        width = column.type.bit_width
        column = column.cast(pa.int32() if width == 32 else pa.int64())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


class ColumnSample:
    """Values of one column on training clients, from which its encoding is learnt.

    Holds at most a million numbers, taken at even distances, and counts distinct values.
    """

    def __init__(self, path: Path, field: pa.Field, rows: int) -> None:
        """Start a sample.

        Args:
            path: The file, named in errors.
            field: The column.
            rows: Training rows in the whole file.
        """
        self.field = field
        self._path = path
        self._rows = rows
        self._step = max(1, rows // MAX_LEARNT_VALUES)
        self._numbers: list[NDArray[np.float64]] = []
        self._distinct: pa.Array | None = None
        self._seen = 0

    def add(self, column: pa.Array) -> None:
        """Take in a batch of training rows."""
        kind = self.field.type
        values = pc.list_flatten(column) if is_list(kind) else column
        self._seen += len(values) - values.null_count
        if is_text_like(values.type) or pa.types.is_integer(values.type):
            self._count_distinct(values)
        if is_number(values.type) or is_time(values.type):
            numbers = as_floats(values)[:: self._step]
            self._numbers.append(numbers[np.isfinite(numbers)])

    def bag_encoding(self) -> FieldEncoding:
        """Encoding for a model that takes hashed tokens.

        Raises:
            UnsupportedColumn: If the column's type has none.
        """
        name, kind = self.field.name, self.field.type
        if pa.types.is_null(kind) or self._seen == 0:
            return FieldEncoding(name, "left_out", reason="no training client has a value in it")
        listed = is_list(kind)
        item = kind.value_type if listed else kind
        nearly_unique = is_nearly_unique(self._distinct_count(), self._rows)
        if pa.types.is_floating(item) or pa.types.is_decimal(item):
            return FieldEncoding(name, "element_bins" if listed else "quantile_bins", self._edges())
        if not listed and (is_time(item) or (pa.types.is_integer(item) and nearly_unique)):
            return FieldEncoding(name, "quantile_bins", self._edges())
        if not listed and is_text_like(item) and nearly_unique:
            reason = "nearly every value is different; if it is text, name it as the text field"
            return FieldEncoding(name, "left_out", reason=reason)
        if is_text_like(item) or pa.types.is_integer(item) or pa.types.is_boolean(item):
            return FieldEncoding(name, "elements" if listed else "category")
        raise UnsupportedColumn(
            f"{self._path}: column {name!r} holds {kind}, which has no encoding; exclude it, or "
            "convert it to numbers, strings or a list of them"
        )

    def dense_encoding(self) -> FieldEncoding:
        """Encoding for a model that takes numbers."""
        name = self.field.name
        if not is_number(self.field.type):
            return FieldEncoding(name, "left_out", reason=f"{self.field.type} is not a number")
        values = np.concatenate(self._numbers) if self._numbers else np.zeros(0)
        if values.size == 0:
            return FieldEncoding(name, "standardize")
        return FieldEncoding(
            name, "standardize", mean=float(values.mean()), std=float(values.std()) or 1.0
        )

    def _count_distinct(self, values: pa.Array) -> None:
        if is_nearly_unique(self._distinct_count(), self._rows):
            return  # settled; keeps memory bounded
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        unique = pc.unique(values.drop_null())
        known = self._distinct
        self._distinct = unique if known is None else pc.unique(pa.concat_arrays([known, unique]))

    def _distinct_count(self) -> int:
        return 0 if self._distinct is None else len(self._distinct)

    def _edges(self) -> tuple[float, ...]:
        values = np.concatenate(self._numbers) if self._numbers else np.zeros(0)
        if values.size == 0:
            return ()
        shares = np.arange(1, QUANTILE_BINS) / QUANTILE_BINS
        return tuple(float(edge) for edge in np.unique(np.quantile(values, shares)))


def category_tokens(column: str, values: pa.Array) -> list[str]:
    """Tokens of distinct, non-missing category values: ``column=value``; booleans in lower case."""
    return [
        f"{column}={str(value).lower() if isinstance(value, bool) else value}"
        for value in values.to_pylist()
    ]


def bin_tokens(column: str, edges: Sequence[float]) -> list[str]:
    """Tokens of all bins of a column, lowest first."""
    return [f"{column}=q{number}" for number in range(len(edges) + 1)]


def list_rows(column: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """Elements of a list column and the row each belongs to; missing lists have none."""
    return np.asarray(pc.list_parent_indices(column), np.int64), pc.list_flatten(column)


def text_tokens(words: Sequence[str]) -> Iterator[str]:
    """Unigrams in order, then neighbouring pairs joined by a space.

    >>> list(text_tokens(["how", "are", "you"]))
    ['how', 'are', 'you', 'how are', 'are you']
    """
    yield from words
    for first, second in itertools.pairwise(words):
        yield f"{first} {second}"
