"""Smaller embedding tables: fewer rows, shared rows, narrower rows, or a product of two tables.

Of a model for phones the table is most: FLINT cut one from 500,000 words to 50,000 and from 300
dimensions to 50, which is 60 times fewer numbers (Wang et al., MLSys 2023). Four ways, to be
weighed against each other on one's own data (`benchmarks/embedding_compression.py`):

* `cut_vocabulary`: the most frequent ids keep a row each, the others have none;
* `hash_vocabulary`: ids share rows (Weinberger et al., ICML 2009);
* ``resized(spec, width=...)``: fewer numbers a row;
* ``resized(spec, rank=...)``: one `FactorisedEmbedding`; `factorise` makes its start from a table
  learnt beforehand.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_runtime.hashing import PADDING, hash_bucket
from modeling.spec import (
    Dense,
    Embedding,
    FactorisedEmbedding,
    Layer,
    ModelSpec,
    TextConvolution,
)

_FLOAT_BYTES = 4


def table_bytes(rows: int, width: int, rank: int | None = None) -> int:
    """Bytes of a float32 table, or of the two whose product it is.

    >>> table_bytes(500_000, 300) / table_bytes(50_000, 50)
    60.0
    """
    numbers = rows * width if rank is None else rank * (rows + width)
    return _FLOAT_BYTES * numbers


def rank_within(budget_bytes: int, rows: int, width: int) -> int:
    """The largest rank whose two tables take at most so many bytes; 0 if none does."""
    return budget_bytes // (_FLOAT_BYTES * (rows + width))


@dataclass(frozen=True, slots=True)
class IdMap:
    """Old ids to rows of a smaller table.

    Attributes:
        row_of: Row of each old id, int32, shape ``(vocabulary,)``; -1 where it has none.
        rows: Of the smaller table.
    """

    row_of: NDArray[np.int32]
    rows: int

    def apply(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Map ids of any shape; unused slots (-1) stay unused."""
        return np.where(ids == PADDING, PADDING, self.row_of[ids]).astype(np.int32)

    def table(self, old: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """A start for the smaller table: the mean of the old rows that share one.

        Args:
            old: Shape ``(vocabulary, width)``.
            counts: How often each old id occurs, which is its weight; shape ``(vocabulary,)``.

        Returns:
            Shape ``(rows, width)``; zeros where nothing is shared.
        """
        kept = np.flatnonzero(self.row_of != PADDING)
        weight = counts[kept].astype(np.float64)
        total = np.zeros(self.rows)
        summed = np.zeros((self.rows, old.shape[1]))
        np.add.at(total, self.row_of[kept], weight)
        np.add.at(summed, self.row_of[kept], weight[:, None] * old[kept])
        return (summed / np.maximum(total, 1)[:, None]).astype(np.float32)


def cut_vocabulary(counts: NDArray[np.int64], rows: int) -> IdMap:
    """Keep the most frequent ids, row 0 the most frequent of all.

    Args:
        counts: How often each id occurs in the training clients' records, ``(vocabulary,)``; of
            equally frequent ids the lower are kept.
        rows: Ids to keep, at most; those that never occur are not among them.

    Raises:
        ValueError: If that is less than one.
    """
    _require_rows(rows)
    most = np.argsort(-counts, kind="stable")[:rows]
    most = most[counts[most] > 0]
    row_of = np.full(counts.size, PADDING, np.int32)
    row_of[most] = np.arange(most.size)
    return IdMap(row_of, max(1, most.size))


def hash_vocabulary(vocabulary: int, rows: int, seed: int = 0) -> IdMap:
    """Spread ids over rows by the platform's hash, which a device of any language can repeat.

    Raises:
        ValueError: If there is less than one row.
    """
    _require_rows(rows)
    row_of = [hash_bucket(str(old), rows, seed) for old in range(vocabulary)]
    return IdMap(np.array(row_of, np.int32), rows)


def covered(id_map: IdMap, counts: NDArray[np.int64]) -> float:
    """Share of occurrences whose id still has a row of the smaller table."""
    return float(counts[id_map.row_of != PADDING].sum() / max(1, counts.sum()))


def factorise(
    table: NDArray[np.float32], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The two tables of this rank whose product is nearest to a table (Eckart and Young, 1936).

    Returns:
        ``(rows, rank)`` and ``(rank, width)``, both scaled alike.

    Raises:
        ValueError: If the rank is less than one or above the table's width or rows.
    """
    if not 1 <= rank <= min(table.shape):
        raise ValueError(f"a table of {table.shape} has no factors of rank {rank}")
    left, strength, right = np.linalg.svd(table.astype(np.float64), full_matrices=False)
    root = np.sqrt(strength[:rank])
    codes, projection = left[:, :rank] * root, root[:, None] * right[:rank]
    return codes.astype(np.float32), projection.astype(np.float32)


def resized(
    spec: ModelSpec,
    name: str,
    *,
    rows: int | None = None,
    width: int | None = None,
    rank: int | None = None,
) -> ModelSpec:
    """A model with a smaller embedding; the layer above takes what it then gives.

    Args:
        name: Of the smaller model.
        rows: Ids of its table; None leaves them.
        width: Numbers a row; None leaves them.
        rank: Makes the table a product of two; None leaves it one table.

    Raises:
        TypeError: If the model does not begin with an `Embedding`.
        ValueError: If a frozen one is to be factorised: it costs storage alone, so cut or narrow
            it.
    """
    first, above = spec.layers[0], spec.layers[1]
    if not isinstance(first, Embedding):
        raise TypeError(f"{spec.name} begins with {first.kind}, not with an embedding")
    smaller = replace(first, rows=rows or first.rows, width=width or first.width)
    table: Layer = smaller
    if rank is not None:
        if first.frozen:
            raise ValueError(f"{spec.name} has a frozen table; cut its rows or its width")
        table = FactorisedEmbedding(smaller.name, smaller.rows, rank, smaller.width, smaller.slots)
    match above:
        case Dense():
            above = replace(above, inputs=smaller.outputs)
        case TextConvolution():
            above = replace(above, width=smaller.width)
        case _:
            raise TypeError(f"{above.kind} does not take an embedding")
    return replace(spec, name=name, layers=(table, above, *spec.layers[2:]))


def _require_rows(rows: int) -> None:
    if rows < 1:
        raise ValueError(f"a table of {rows} rows holds nothing; keep at least 1")
