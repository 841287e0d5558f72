"""Vocabulary or hashing: collisions in closed form, coverage counted, AUPRC beside scikit-learn."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.columns import Column
from device_runtime.transforms import Hash
from feature_catalog.splits import is_heldout
from feature_catalog.table_files import open_table
from feature_catalog.vocabularies.advice import (
    _auprc_of_resamples,
    advise,
    ladder,
)
from feature_catalog.vocabularies.collisions import (
    expected_collisions,
    measure_collisions,
    token_hashes,
)
from feature_catalog.vocabularies.records import TokenRecords, read_token_records, token_fields
from feature_catalog.vocabularies.token_columns import NoTokens

ROWS, CLIENTS, ITEMS = 6000, 60, 300


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Clicks on items, each with a rate of its own; a list column; a column that tells nothing."""
    rng = np.random.default_rng(8)
    item = (ITEMS * rng.random(ROWS) ** 2).astype(int)
    rate = rng.normal(0, 2, ITEMS)
    label = rng.random(ROWS) < 1 / (1 + np.exp(-rate[item]))
    path = tmp_path_factory.mktemp("advice") / "clicks.parquet"
    pq.write_table(
        pa.table(
            {
                "client": [f"c{n}" for n in rng.integers(0, CLIENTS, ROWS)],
                "label": label.astype(np.int8),
                "item": [f"item {n}" for n in item],
                "tags": [[int(n) % 7, int(n) % 3] for n in rng.integers(0, 50, ROWS)],
                "day": rng.integers(0, 7, ROWS),
                "price": rng.random(ROWS),
            }
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def records(path) -> TokenRecords:
    return read_token_records(
        open_table(path), ["item", "tags", "day"], client="client", label="label"
    )


def test_collisions_are_those_of_the_devices_hash():
    tokens = [f"token {n}" for n in range(500)]
    counts = np.arange(1, 501)
    bucket = Hash(128).apply(Column.of(tokens), {}).values
    in_bucket = Counter(bucket.tolist())
    found = measure_collisions(token_hashes(tokens), counts, 128)
    colliding = np.array([in_bucket[b] > 1 for b in bucket.tolist()])
    assert found.tokens_share == colliding.mean()
    assert found.occurrences_share == counts[colliding].sum() / counts.sum()
    assert found.used == len(in_bucket)


@pytest.mark.parametrize(("distinct", "buckets"), [(50, 100), (1000, 1000), (400, 4000)])
def test_expected_collisions_are_the_mean_over_seeds(distinct, buckets):
    tokens = [f"t{n}" for n in range(distinct)]
    once = np.ones(distinct, int)
    measured = [
        measure_collisions(token_hashes(tokens, seed), once, buckets).tokens_share
        for seed in range(60)
    ]
    expected = expected_collisions(distinct, buckets)
    assert expected == pytest.approx(1 - (1 - 1 / buckets) ** (distinct - 1))
    error = np.std(measured, ddof=1) / np.sqrt(len(measured))
    assert abs(np.mean(measured) - expected) < 4 * error
    assert (expected_collisions(1, 5), expected_collisions(2, 1)) == (0.0, 1.0)


def test_records_are_split_and_numbered_by_frequency_among_training_clients(path, records):
    table = pq.read_table(path)
    client = table["client"].to_pylist()
    heldout = np.array([is_heldout("clicks", each) for each in client])
    assert (records.is_heldout == heldout).all()
    item = records.columns[0]
    given = table["item"].to_pylist()
    assert [item.tokens[n] for n in item.number.tolist()] == given
    counts = Counter(token for token, out in zip(given, heldout, strict=True) if not out)
    assert item.training_counts.tolist() == [counts[token] for token in item.tokens]
    assert item.tokens == sorted(set(given), key=lambda token: (-counts[token], token))
    tags = records.columns[1]
    assert [int(tags.tokens[n]) for n in tags.number] == table[
        "tags"
    ].combine_chunks().flatten().to_pylist()
    assert tags.row.tolist() == np.repeat(np.arange(ROWS), 2).tolist()
    assert token_fields(open_table(path), ("client", "label")) == ["item", "tags", "day"]


def test_what_is_advised_adds_up(records):
    advice = advise(records, entries=(300, 40, 5))
    item = records.columns[0]
    kinds = [(each.scheme.kind, each.scheme.entries) for each in advice.schemes]
    assert kinds == [
        ("full", item.known),
        *(("truncated", n) for n in (40, 5)),
        *(("hashed", n) for n in (300, 40, 5)),
    ]
    heldout = item.number[records.is_heldout[item.row]]
    for each in advice.schemes:
        first = each.columns[0]
        assert each.table_bytes == 4 * 16 * sum(column.rows for column in each.columns)
        if each.scheme.kind == "hashed":
            assert each.vocabulary_bytes == 0
            assert first.collisions.expected_share == expected_collisions(
                item.known, each.scheme.entries
            )
            continue
        kept = item.tokens[: each.scheme.entries]
        assert first.vocabulary_bytes == sum(len(token) + 1 for token in kept)
        assert first.coverage == np.mean(heldout < len(kept))
    full, coarse = advice.schemes[0], advice.schemes[2]
    assert full.auprc > advice.positive_share + 0.1
    assert coarse.loss > 3 * coarse.loss_error > 0
    assert advice.recommended.loss + advice.recommended.loss_error <= advice.tolerance


def test_the_same_data_give_the_same_advice(records):
    assert advise(records, entries=(20,)) == advise(records, entries=(20,))


def test_auprc_is_that_of_scikit_learn_on_one_hot_ids(records):
    sparse = pytest.importorskip("scipy.sparse")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    blocks = []
    for column in records.columns:
        share = 1 / np.bincount(column.row)[column.row]
        kept = np.minimum(column.number, column.known)
        shape = (ROWS, column.known + 1)
        blocks.append(sparse.coo_matrix((share, (column.row, kept)), shape))
    matrix = sparse.hstack(blocks).tocsr()
    out = records.is_heldout
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000)
    model.fit(matrix[~out], records.labels[~out])
    theirs = average_precision_score(records.labels[out], model.decision_function(matrix[out]))
    # Ours stops earlier: at a gradient of 1e-4.
    assert advise(records, entries=(9,)).schemes[0].auprc == pytest.approx(theirs, abs=5e-3)


def test_resampled_auprc_is_that_of_the_records_repeated(records):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    heldout = int(records.is_heldout.sum())
    scores = rng.integers(0, 50, heldout).astype(float)
    weights = rng.integers(0, 4, (3, heldout))
    labels = records.labels[records.is_heldout]
    for its, found in zip(weights, _auprc_of_resamples(records, scores, weights), strict=True):
        expected = metrics.average_precision_score(np.repeat(labels, its), np.repeat(scores, its))
        assert found == pytest.approx(expected, abs=1e-12)


def test_sizes_become_smaller_by_the_same_factor():
    assert ladder(8826) == (8826, 2206, 551, 137, 34)
    assert ladder(5) == (5,)


def test_a_column_without_values_is_named(tmp_path):
    path = tmp_path / "d.parquet"
    client = [str(n) for n in range(40)]
    empty = pa.array([None] * 40, pa.string())
    pq.write_table(pa.table({"u": client, "y": [n % 2 for n in range(40)], "c": empty}), path)
    with pytest.raises(NoTokens, match="column 'c' has no value"):
        read_token_records(open_table(path), ["c"], client="u", label="y")
