"""Measured transfers as links: one speed a client and direction, whatever file they are in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import open_table
from simulation.portable_math import Floats, portable_log
from simulation.traces.bandwidth import SAMPLE_COLUMNS, LinkSpeeds, read_bandwidth
from simulation.traces.trace_tables import TraceTable, read_trace_table

Direction = Literal["down", "up"]
DIRECTIONS: tuple[Direction, ...] = ("down", "up")
# Beyond this share, speeds that are none point at a wrong column rather than at stalled transfers.
_MOST_UNUSABLE = 0.5


class UnusableMeasurements(FlintError):
    """Measurements of bandwidth from which no distribution can be found."""

    code = "FLN-2701"


class AmbiguousMeasurementColumns(FlintError):
    """Options that do not say which columns hold the speed, or say it twice."""

    code = "FLN-2702"


@dataclass(frozen=True, slots=True)
class MeasurementColumns:
    """Which columns of a measurement file say what. None: found by its usual name, if it is there.

    Attributes:
        kbps: Speed in 1000 bits a second.
        transferred_bytes: Bytes of a transfer, with ``transfer_s`` instead of ``kbps``.
        transfer_s: Seconds it took.
        direction: Holds ``down_value`` or ``up_value``.
        client: Whose link it is (client, device or session): rows of one are one link.
    """

    kbps: str | None = None
    transferred_bytes: str | None = None
    transfer_s: str | None = None
    direction: str | None = None
    down_value: str = "down"
    up_value: str = "up"
    client: str | None = None

    def __post_init__(self) -> None:
        if (self.transferred_bytes is None) != (self.transfer_s is None):
            raise AmbiguousMeasurementColumns(
                "a speed from bytes needs both columns; give --bytes-column and --seconds-column"
            )
        if self.kbps is not None and self.transferred_bytes is not None:
            raise AmbiguousMeasurementColumns(
                "speeds are given twice; give either --kbps-column, or --bytes-column and "
                "--seconds-column"
            )

    @property
    def are_given(self) -> bool:
        """Whether any column was named, so that no layout is guessed."""
        named = (self.kbps, self.transferred_bytes, self.direction, self.client)
        return any(column is not None for column in named)


@dataclass(frozen=True)
class MeasuredLinks:
    """Links of one direction, each the transfers of one client.

    Attributes:
        clients: Names them across directions and files, ascending, ``large_string``.
        log_kbps: Mean logarithm of the speeds of its transfers, shape ``(links,)``.
        log_variance: Their variance; 0 where it is not known; shape ``(links,)``.
        freedom: Its degrees of freedom; 0 where it is not known; shape ``(links,)``.
        transfers: Number of transfers; 0 where only their summary was given; shape ``(links,)``.
    """

    clients: pa.Array
    log_kbps: Floats
    log_variance: Floats
    freedom: NDArray[np.int64]
    transfers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.log_kbps)


@dataclass(frozen=True)
class Measurements:
    """All links that were measured.

    Attributes:
        down: Server to device.
        up: Device to server.
        has_directions: False if the files name none, so that the same links stand for both.
        rows: Rows read.
        unusable_rows: Rows whose speed is missing, not finite or not above 0, or that do not say
            whose or which way; left out.
        first_unusable: One of them, in words; empty if there is none.
    """

    down: MeasuredLinks
    up: MeasuredLinks
    has_directions: bool
    rows: int
    unusable_rows: int
    first_unusable: str


@dataclass(slots=True)
class _Rows:
    """Links of a file, by direction; None: of both."""

    links: dict[Direction | None, MeasuredLinks]
    rows: int
    unusable_rows: int = 0
    first_unusable: str = ""


def read_measurements(
    files: Sequence[Path],
    columns: MeasurementColumns | None = None,
    *,
    down: Sequence[Path] = (),
    up: Sequence[Path] = (),
) -> Measurements:
    """Read measurements from Parquet or CSV files.

    A file in a layout of `simulation.traces.bandwidth` is read as it is there: each row a link.
    Elsewhere, and whenever ``columns`` names one, each row is one transfer, and rows of one client
    are one link. A speed that is none (a stalled transfer of zero) is counted and left out.

    Args:
        files: Of both directions, told apart by a column, or of links alike both ways.
        columns: Where the speeds are.
        down: Files of transfers to devices alone.
        up: Files of transfers from devices alone.

    Raises:
        UnusableMeasurements: If more than half of the rows are of no use, or a direction has no
            measurement.
        AmbiguousMeasurementColumns: If a file has no column of speeds.
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
    """
    named = columns or MeasurementColumns()
    read = [_read(path, named, None) for path in files]
    read += [_read(path, named, "down") for path in down]
    read += [_read(path, named, "up") for path in up]
    rows, unusable = sum(r.rows for r in read), sum(r.unusable_rows for r in read)
    first = next((r.first_unusable for r in read if r.first_unusable), "")
    if unusable > _MOST_UNUSABLE * rows:
        raise UnusableMeasurements(
            f"{unusable:,} of {rows:,} rows have no speed above 0, or do not say whose or which "
            f"way (the first: {first}); name the columns that do"
        )
    by_direction = {
        direction: [r.links[key] for r in read for key in (None, direction) if key in r.links]
        for direction in DIRECTIONS
    }
    has_directions = any(key is not None for r in read for key in r.links)
    for direction, parts in by_direction.items():
        if not parts:
            other = "up" if direction == "down" else "down"
            raise UnusableMeasurements(
                f"all transfers are {other}, and none is {direction}; add a file with them "
                f"(--{direction} FILE), or name the file without a direction if links are alike "
                "both ways"
            )
    return Measurements(
        down=_together(by_direction["down"]),
        up=_together(by_direction["up"]),
        has_directions=has_directions,
        rows=rows,
        unusable_rows=unusable,
        first_unusable=first,
    )


def _read(path: Path, columns: MeasurementColumns, direction: Direction | None) -> _Rows:
    names = open_table(path).schema.names
    speeds = next((name for name in SAMPLE_COLUMNS if name in names), None)
    is_pair = speeds is None and any(name.startswith(("down_", "up_")) for name in names)
    if not columns.are_given and is_pair:
        return _read_pairs(path, direction)
    kbps = columns.kbps or speeds
    if kbps is None and columns.transferred_bytes is None:
        raise AmbiguousMeasurementColumns(
            f"{path}: no column is known to hold speeds; say which with --kbps-column, or "
            f"--bytes-column and --seconds-column; its columns are {', '.join(names)}"
        )
    direction_column = columns.direction
    if direction_column is None and "direction" in names and direction is None:
        direction_column = "direction"
    speed_columns = (
        [columns.transferred_bytes, columns.transfer_s] if columns.transferred_bytes else [kbps]
    )
    wanted = [*speed_columns, direction_column if direction is None else None, columns.client]
    table, found = _named_rows(
        read_trace_table(path, [name for name in wanted if name is not None]),
        [name for name in wanted[len(speed_columns) :] if name is not None],
    )
    kbps_values, described = _speeds(table, columns, kbps)
    usable = np.isfinite(kbps_values) & (kbps_values > 0)
    found.unusable_rows += int((~usable).sum())
    if not usable.all() and not found.first_unusable:
        row = int(np.argmin(usable))
        found.first_unusable = f"{path}: row {table.rows[row]}: {described(row)}"
    clients = _clients(table, columns.client, path)
    if direction_column is None or direction is not None:
        parts: list[tuple[Direction | None, NDArray[np.bool_]]] = [(direction, usable)]
    else:
        is_down, is_up = _directions(table, direction_column, columns)
        parts = [("down", usable & is_down), ("up", usable & is_up)]
    for key, chosen in parts:
        if chosen.any():
            of_direction = clients.filter(pa.array(chosen))
            found.links[key] = _links(of_direction, portable_log(kbps_values[chosen]))
    return found


def _named_rows(table: TraceTable, columns: Sequence[str]) -> tuple[TraceTable, _Rows]:
    """Rows that say what these columns are for; the others are counted."""
    found = _Rows({}, table.table.num_rows)
    for column in columns:
        values = table.table.column(column).combine_chunks()
        is_named = values.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            filled = pc.fill_null(pc.greater(pc.utf8_length(values), 0), False)
            is_named = is_named & filled.to_numpy(zero_copy_only=False)
        if not is_named.all():
            if not found.first_unusable:
                row = table.rows[int(np.argmin(is_named))]
                found.first_unusable = f"{table.source}: row {row}: {column} is empty"
            found.unusable_rows += int((~is_named).sum())
            kept = table.table.filter(pa.array(is_named))
            table = TraceTable(table.source, kept, table.rows[is_named])
    return table, found


def _read_pairs(path: Path, direction: Direction | None) -> _Rows:
    measured = read_bandwidth(path)
    both: dict[Direction, LinkSpeeds] = {"down": measured.down, "up": measured.up}
    links: dict[Direction | None, MeasuredLinks] = {}
    for key, speeds in both.items():
        if direction not in (None, key):
            continue
        count = len(speeds)
        # How many transfers are behind a link's deviation is not told: all links weigh the same.
        varies = speeds.log_stdev > 0
        links[key] = MeasuredLinks(
            _rows_of(path, np.arange(1, count + 1)),
            portable_log(speeds.median_kbps),
            speeds.log_stdev**2,
            varies.astype(np.int64),
            np.where(varies, 0, 1).astype(np.int64),
        )
    return _Rows(links, len(measured.down))


def _speeds(
    table: TraceTable, columns: MeasurementColumns, kbps: str | None
) -> tuple[Floats, Callable[[int], str]]:
    """Speeds, NaN where there is none, and words for a row's."""
    if columns.transferred_bytes is not None and columns.transfer_s is not None:
        sent = _numbers(table, columns.transferred_bytes)
        took_s = _numbers(table, columns.transfer_s)
        with np.errstate(divide="ignore", invalid="ignore"):
            speeds = np.where(took_s > 0, sent * 8.0 / 1000.0 / took_s, np.nan)
        return speeds, lambda row: f"{sent[row]:g} bytes in {took_s[row]:g} s"
    speeds = _numbers(table, str(kbps))
    return speeds, lambda row: f"{kbps} is {speeds[row]:g}"


def _numbers(table: TraceTable, column: str) -> Floats:
    values = table.table.column(column).combine_chunks()
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(len(values), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise AmbiguousMeasurementColumns(
            f"{table.source}: column {column} holds {kind}, not numbers; name a column of numbers"
        )
    numbers: Floats = pc.fill_null(values.cast(pa.float64()), np.nan).to_numpy(zero_copy_only=False)
    return numbers


def _directions(
    table: TraceTable, column: str, columns: MeasurementColumns
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    texts = table.texts(column, UnusableMeasurements)
    is_down = pc.equal(texts, columns.down_value).to_numpy(zero_copy_only=False)
    is_up = pc.equal(texts, columns.up_value).to_numpy(zero_copy_only=False)
    table.refuse(
        ~(is_down | is_up),
        lambda row: (
            f"{column} is {texts[row].as_py()!r}, which is neither {columns.down_value} nor "
            f"{columns.up_value}; say what it calls them with --down-value and --up-value"
        ),
        UnusableMeasurements,
    )
    return is_down, is_up


def _clients(table: TraceTable, column: str | None, path: Path) -> pa.Array:
    if column is None:
        return _rows_of(path, table.rows)
    return table.client_ids(column, UnusableMeasurements).cast(pa.large_string())


def _rows_of(path: Path, rows: NDArray[np.int64]) -> pa.Array:
    """Names of rows that are links of their own; they sort as the rows do."""
    numbers = pc.utf8_lpad(pa.array(rows).cast(pa.large_string()), width=12, padding="0")
    file, hash_sign = (pa.scalar(text, pa.large_string()) for text in (str(path), "#"))
    return pc.binary_join_element_wise(file, numbers, hash_sign)


def _numbered(names: pa.Array) -> tuple[pa.Array, NDArray[np.int64]]:
    """Distinct names, ascending, and the number of each."""
    encoded = names.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    codes: NDArray[np.int64] = number[encoded.indices.to_numpy(zero_copy_only=False)]
    return encoded.dictionary.take(pa.array(order)), codes


def _links(clients: pa.Array, log_kbps: Floats) -> MeasuredLinks:
    """Rows of one client as one link."""
    distinct, code = _numbered(clients)
    transfers = np.bincount(code)
    mean = np.bincount(code, weights=log_kbps) / transfers
    squares = np.bincount(code, weights=(log_kbps - mean[code]) ** 2)
    freedom = (transfers - 1).astype(np.int64)
    variance = squares / np.maximum(freedom, 1)
    return MeasuredLinks(distinct, mean, variance, freedom, freedom + 1)


def _together(parts: Sequence[MeasuredLinks]) -> MeasuredLinks:
    """Links of several files; a client that is in several is one link."""
    if len(parts) == 1:
        return parts[0]
    distinct, code = _numbered(pa.concat_arrays([part.clients for part in parts]))
    transfers = np.concatenate([part.transfers for part in parts])
    weight = np.maximum(transfers, 1)
    mean = np.concatenate([part.log_kbps for part in parts])
    freedom = np.concatenate([part.freedom for part in parts])
    squares = freedom * np.concatenate([part.log_variance for part in parts])
    together = np.bincount(code, weights=weight * mean) / np.bincount(code, weights=weight)
    # Squares within a part, and of the parts' means around the mean of all.
    squares = np.bincount(code, weights=squares + weight * (mean - together[code]) ** 2)
    all_freedom = np.bincount(code, weights=freedom + 1).astype(np.int64) - 1
    return MeasuredLinks(
        distinct,
        together,
        squares / np.maximum(all_freedom, 1),
        all_freedom,
        np.bincount(code, weights=transfers).astype(np.int64),
    )
