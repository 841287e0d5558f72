"""Records as token numbers in memory, split by client: what `advice` compares vocabularies on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.clients_and_labels import read_clients_and_labels
from feature_catalog.splits import heldout_clients
from feature_catalog.table_files import TableFile
from feature_catalog.vocabularies.token_columns import (
    NoTokens,
    ReportRows,
    flat_tokens,
    holds_tokens,
    require_tokens,
    token_batches,
)

MAX_RECORDS = 5_000_000
MAX_ENTRIES = 100_000_000


class TooManyRecords(FlintError):
    """More records or tokens than are compared in memory."""

    code = "FLN-2995"


@dataclass(frozen=True)
class ColumnTokens:
    """One column.

    Attributes:
        tokens: Different ones, most frequent among training clients first, ties by code points;
            those of held-out clients alone come last.
        number: Place in ``tokens`` of every token, shape ``(entries,)``.
        row: Row of every token, rising, shape ``(entries,)``.
        training_counts: How often training clients have each, shape ``(tokens,)``.
    """

    name: str
    tokens: list[str]
    number: NDArray[np.int64]
    row: NDArray[np.int64]
    training_counts: NDArray[np.int64]

    @property
    def known(self) -> int:
        """Different tokens of training clients: all that a vocabulary can hold."""
        return int(np.count_nonzero(self.training_counts))


@dataclass(frozen=True)
class TokenRecords:
    """Records with their tokens.

    Attributes:
        labels: 0 or 1, shape ``(rows,)``.
        client: Number of each row's client, shape ``(rows,)``.
        is_heldout: Whether a row is of a held-out client, shape ``(rows,)``.
    """

    columns: tuple[ColumnTokens, ...]
    labels: NDArray[np.uint8]
    client: NDArray[np.int32]
    is_heldout: NDArray[np.bool_]


def token_fields(table: TableFile, but: Sequence[str]) -> list[str]:
    """Columns that hold tokens, in file order, except some."""
    return [f.name for f in table.schema if f.name not in but and holds_tokens(f.type)]


def read_token_records(
    table: TableFile,
    columns: Sequence[str],
    *,
    client: str,
    label: str,
    progress: ReportRows | None = None,
) -> TokenRecords:
    """Read a file's columns as token numbers; about a fifth of the clients is held out.

    Raises:
        MissingColumn: If a column is not there.
        NoTokens: If one holds no tokens, or only missing values.
        InvalidClient: If a record names no client.
        InvalidLabel: If a label is neither 0 nor 1.
        TooFewClients: If there is one client only.
        SingleClass: If training or held-out records have one label only.
        TooManyRecords: If there are more than are compared in memory.
    """
    table.require([client, label])
    require_tokens(table, columns)
    if table.num_rows > MAX_RECORDS:
        raise TooManyRecords(
            f"{table.path} has {table.num_rows:,} rows, and at most {MAX_RECORDS:,} are compared; "
            "give a file with a sample of the clients"
        )
    known = read_clients_and_labels(table, client, label)
    heldout = heldout_clients(table.path.stem, known.counts())
    flags = np.array([each in heldout for each in known.client_ids])
    is_heldout = flags[known.client_codes]
    gathered = [_Gathered(name) for name in columns]
    start = 0
    batches = token_batches([table], columns, stage="reading tokens", progress=progress)
    for batch in batches:
        for each, values in zip(gathered, batch, strict=True):
            each.add(values, start)
        start += len(batch[0])
        if sum(each.entries for each in gathered) > MAX_ENTRIES:
            raise TooManyRecords(
                f"{table.path} has more than {MAX_ENTRIES:,} tokens; give a sample of the clients, "
                "or fewer columns"
            )
    found = tuple(_sorted(each.column(is_heldout)) for each in gathered)
    empty = next((column.name for column in found if not column.known), None)
    if empty is not None or not found:
        what = f"column {empty!r} has no value" if found else "there is no column with tokens"
        raise NoTokens(
            f"{table.path}: {what} among training clients, so there is nothing to map; name other "
            "columns with --column"
        )
    return TokenRecords(
        columns=found,
        labels=known.labels,
        client=known.client_codes,
        is_heldout=is_heldout,
    )


class _Gathered:
    """Tokens of a column so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries = 0
        self._numbers: dict[str, int] = {}
        self._number: list[NDArray[np.int64]] = []
        self._row: list[NDArray[np.int64]] = []

    def add(self, values: pa.Array, start: int) -> None:
        """Add a batch whose first row is ``start``."""
        flat = flat_tokens(values)
        if flat is values:
            row = np.arange(start, start + len(values))
        else:
            row = start + pc.list_parent_indices(values).to_numpy(zero_copy_only=False)
        there = flat.is_valid().to_numpy(zero_copy_only=False)
        encoded = flat.drop_null().dictionary_encode()
        known = [
            self._numbers.setdefault(token, len(self._numbers))
            for token in encoded.dictionary.to_pylist()
        ]
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        self._number.append(np.array(known, np.int64)[indices] if known else indices[:0])
        self._row.append(row[there])
        self.entries += len(indices)

    def column(self, is_heldout: NDArray[np.bool_]) -> ColumnTokens:
        """What was gathered."""
        number = np.concatenate(self._number).astype(np.int64)
        row = np.concatenate(self._row).astype(np.int64)
        counts = np.bincount(number[~is_heldout[row]], minlength=len(self._numbers))
        return ColumnTokens(self.name, list(self._numbers), number, row, counts)


def _sorted(column: ColumnTokens) -> ColumnTokens:
    """The same with tokens numbered by frequency."""
    counts = column.training_counts.tolist()
    order = sorted(range(len(column.tokens)), key=lambda i: (-counts[i], column.tokens[i]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return replace(
        column,
        tokens=[column.tokens[i] for i in order],
        number=place[column.number],
        training_counts=column.training_counts[order],
    )
