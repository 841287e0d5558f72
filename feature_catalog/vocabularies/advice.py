"""Vocabulary or hashing, and how large: bytes, coverage and AUPRC of each on one's own data.

Every scheme gives each column's tokens rows of a table: a vocabulary one each to its most frequent
tokens and one to all others, hashing one of its buckets. The same logistic regression is then
fitted over those rows on training clients, and judged on clients it has not seen. It is a stand-in
for the model that will be trained: it tells what is lost with ids that become one, not how good a
network will be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_catalog.vocabularies.collisions import Collisions, measure_collisions, token_hashes
from feature_catalog.vocabularies.records import ColumnTokens, TokenRecords
from modeling.compression import table_bytes
from modeling.logistic_regression import (
    Floats,
    LogisticRegression,
    SparseRecords,
    fit_logistic_regression,
)
from modeling.metrics import auprc

RESAMPLES = 100
BUCKETS_A_TOKEN = 10
"""Most buckets a column is given for each token: more would be empty and cost bytes."""

ReportScheme = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to give tokens rows.

    Attributes:
        kind: ``full``, ``truncated`` or ``hashed``.
        entries: Most tokens of a vocabulary, or buckets, of each column; a column of few tokens
            has no more buckets than `BUCKETS_A_TOKEN` of each.
    """

    kind: str
    entries: int


@dataclass(frozen=True, slots=True)
class ColumnAdvice:
    """What a scheme makes of one column.

    Attributes:
        rows: Of the table.
        vocabulary_bytes: Of the file; 0 where tokens are hashed.
        coverage: Share of held-out clients' tokens that a vocabulary holds; 1 where hashed.
        collisions: Of the training clients' tokens; None of a vocabulary.
    """

    column: str
    rows: int
    vocabulary_bytes: int
    coverage: float
    collisions: Collisions | None


@dataclass(frozen=True, slots=True)
class SchemeAdvice:
    """What a scheme costs and brings.

    Attributes:
        vocabulary_bytes: Of all columns' files.
        table_bytes: Of a float32 table of all rows, of the width asked for.
        coverage: Share of held-out clients' tokens that vocabularies hold.
        auprc: On held-out clients.
        loss: AUPRC of the full vocabulary less this one's.
        loss_error: Standard error of ``loss``, over which clients were held out.
    """

    scheme: Scheme
    columns: tuple[ColumnAdvice, ...]
    vocabulary_bytes: int
    table_bytes: int
    coverage: float
    auprc: float
    loss: float
    loss_error: float

    @property
    def bytes(self) -> int:
        """On the device, vocabulary and table."""
        return self.vocabulary_bytes + self.table_bytes


@dataclass(frozen=True, slots=True)
class Advice:
    """All schemes compared, the full vocabulary first.

    Attributes:
        positive_share: Of held-out records: what a random ranking's AUPRC is.
        recommended: The one of the fewest bytes whose loss, and a standard error of it, are within
            the tolerance.
    """

    schemes: tuple[SchemeAdvice, ...]
    heldout_records: int
    heldout_clients: int
    training_records: int
    positive_share: float
    tolerance: float
    recommended: SchemeAdvice


def ladder(largest: int, steps: int = 4, factor: int = 4, least: int = 8) -> tuple[int, ...]:
    """Sizes to compare: a column's tokens, and each ``factor`` times fewer.

    >>> ladder(8826)
    (8826, 2206, 551, 137, 34)
    """
    sizes = [largest]
    while len(sizes) <= steps and sizes[-1] // factor >= least:
        sizes.append(sizes[-1] // factor)
    return tuple(sizes)


def advise(
    records: TokenRecords,
    *,
    entries: Sequence[int] = (),
    width: int = 16,
    tolerance: float = 0.005,
    hash_seed: int = 0,
    resample_seed: int = 0,
    progress: ReportScheme | None = None,
) -> Advice:
    """Compare vocabularies and hashing at several sizes.

    Args:
        entries: Sizes; without any, a `ladder` from the largest column's tokens.
        width: Numbers a row of the model's table.
        tolerance: AUPRC that the recommended scheme may lose, a standard error included.
        hash_seed: Of the hash.
        resample_seed: Of the resampled clients, by which errors are told.
    """
    largest = max(column.known for column in records.columns)
    sizes = sorted({size for size in entries or ladder(largest) if size > 0}, reverse=True)
    schemes = [Scheme("full", largest)]
    schemes += [Scheme("truncated", size) for size in sizes if size < largest]
    schemes += [Scheme("hashed", size) for size in sizes]
    hashes = [token_hashes(column.tokens, hash_seed) for column in records.columns]
    resampled = _resampled_clients(records, resample_seed)
    judged: list[SchemeAdvice] = []
    best: Floats | None = None
    for done, scheme in enumerate(schemes):
        if progress is not None:
            progress(f"training: {scheme.kind} {scheme.entries}", done, len(schemes))
        maps = [
            _rows_of(column, scheme, its)
            for column, its in zip(records.columns, hashes, strict=True)
        ]
        scores = _heldout_scores(records, [rows for _, rows in maps], [n for n, _ in maps])
        drawn = _auprc_of_resamples(records, scores, resampled)
        best = drawn if best is None else best
        columns = tuple(
            _column_advice(records, column, scheme, its, rows)
            for column, its, (rows, _) in zip(records.columns, hashes, maps, strict=True)
        )
        value = auprc(records.labels[records.is_heldout], scores)
        judged.append(
            SchemeAdvice(
                scheme=scheme,
                columns=columns,
                vocabulary_bytes=sum(each.vocabulary_bytes for each in columns),
                table_bytes=table_bytes(sum(each.rows for each in columns), width),
                coverage=_coverage(records, columns),
                auprc=value,
                loss=judged[0].auprc - value if judged else 0.0,
                loss_error=float(np.std(best - drawn, ddof=1)),
            )
        )
    fitting = [each for each in judged if each.loss + each.loss_error <= tolerance]
    heldout = records.is_heldout
    return Advice(
        schemes=tuple(judged),
        heldout_records=int(heldout.sum()),
        heldout_clients=len(np.unique(records.client[heldout])),
        training_records=int((~heldout).sum()),
        positive_share=float(records.labels[heldout].mean()),
        tolerance=tolerance,
        recommended=min(fitting, key=lambda each: (each.bytes, each.loss)),
    )


def _rows_of(
    column: ColumnTokens, scheme: Scheme, hashes: NDArray[np.int64]
) -> tuple[int, NDArray[np.int64]]:
    """Number of rows, and the row of each of a column's tokens."""
    if scheme.kind == "hashed":
        buckets = _buckets(column, scheme)
        return buckets, hashes % buckets
    kept = min(scheme.entries, column.known)
    # Tokens are numbered by frequency; those beyond share the last row.
    return kept + 1, np.minimum(np.arange(len(column.tokens)), kept)


def _buckets(column: ColumnTokens, scheme: Scheme) -> int:
    return min(scheme.entries, BUCKETS_A_TOKEN * column.known)


def _heldout_scores(
    records: TokenRecords, row_of: Sequence[NDArray[np.int64]], rows: Sequence[int]
) -> Floats:
    """Logits of held-out records, by a regression over training records."""
    firsts = np.concatenate([[0], np.cumsum(rows)])
    place = np.where(records.is_heldout, _place(records.is_heldout), _place(~records.is_heldout))
    parts: dict[bool, list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]] = {
        True: [],
        False: [],
    }
    for column, its_rows, first in zip(records.columns, row_of, firsts, strict=False):
        # A list's tokens weigh as one together: a long history does not outweigh the rest.
        per_record = np.bincount(column.row, minlength=len(records.labels))
        value = 1.0 / per_record[column.row]
        index = first + its_rows[column.number]
        of_heldout = records.is_heldout[column.row]
        for heldout in (True, False):
            chosen = of_heldout == heldout
            parts[heldout].append((place[column.row[chosen]], index[chosen], value[chosen]))
    sides = {
        heldout: SparseRecords(
            row=np.concatenate([row for row, _, _ in pieces]),
            index=np.concatenate([index for _, index, _ in pieces]),
            value=np.concatenate([value for _, _, value in pieces]),
            rows=int((records.is_heldout == heldout).sum()),
            inputs=int(firsts[-1]),
        )
        for heldout, pieces in parts.items()
    }
    labels = records.labels[~records.is_heldout].astype(np.float64)
    fitted: LogisticRegression = fit_logistic_regression(sides[False], labels)
    return fitted.scores(sides[True])


def _place(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each chosen row, how many chosen ones are before it."""
    return np.cumsum(chosen) - 1


def _column_advice(
    records: TokenRecords,
    column: ColumnTokens,
    scheme: Scheme,
    hashes: NDArray[np.int64],
    rows: int,
) -> ColumnAdvice:
    if scheme.kind == "hashed":
        known = slice(0, column.known)
        collisions = measure_collisions(hashes[known], column.training_counts[known], rows)
        return ColumnAdvice(column.name, rows, 0, 1.0, collisions)
    kept = rows - 1
    heldout = column.number[records.is_heldout[column.row]]
    return ColumnAdvice(
        column=column.name,
        rows=rows,
        vocabulary_bytes=sum(len(token.encode()) + 1 for token in column.tokens[:kept]),
        coverage=float((heldout < kept).mean()) if len(heldout) else 1.0,
        collisions=None,
    )


def _coverage(records: TokenRecords, columns: Sequence[ColumnAdvice]) -> float:
    """Share of all columns' held-out tokens, each counted alike."""
    weights = [int(records.is_heldout[each.row].sum()) for each in records.columns]
    covered = [each.coverage for each in columns]
    return float(np.average(covered, weights=weights)) if sum(weights) else 1.0


def _resampled_clients(records: TokenRecords, seed: int) -> NDArray[np.int64]:
    """How often each held-out record counts, clients drawn anew, ``(RESAMPLES, records)``."""
    _, client = np.unique(records.client[records.is_heldout], return_inverse=True)
    clients = int(client.max()) + 1
    rng = np.random.default_rng([seed, 0x56_4F_43])
    drawn = rng.multinomial(clients, np.full(clients, 1.0 / clients), size=RESAMPLES)
    return drawn[:, client]


def _auprc_of_resamples(
    records: TokenRecords, scores: Floats, weights: NDArray[np.int64]
) -> Floats:
    """AUPRC of each resample, shape ``(RESAMPLES,)``; records of equal score share a threshold."""
    order = np.argsort(-scores, kind="stable")
    truth = records.labels[records.is_heldout][order].astype(np.int64)
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    found = []
    for its in weights:
        weight = its[order]
        true_positives = np.cumsum(weight * truth)[last]
        seen = np.cumsum(weight)[last]
        if true_positives[-1] == 0:
            found.append(0.0)
            continue
        precision = true_positives / np.maximum(seen, 1)
        gains = np.diff(true_positives, prepend=0) / true_positives[-1]
        found.append(float(gains @ precision))
    return np.array(found)
