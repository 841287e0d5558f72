"""How often each token of a column occurs, and with how many clients; streamed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import TableFile
from feature_catalog.vocabularies.token_columns import (
    ReportRows,
    flat_tokens,
    require_tokens,
    token_batches,
)

MAX_DISTINCT = 20_000_000
_COMPACT_PAIRS = 4_000_000


class TooManyTokens(FlintError):
    """A column with more different tokens than are counted in memory."""

    code = "FLN-2991"


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of one column.

    Attributes:
        occurrences: How often each occurs; of a list column, each element counts.
        clients: With how many clients each occurs; None where no column said whose rows they are.
        rows: Of the data.
        missing: Values that are null.
    """

    column: str
    occurrences: dict[str, int]
    clients: dict[str, int] | None
    rows: int
    missing: int

    @property
    def total(self) -> int:
        """Tokens, repeated ones too."""
        return sum(self.occurrences.values())


@dataclass
class _Clients:
    """Distinct pairs of a token and a client, as numbers."""

    numbers: dict[str, int] = field(default_factory=dict)
    pairs: list[NDArray[np.int64]] = field(default_factory=list)
    held: int = 0

    def add(self, tokens: NDArray[np.int64], clients: pa.Array) -> None:
        """Rows of a batch, each with one token."""
        encoded = clients.dictionary_encode()
        known = [
            self.numbers.setdefault(each, len(self.numbers))
            for each in encoded.dictionary.to_pylist()
        ]
        its = np.array(known, np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
        fresh = np.unique((tokens << 32) | its)
        self.pairs.append(fresh)
        self.held += len(fresh)
        if self.held > _COMPACT_PAIRS:
            self._compact()

    def per_token(self, tokens: int) -> NDArray[np.int64]:
        """Number of clients of each token."""
        self._compact()
        pairs = self.pairs[0] if self.pairs else np.zeros(0, np.int64)
        return np.bincount(pairs >> 32, minlength=tokens)

    def _compact(self) -> None:
        if self.pairs:
            self.pairs = [np.unique(np.concatenate(self.pairs))]
            self.held = 0


def count_tokens(
    tables: Sequence[TableFile],
    column: str,
    *,
    client: str | None = None,
    progress: ReportRows | None = None,
) -> TokenCounts:
    """Count a column's tokens.

    Args:
        tables: Read batch by batch; what is held is a number a distinct token.
        client: Column that says whose row it is, to count clients too.

    Raises:
        MissingColumn: If a column is not there.
        NoTokens: If a column holds no tokens.
        TooManyTokens: If there are more than `MAX_DISTINCT`.
    """
    columns = [column] if client is None else [column, client]
    for table in tables:
        require_tokens(table, columns)
    numbers: dict[str, int] = {}
    occurrences: list[int] = []
    clients = None if client is None else _Clients()
    rows = missing = 0
    for batch in token_batches(tables, columns, stage=f"counting {column}", progress=progress):
        rows += len(batch[0])
        flat = flat_tokens(batch[0])
        missing += batch[0].null_count + (flat.null_count if flat is not batch[0] else 0)
        ids = _number(flat, numbers, occurrences)
        if len(numbers) > MAX_DISTINCT:
            raise TooManyTokens(
                f"column {column!r} has more than {MAX_DISTINCT:,} different tokens; hash it "
                "instead (`flint catalog vocab advise` compares), or bucketize it"
            )
        if clients is not None:
            whose = (
                batch[1] if flat is batch[0] else batch[1].take(pc.list_parent_indices(batch[0]))
            )
            clients.add(ids, whose.filter(flat.is_valid()).fill_null(""))
    per_token = None if clients is None else clients.per_token(len(numbers)).tolist()
    return TokenCounts(
        column,
        dict(zip(numbers, occurrences, strict=True)),
        None if per_token is None else dict(zip(numbers, per_token, strict=True)),
        rows,
        missing,
    )


def _number(flat: pa.Array, numbers: dict[str, int], occurrences: list[int]) -> NDArray[np.int64]:
    """Numbers of a batch's tokens, nulls left out; new tokens get the next, and all are counted."""
    encoded = flat.drop_null().dictionary_encode()
    known = np.array(
        [numbers.setdefault(token, len(numbers)) for token in encoded.dictionary.to_pylist()],
        np.int64,
    )
    occurrences.extend([0] * (len(numbers) - len(occurrences)))
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    for number, count in zip(known.tolist(), _counts(indices, len(known)), strict=True):
        occurrences[number] += count
    return known[indices] if len(known) else np.zeros(0, np.int64)


def _counts(indices: NDArray[np.int32], size: int) -> Iterable[int]:
    counted: list[int] = np.bincount(indices, minlength=size).tolist()
    return counted
