"""Files of a session log: found, checked against the criteria, and streamed as record batches."""

import csv
import difflib
import glob
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from device_runtime.errors import FlintError
from feature_catalog.table_files import UnreadableDataFile
from simulation.availability.criteria_file import (
    COLUMN_OF_CRITERION,
    AvailabilityCriteria,
    LogColumns,
    category_of,
)
from simulation.availability.problems import Problems

BATCH_ROWS = 131_072
_CSV_BLOCK_BYTES = 16 * 2**20
_LONGEST_LINE = 2**20
_SUFFIXES = {".parquet", ".pq", ".csv"}
# Tried in order where the criteria file maps nothing.
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "device_id": ("device_id", "client_id"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "os_release": ("os_release", "os_release_date"),
    "foreground": ("foreground", "foreground_spans"),
}
# Of traces: not mapped, handed on.
REPEAT = "repeat_every_s"
_REQUIRED = ("device_id", "start", "end")


class NoSessionFiles(FlintError):
    """There is no log where the command was told to look."""

    code = "FLN-2604"


class MissingLogColumn(FlintError):
    """The log lacks a column that the criteria name or need."""

    code = "FLN-2605"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log, with rows.

    Attributes:
        columns: Its column for each role of `LogColumns` that it has, and for `REPEAT`.
        rows: Number of rows; None for CSV, which does not say.
        size_bytes: On disk.
    """

    path: Path
    columns: Mapping[str, str]
    rows: int | None
    size_bytes: int

    @property
    def is_csv(self) -> bool:
        """Whether it is CSV; else Parquet."""
        return self.path.suffix.lower() == ".csv"


def find_session_files(sessions: str) -> list[Path]:
    """Files of a log: one file, all of a folder and its folders, or those a pattern matches.

    Raises:
        NoSessionFiles: If there is none.
    """
    path = Path(sessions)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        inside = ((p, p.relative_to(path).parts) for p in path.rglob("*"))
        found = sorted(p for p, parts in inside if _is_table(p) and not _hidden(parts))
    else:
        matches = sorted(Path(p) for p in glob.glob(sessions, recursive=True))  # noqa: PTH207 - absolute ones too
        found = [p for p in matches if _is_table(p) and not _hidden([p.name])]
    if not found:
        raise NoSessionFiles(
            f"{sessions}: there is no .parquet or .csv file; give a file, a folder of files, or a "
            "pattern in quotes such as 'logs/*.parquet'"
        )
    for each in found:
        if not _is_table(each):
            raise UnreadableDataFile(
                f"{each}: files ending in {each.suffix or 'nothing'!r} are not read; give a "
                ".parquet or a .csv file"
            )
    return found


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _hidden(parts: Sequence[str]) -> bool:
    """Whether other tools would pass over it: checkpoints, what is not finished."""
    return any(part.startswith((".", "_")) for part in parts)


def open_session_log(
    paths: Sequence[Path], criteria: AvailabilityCriteria, problems: Problems, *, source: str
) -> list[LogFile]:
    """Check that files can be read and have what the criteria need; files without rows are counted.

    Args:
        source: What messages call the criteria file.

    Raises:
        UnreadableDataFile: If a file is damaged or no table.
        MissingLogColumn: Names file, column or criterion, and the mend.
    """
    files = []
    for number, path in enumerate(paths):
        size_bytes = path.stat().st_size
        names, rows = ([], 0) if size_bytes == 0 else _header(path)
        if rows == 0:
            what = "is of 0 bytes" if size_bytes == 0 else "has a header and no rows"
            problems.add("empty_file", 1, number, f"{path.name} {what}")
            continue
        columns = _columns(path, names, criteria.columns, source)
        _require_criteria(path, columns, criteria, source)
        for column in criteria.only:
            if column not in names:
                raise MissingLogColumn(
                    f"{source}: only names column {column!r}, which {path} does not have"
                    f"{_near(column, names)}; its columns are {', '.join(names)}"
                )
        if REPEAT in names:
            columns[REPEAT] = REPEAT
        files.append(LogFile(path, columns, rows, size_bytes))
    return files


def log_batches(
    file: LogFile, roles: Sequence[str], only: Mapping[str, str], problems: Problems
) -> Iterator[tuple[pa.RecordBatch, pa.Array | None]]:
    """Yield rows in file order, and which of them ``only`` keeps (None: all).

    Columns come by their role and, where asked for, under the names in ``only``.

    Raises:
        UnreadableDataFile: If the file turns out to be damaged further on.
    """
    columns = [file.columns[role] for role in roles]
    wanted = list(dict.fromkeys([*columns, *only]))
    batches = (
        _csv_batches(file, wanted, problems) if file.is_csv else _parquet_batches(file, wanted)
    )
    try:
        for batch in batches:
            kept = None
            for column, value in only.items():
                text = batch.column(column).cast(pa.string())
                matches = pc.fill_null(pc.equal(text, value), False)
                kept = matches if kept is None else pc.and_(kept, matches)
            yield (
                pa.RecordBatch.from_arrays([batch.column(c) for c in columns], names=list(roles)),
                kept,
            )
    except (pa.ArrowException, OSError) as error:
        raise UnreadableDataFile(_damaged(file.path, error)) from error


def _parquet_batches(file: LogFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file.path) as parquet:
        yield from parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(columns))


def _csv_batches(
    file: LogFile, columns: Sequence[str], problems: Problems
) -> Iterator[pa.RecordBatch]:
    def skip(row: pyarrow.csv.InvalidRow) -> str:
        at = f"line {row.number}" if row.number is not None else "a line"
        said = f"{file.path.name}, {at}: {row.actual_columns} fields, not {row.expected_columns}"
        problems.add("malformed_row", 1, row.number or 0, said)
        return "skip"

    # Texts, whatever they look like at first: a later row must not make an earlier one wrong.
    convert = pyarrow.csv.ConvertOptions(
        include_columns=list(columns),
        column_types=dict.fromkeys(columns, pa.string()),
        strings_can_be_null=True,
        null_values=["", "null", "NULL", "None", "NaN", "nan"],
    )
    reader = pyarrow.csv.open_csv(
        file.path,
        read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
        convert_options=convert,
    )
    with reader:
        while True:
            try:
                with _quiet_about_undecodable_lines():
                    batch = reader.read_next_batch()
            except StopIteration:
                return
            for first in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(first, BATCH_ROWS)


@contextmanager
def _quiet_about_undecodable_lines() -> Iterator[None]:
    """Before a line that is malformed and no UTF-8 is refused, pyarrow would print a traceback."""
    before = sys.unraisablehook

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        if not isinstance(ignored.exc_value, UnicodeDecodeError):
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _header(path: Path) -> tuple[list[str], int | None]:
    """Names of the columns, and the number of rows where the format says it (0: none)."""
    try:
        if path.suffix.lower() != ".csv":
            with pq.ParquetFile(path) as parquet:
                return list(parquet.schema_arrow.names), parquet.metadata.num_rows
        with path.open(encoding="utf-8-sig", newline="") as lines:
            names = next(csv.reader([lines.readline(_LONGEST_LINE)]), [])
            filled = any(line.strip() for line in iter(partial(lines.readline, _LONGEST_LINE), ""))
            return names, None if filled else 0
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableDataFile(_damaged(path, error)) from error


def _columns(path: Path, names: Sequence[str], mapped: LogColumns, source: str) -> dict[str, str]:
    columns = {}
    for role, given in mapped.model_dump().items():
        usual = USUAL_NAMES.get(role, (role,))
        found = given if given is not None else next((n for n in usual if n in names), None)
        if found is not None and names.count(found) == 1:
            columns[role] = found
        elif given is not None:
            often = "more than once" if given in names else "not"
            raise MissingLogColumn(
                f"{source}: columns.{role} names {given!r}, which {path} has {often}"
                f"{_near(given, names)}; its columns are {', '.join(names)}"
            )
        elif role in _REQUIRED:
            raise MissingLogColumn(
                f"{path}: no column is called {' or '.join(usual)}; say in {source} which it is "
                f"(columns: {{{role}: NAME}}); its columns are {', '.join(names)}"
            )
    return columns


def _require_criteria(
    path: Path, columns: Mapping[str, str], criteria: AvailabilityCriteria, source: str
) -> None:
    for criterion in criteria.thresholds():
        role = COLUMN_OF_CRITERION.get(criterion)
        if role is not None and role not in columns:
            raise MissingLogColumn(
                f"{source}: {category_of(criterion)}.{criterion} needs a column {role}, which "
                f"{path} does not have; map one (columns: {{{role}: NAME}}) or remove the criterion"
            )


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _damaged(path: Path, error: Exception) -> str:
    detail = str(error).strip().splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    shown = "".join(letter if letter.isprintable() else "?" for letter in detail)[:200]
    return f"{path}: the file cannot be read ({shown}); check or export it anew"
