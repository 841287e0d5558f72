"""Columns of a data file as numbers of their different values, whatever their type."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.clients_and_labels import InvalidClient
from feature_catalog.field_encodings import is_list, is_text_like
from feature_catalog.table_files import TableFile
from feature_catalog.vocabularies.records import MAX_RECORDS, TooManyRecords

MISSING = -1
_SAMPLED_ROWS = 2_000


class NoTimes(FlintError):
    """A column named as time holds something else."""

    code = "FLN-3002"


ReportColumn = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class CodedColumn:
    """One column.

    Attributes:
        code: Number of each row's value, `MISSING` where there is none; shape ``(rows,)``.
        distinct: Different values.
        sample: Values of some rows, evenly taken, for their sizes.
        can_key: Whether its values name things: text and whole numbers do.
        number: Of a column of floats, its values, NaN where there is none; shape ``(rows,)``.
    """

    name: str
    code: NDArray[np.int64]
    distinct: int
    sample: tuple[object, ...]
    can_key: bool = True
    number: NDArray[np.float64] | None = None


def read_coded_columns(
    table: TableFile, columns: Sequence[str], *, progress: ReportColumn | None = None
) -> dict[str, CodedColumn]:
    """Read columns; one at a time is in memory as values.

    Raises:
        MissingColumn: If a column is not there.
        TooManyRecords: If there are more rows than are looked at in memory.
    """
    table.require(columns)
    if table.num_rows > MAX_RECORDS:
        raise TooManyRecords(
            f"{table.path} has {table.num_rows:,} rows, and at most {MAX_RECORDS:,} are looked at; "
            "give a file with a sample of the clients"
        )
    found = {}
    for done, name in enumerate(columns):
        if progress is not None:
            progress("reading columns", done, len(columns))
        values = pa.chunked_array(
            [batch.column(0) for batch in table.batches([name])], table.schema.field(name).type
        )
        found[name] = _coded(name, values)
    return found


def client_column(columns: Mapping[str, CodedColumn], table: TableFile, name: str) -> CodedColumn:
    """The column that says whose record each row is.

    Raises:
        InvalidClient: If a row names none.
    """
    found = columns[name]
    if (found.code == MISSING).any():
        row = int(np.flatnonzero(found.code == MISSING)[0])
        raise InvalidClient(
            f"{table.path}: row {row} has no {name!r}; drop records without a client"
        )
    return found


def joint_code(columns: Sequence[CodedColumn]) -> NDArray[np.int64]:
    """Number of each row's values of several columns together; missing where one is."""
    joint = columns[0].code.copy()
    for column in columns[1:]:
        missing = (joint == MISSING) | (column.code == MISSING)
        pairs = joint * column.distinct + column.code
        pairs[missing] = MISSING
        _, joint = np.unique(pairs, return_inverse=True)
        joint = joint - bool(missing.any())  # what is missing comes first
    return joint


def read_times_s(table: TableFile, name: str) -> NDArray[np.float64]:
    """A column of times as seconds, NaN where there is none.

    Args:
        name: Of timestamps, dates, or numbers, which are taken as seconds.

    Raises:
        MissingColumn: If it is not there.
        NoTimes: If it holds anything else.
    """
    table.require([name])
    kind = table.schema.field(name).type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (is_number or pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise NoTimes(
            f"{table.path}: column {name!r} holds {kind}, not times; name a column of timestamps, "
            "dates or seconds"
        )
    parts = []
    for batch in table.batches([name]):
        values = batch.column(0)
        if pa.types.is_temporal(kind):
            values = values.cast(pa.timestamp("us")).cast(pa.int64())
            values = pc.divide(values.cast(pa.float64()), 1e6)
        parts.append(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return np.concatenate(parts)


def _coded(name: str, values: pa.ChunkedArray) -> CodedColumn:
    step = max(1, len(values) // _SAMPLED_ROWS)
    sample = tuple(values.take(pa.array(range(0, len(values), step))).to_pylist())
    if is_list(values.type) or pa.types.is_nested(values.type):
        numbers: dict[str, int] = {}
        codes = [
            MISSING if value is None else numbers.setdefault(repr(value), len(numbers))
            for value in values.to_pylist()
        ]
        return CodedColumn(name, np.array(codes, np.int64), len(numbers), sample, can_key=False)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    encoded = values.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    code = encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False)
    number = None
    if pa.types.is_floating(values.type):
        number = values.cast(pa.float64()).to_numpy()
    return CodedColumn(
        name,
        code.astype(np.int64),
        len(encoded.dictionary),
        sample,
        can_key=is_text_like(values.type) or pa.types.is_integer(values.type),
        number=number,
    )
