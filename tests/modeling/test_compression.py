import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.compression import (
    covered,
    cut_vocabulary,
    factorise,
    hash_vocabulary,
    rank_within,
    resized,
    table_bytes,
)
from modeling.torch_models import build_torch, load_parameters
from modeling.zoo import EMBEDDING_MLP, MODELS, TEXT_CNN, TINY_MLP

COUNTS = np.array([5, 0, 9, 9, 1, 2])


def test_flints_compression_makes_the_table_sixty_times_smaller():
    """500,000 words of 300 dimensions become 50,000 of 50: 600 MB become 10 MB."""
    before, after = table_bytes(500_000, 300), table_bytes(50_000, 50)
    assert (before, after) == (600_000_000, 10_000_000)
    assert before / after == 60


def test_two_tables_stand_for_one():
    assert table_bytes(50_000, 300, rank=25) == 4 * 25 * 50_300
    assert rank_within(table_bytes(50_000, 300, rank=25), 50_000, 300) == 25
    assert rank_within(table_bytes(50_000, 300, rank=25) - 1, 50_000, 300) == 24


def test_a_cut_keeps_the_most_frequent_ids_and_drops_the_rest():
    kept = cut_vocabulary(COUNTS, 3)
    assert kept.row_of.tolist() == [2, -1, 0, 1, -1, -1]
    assert kept.apply(np.array([[2, 3, -1], [4, 0, 5]])).tolist() == [[0, 1, -1], [-1, 2, -1]]
    assert covered(kept, COUNTS) == pytest.approx(23 / 26)


def test_a_cut_wider_than_the_vocabulary_keeps_what_occurs():
    kept = cut_vocabulary(COUNTS, 100)
    assert (kept.rows, covered(kept, COUNTS)) == (5, 1.0)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_hashing_gives_every_id_a_row(vocabulary, rows, seed):
    hashed = hash_vocabulary(vocabulary, rows, seed)
    ids = np.arange(-1, vocabulary, dtype=np.int32)
    mapped = hashed.apply(ids)
    assert mapped[0] == -1
    assert mapped[1:].min() >= 0
    assert mapped.max() < rows
    assert covered(hashed, np.ones(vocabulary, np.int64)) == 1.0


def test_rows_that_share_one_begin_from_their_weighted_mean():
    hashed = hash_vocabulary(6, 2)
    old = np.arange(12, dtype=np.float32).reshape(6, 2)
    found = hashed.table(old, COUNTS)
    for row in range(2):
        of_row = hashed.row_of == row
        expected = np.average(old[of_row], axis=0, weights=COUNTS[of_row])
        np.testing.assert_allclose(found[row], expected, rtol=1e-6)


def test_factors_of_full_rank_give_the_table_back_and_fewer_the_nearest():
    table = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    codes, projection = factorise(table, 8)
    np.testing.assert_allclose(codes @ projection, table, atol=1e-5)
    codes, projection = factorise(table, 3)
    lost = np.linalg.svd(table, compute_uv=False)[3:]
    error = np.linalg.norm(codes @ projection - table)
    assert error == pytest.approx(np.linalg.norm(lost), rel=1e-5)
    with pytest.raises(ValueError, match="no factors of rank 9"):
        factorise(table, 9)


def test_a_factorised_model_begins_as_the_model_it_stands_for():
    start = EMBEDDING_MLP.initial_parameters(0)
    smaller = resized(EMBEDDING_MLP, "factorised", rank=32)
    x = np.random.default_rng(0).integers(-1, 5_000, (6, 8), np.int32)
    whole, product = build_torch(EMBEDDING_MLP), build_torch(smaller)
    load_parameters(whole, start)
    load_parameters(product, [*factorise(start[0], 32), *start[1:]])
    with torch.no_grad():
        torch.testing.assert_close(
            product(torch.tensor(x)), whole(torch.tensor(x)), atol=1e-5, rtol=0
        )


def test_a_smaller_model_fits_together_and_is_as_small_as_said():
    smaller = resized(EMBEDDING_MLP, "smaller", rows=500, width=8)
    assert smaller.parameter_count == 500 * 8 + 64 * 160 + 160 + 160 * 40 + 40 + 41
    assert [p.shape for p in smaller.parameters[:2]] == [(500, 8), (64, 160)]
    narrow = resized(TEXT_CNN, "narrow", width=50)
    assert narrow.frozen_parameters[0].shape == (23_000, 50)
    assert narrow.parameters[0].shape == (3 * 50, 256)
    assert "smaller" not in MODELS


def test_what_cannot_be_made_smaller_is_refused():
    with pytest.raises(TypeError, match="tiny_mlp begins with dense"):
        resized(TINY_MLP, "smaller", rows=5)
    with pytest.raises(ValueError, match="frozen table; cut its rows or its width"):
        resized(TEXT_CNN, "smaller", rank=5)
    with pytest.raises(ValueError, match="keep at least 1"):
        cut_vocabulary(COUNTS, 0)
