"""Columns of data files as the tokens that transforms look up or hash, batch by batch.

Tokens are what `device_runtime.transforms` makes of values: text as it is, integers and booleans as
decimal digits. Floats have no fixed digits and are refused; null is missing and no token.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from device_runtime.errors import FlintError
from feature_catalog.field_encodings import is_list, is_text_like
from feature_catalog.table_files import TableFile, UnreadableDataFile, open_table

MAX_FILES = 10_000

ReportRows = Callable[[str, int, int | None], None]
"""What is done, rows so far, rows in all if known."""


class NoTokens(FlintError):
    """A column that holds no tokens: floats, times, nothing but nulls."""

    code = "FLN-2990"


def open_tables(path: Path) -> tuple[TableFile, ...]:
    """A data file, or every Parquet file of a folder, by name.

    Raises:
        UnreadableDataFile: If there is none, or more than a folder may hold.
        EmptyDataFile: If one has no rows.
    """
    if not path.is_dir():
        return (open_table(path),)
    files = sorted(path.glob("*.parquet"))[: MAX_FILES + 1]
    if not files or len(files) > MAX_FILES:
        wanted = "no .parquet file" if not files else f"more than {MAX_FILES} .parquet files"
        raise UnreadableDataFile(f"{path} has {wanted}; give a data file, or a folder of some")
    return tuple(open_table(file) for file in files)


def require_tokens(table: TableFile, columns: Sequence[str]) -> None:
    """Check that columns are there and hold tokens.

    Raises:
        MissingColumn: If one is not there.
        NoTokens: If one holds something else.
    """
    table.require(columns)
    for name in columns:
        kind = table.schema.field(name).type
        if not holds_tokens(kind):
            inner = value_type(kind)
            mend = "bucketize it first" if pa.types.is_floating(inner) else "name another column"
            raise NoTokens(
                f"{table.path}: column {name!r} holds {kind}, and a vocabulary is of text, whole "
                f"numbers or lists of them; {mend}"
            )


def holds_tokens(kind: pa.DataType) -> bool:
    """Whether values of a type, or of its elements, are tokens."""
    inner = value_type(kind)
    if is_list(kind) and is_list(kind.value_type):
        return False
    return is_text_like(inner) or pa.types.is_integer(inner) or pa.types.is_boolean(inner)


def value_type(kind: pa.DataType) -> pa.DataType:
    """Type of the values, of a list's elements, of a dictionary's entries."""
    while is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def token_batches(
    tables: Sequence[TableFile],
    columns: Sequence[str],
    *,
    stage: str,
    progress: ReportRows | None = None,
) -> Iterator[tuple[pa.Array, ...]]:
    """The columns' tokens, at most 65,536 rows at a time, in file order.

    Returns:
        Of each column, an array of strings with nulls, or of lists of strings.
    """
    total = sum(table.num_rows for table in tables)
    done = 0
    for table in tables:
        for batch in table.batches(columns):
            yield tuple(as_tokens(column) for column in batch.columns)
            done += batch.num_rows
            if progress is not None:
                progress(stage, done, total)


def as_tokens(values: pa.Array) -> pa.Array:
    """Values as tokens; lists stay lists."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if is_list(values.type):
        lengths = pc.list_value_length(values)
        offsets = pa.concat_arrays(
            [
                pa.array([0], pa.int64()),
                pc.cumulative_sum(pc.fill_null(lengths, 0).cast(pa.int64())),
            ]
        )
        return pa.LargeListArray.from_arrays(
            offsets, as_tokens(pc.list_flatten(values)), mask=values.is_null()
        )
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.cast(pa.large_string())


def flat_tokens(values: pa.Array) -> pa.Array:
    """Every token of a column, elements of lists one by one."""
    return values.flatten() if is_list(values.type) else values
