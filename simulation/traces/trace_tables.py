"""Columns of a trace file as checked arrays; what is wrong is said with file, row and column."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import EmptyDataFile, open_table


@dataclass(frozen=True, slots=True)
class TraceTable:
    """Rows of a trace file, or of a table made in memory.

    Attributes:
        source: What messages call it: the file's path.
        table: The columns asked for that are there.
        rows: Number of each row in the file, from 1, header not counted; shape ``(rows,)``.
    """

    source: str
    table: pa.Table
    rows: NDArray[np.int64]

    def has(self, column: str) -> bool:
        """Whether the file has this column."""
        return column in self.table.schema.names

    def numbers(self, column: str, error: type[FlintError]) -> NDArray[np.float64]:
        """A column of finite numbers, shape ``(rows,)``.

        Raises:
            FlintError: As ``error``; names the first row that is empty, NaN or infinite.
        """
        values = self._plain(column)
        if pa.types.is_null(values.type):  # a CSV column without a single value
            self._refuse_empty(column, values, error)
        if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            raise error(
                f"{self.source}: column {column} holds {values.type}, not numbers; "
                "write plain numbers"
            )
        self._refuse_empty(column, values, error)
        numbers: NDArray[np.float64] = values.to_numpy(zero_copy_only=False).astype(np.float64)
        self.refuse(
            ~np.isfinite(numbers),
            lambda row: f"{column} is {numbers[row]}, which is no finite number; correct the row",
            error,
        )
        return numbers

    def texts(self, column: str, error: type[FlintError]) -> pa.Array:
        """A column of texts, as ``large_string`` without empty values.

        Raises:
            FlintError: As ``error``, if a value is missing or the column holds something else.
        """
        values = self._plain(column)
        if pa.types.is_integer(values.type):
            values = values.cast(pa.large_string())
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise error(
                f"{self.source}: column {column} holds {values.type}, not names; write text"
            )
        texts = values.cast(pa.large_string())
        self._refuse_empty(column, texts, error)
        return texts

    def client_ids(self, column: str, error: type[FlintError]) -> pa.Array:
        """A column of client ids: ``int64`` if they are whole numbers, else ``large_string``.

        Raises:
            FlintError: As ``error``, if an id is missing or is neither number nor text.
        """
        values = self._plain(column)
        if not pa.types.is_integer(values.type):
            return self.texts(column, error)
        self._refuse_empty(column, values, error)
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:  # unsigned ids beyond int64
            return values.cast(pa.large_string())

    def refuse(
        self, wrong: NDArray[np.bool_], sentence: Callable[[int], str], error: type[FlintError]
    ) -> None:
        """Raise for the first wrong row, if there is one.

        Args:
            wrong: Shape ``(rows,)``.
            sentence: Says what is wrong with the row of this index and how to mend it.
        """
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        others = int(wrong.sum()) - 1
        also = f" ({others} more rows like it)" if others else ""
        raise error(f"{self.source}: row {self.rows[row]}: {sentence(row)}{also}")

    def _plain(self, column: str) -> pa.Array:
        values = self.table.column(column).combine_chunks()
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        return values

    def _refuse_empty(self, column: str, values: pa.Array, error: type[FlintError]) -> None:
        empty: NDArray[np.bool_] = values.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_large_string(values.type):
            blank = pc.fill_null(pc.equal(pc.utf8_length(values), 0), False)
            empty = empty | blank.to_numpy(zero_copy_only=False)
        self.refuse(empty, lambda _: f"{column} is empty; fill it in", error)


def read_trace_table(
    path: Path,
    required: Sequence[str],
    *,
    optional: Sequence[str] = (),
    only: Mapping[str, str | int] | None = None,
) -> TraceTable:
    """Read columns of a Parquet or CSV file.

    Args:
        required: Columns that must be there.
        optional: Columns taken if they are there.
        only: Keep rows whose columns have these values, e.g. ``{"criteria": "strict"}``.

    Raises:
        UnreadableDataFile: If the file cannot be read.
        MissingColumn: If a required column, or one of ``only``, is not there.
        EmptyDataFile: If no row is left.
    """
    file = open_table(path)
    wanted = dict(only or {})
    file.require([*required, *wanted])
    names = list(dict.fromkeys([*required, *(n for n in optional if n in file.schema.names)]))
    batches = list(file.batches(list(dict.fromkeys([*names, *wanted]))))
    table = pa.Table.from_batches(batches)
    rows = np.arange(1, table.num_rows + 1)
    for column, value in wanted.items():
        matches = pc.fill_null(pc.equal(table[column].cast(pa.string()), str(value)), False)
        table, rows = table.filter(matches), rows[matches.to_numpy()]
    if table.num_rows == 0:
        said = ", ".join(f"{column} = {value}" for column, value in wanted.items())
        raise EmptyDataFile(f"{path}: no row has {said}; name a value that occurs")
    return TraceTable(str(path), table.select(names), rows)
