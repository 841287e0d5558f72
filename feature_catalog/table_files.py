"""The user's own data files: Parquet and CSV as a schema and a stream of record batches."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from device_runtime.errors import FlintError

BATCH_ROWS = 65_536


class UnreadableDataFile(FlintError):
    """The data file does not exist, is not Parquet or CSV, or is damaged."""

    code = "FLN-1101"


class EmptyDataFile(FlintError):
    """The data file holds no rows."""

    code = "FLN-1102"


class MissingColumn(FlintError):
    """A named column is not in the data file."""

    code = "FLN-1103"


@dataclass(frozen=True, slots=True)
class TableFile:
    """One readable data file with at least one row.

    Attributes:
        path: Where it lies.
        schema: Columns in file order.
        num_rows: Rows in the file.
        table: The whole table for CSV, whose column types need all of it; None for Parquet, which
            is read batch by batch and may be larger than memory.
    """

    path: Path
    schema: pa.Schema
    num_rows: int
    table: pa.Table | None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield rows in file order, at most 65,536 at a time, with the given columns in order.

        Raises:
            UnreadableDataFile: If the file turns out to be damaged further on.
        """
        names = list(columns)
        if self.table is not None:
            yield from self.table.select(names).to_batches(max_chunksize=BATCH_ROWS)
            return
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                    yield batch.select(names)
        except (pa.ArrowException, OSError) as error:
            raise UnreadableDataFile(_damaged(self.path, error)) from error

    def require(self, columns: Sequence[str]) -> None:
        """Check that columns exist.

        Raises:
            MissingColumn: Names the first one that does not, with near matches.
        """
        for column in columns:
            if column in self.schema.names:
                continue
            raise MissingColumn(
                f"{self.path}: there is no column {column!r}{_near(column, self.schema.names)}; "
                f"its columns are {', '.join(self.schema.names)}"
            )


def open_table(path: Path) -> TableFile:
    """Open a ``.parquet`` or ``.csv`` file (a CSV's first line names its columns).

    Raises:
        UnreadableDataFile: If there is no such file, or it is neither Parquet nor CSV.
        EmptyDataFile: If it has no rows.
    """
    if path.is_dir():
        raise UnreadableDataFile(f"{path} is a directory; give the path of one data file")
    if not path.is_file():
        raise UnreadableDataFile(f"{path}: there is no such file; give the path of a data file")
    suffix = path.suffix.lower()
    if suffix in {".parquet", ".pq"}:
        table_file = _open_parquet(path)
    elif suffix == ".csv":
        table_file = _open_csv(path)
    else:
        raise UnreadableDataFile(
            f"{path}: files ending in {suffix or 'nothing'!r} are not read; "
            "give a .parquet or a .csv file"
        )
    repeated = {n for n in table_file.schema.names if table_file.schema.names.count(n) > 1}
    if repeated:
        raise UnreadableDataFile(
            f"{path}: column {sorted(repeated)[0]!r} occurs more than once; rename one of them"
        )
    if table_file.num_rows == 0:
        raise EmptyDataFile(f"{path}: the file has no rows; give a file with records")
    return table_file


def _open_parquet(path: Path) -> TableFile:
    try:
        with pq.ParquetFile(path) as file:
            return TableFile(path, file.schema_arrow, file.metadata.num_rows, None)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableDataFile(_damaged(path, error)) from error


def _open_csv(path: Path) -> TableFile:
    if path.stat().st_size == 0:
        raise EmptyDataFile(f"{path}: the file is empty; give a file with a header and records")
    # Quoted text may span lines: messages do.
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        table = pyarrow.csv.read_csv(path, parse_options=parse)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableDataFile(_damaged(path, error)) from error
    return TableFile(path, table.schema, table.num_rows, table)


def _damaged(path: Path, error: Exception) -> str:
    detail = str(error).strip().splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    # Parsers quote what they stumble over, which in a binary file is no text.
    shown = "".join(letter if letter.isprintable() else "?" for letter in detail)
    return f"{path}: the file cannot be read ({shown}); check or export it anew"


def _near(column: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(column, names, n=3, cutoff=0.6)
    if not near:
        folded = {name.lower(): name for name in names}
        near = [
            folded[n] for n in difflib.get_close_matches(column.lower(), folded, n=3, cutoff=0.6)
        ]
    return f" (did you mean {' or '.join(near)}?)" if near else ""
