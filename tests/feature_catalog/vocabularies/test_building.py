"""Vocabularies from data: counts beside Python's own, limits, and files that are whole."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.columns import Column
from device_runtime.transform_assets import Vocabulary
from device_runtime.transform_chain import TransformChain
from feature_catalog.table_files import MissingColumn, UnreadableDataFile, open_table
from feature_catalog.vocabularies import counts as counting
from feature_catalog.vocabularies.counts import TokenCounts, TooManyTokens, count_tokens
from feature_catalog.vocabularies.files import UnwritableVocabulary, write_whole
from feature_catalog.vocabularies.selection import (
    EmptyVocabulary,
    ImpossibleLimits,
    VocabularyLimits,
    select_vocabulary,
)
from feature_catalog.vocabularies.token_columns import NoTokens, open_tables

WORDS = st.text(st.characters(codec="utf-8"), max_size=6)


def written(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


def test_counts_are_those_of_a_plain_loop_over_scalars_and_lists(tmp_path, monkeypatch):
    rng = np.random.default_rng(5)
    rows = 3000
    client = rng.integers(0, 40, rows)
    word = [None if rng.random() < 0.1 else f"w{int(rng.zipf(1.5)) % 97}" for _ in range(rows)]
    listed = [
        None if rng.random() < 0.1 else [int(v) for v in rng.integers(0, 30, rng.integers(0, 5))]
        for _ in range(rows)
    ]
    monkeypatch.setattr(counting, "_COMPACT_PAIRS", 100)
    path = written(tmp_path / "d.parquet", client=client, word=word, listed=listed)
    for column, values in (("word", [[w] if w else [] for w in word]), ("listed", listed)):
        found = count_tokens([open_table(path)], column, client="client")
        expected, clients = Counter(), defaultdict(set)
        for whose, tokens in zip(client.tolist(), values, strict=True):
            for token in tokens or []:
                expected[str(token)] += 1
                clients[str(token)].add(whose)
        assert found.occurrences == expected
        assert found.clients == {token: len(ids) for token, ids in clients.items()}
        assert found.rows == rows
        nulls = sum(value is None for value in (word if column == "word" else listed))
        assert found.missing == nulls


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        (pa.array([True, False, True]), {"1": 2, "0": 1}),
        (pa.array([-3, 2**40, None], pa.int64()), {"-3": 1, str(2**40): 1}),
        (pa.array(["b", "a", "b"]).dictionary_encode(), {"b": 2, "a": 1}),
        (pa.array([[1, 2], [2, 3]], pa.list_(pa.int32(), 2)), {"1": 1, "2": 2, "3": 1}),
        (pa.array([[["x"]], []], pa.list_(pa.list_(pa.string()))), None),
        (pa.array([0.5, 1.0]), None),
        (pa.array([[0.5], []]), None),
    ],
)
def test_tokens_are_what_devices_make_of_values_and_floats_are_refused(tmp_path, values, tokens):
    path = written(tmp_path / "d.parquet", c=values)
    if tokens is None:
        with pytest.raises(NoTokens, match="'c' holds"):
            count_tokens([open_table(path)], "c")
    else:
        assert count_tokens([open_table(path)], "c").occurrences == tokens


@settings(max_examples=20, deadline=None)
@given(
    occurrences=st.dictionaries(WORDS, st.integers(1, 5), max_size=30),
    min_count=st.integers(1, 3),
    max_entries=st.none() | st.integers(1, 10),
    max_bytes=st.none() | st.integers(1, 40),
)
def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one(
    occurrences, min_count, max_entries, max_bytes
):
    counts = TokenCounts("c", occurrences, None, 0, 0)
    limits = VocabularyLimits(min_count, 1, max_entries, max_bytes)
    fitting = sorted(
        (t for t, n in occurrences.items() if t and "\n" not in t and n >= min_count),
        key=lambda t: (-occurrences[t], t.encode()),
    )
    try:
        built = select_vocabulary(counts, limits)
    except EmptyVocabulary:
        assert not fitting or (max_bytes is not None and len(fitting[0].encode()) + 1 > max_bytes)
        return
    tokens = built.vocabulary.tokens
    assert list(tokens) == fitting[: len(tokens)]
    assert len(tokens) <= (max_entries or len(fitting))
    content = built.vocabulary.to_bytes()
    assert len(content) <= (max_bytes or len(content))
    if len(tokens) < len(fitting[:max_entries]):
        assert len(content) + len(fitting[len(tokens)].encode()) + 1 > max_bytes
    assert built.covered == sum(occurrences[token] for token in tokens)
    assert built.distinct == len(tokens) + built.unstorable + built.rare + built.cut
    assert Vocabulary.from_bytes(content).tokens == tokens


def test_what_the_device_looks_up_is_what_was_counted(tmp_path):
    path = written(tmp_path / "d.parquet", item=[7, 7, 12, -1, None])
    built = select_vocabulary(count_tokens([open_table(path)], "item"), VocabularyLimits())
    chain = TransformChain.from_json('[{"op":"vocab","asset":"a","unknown":9}]')
    ids = chain.apply(Column.of([12, 7, -1, 8]), {"a": built.vocabulary})
    assert ids.to_list() == [2, 0, 1, 9]


def test_tokens_of_too_few_clients_stay_out():
    counts = TokenCounts("c", {"a": 9, "b": 5, "c": 5}, {"a": 1, "b": 2, "c": 5}, 19, 0)
    built = select_vocabulary(counts, VocabularyLimits(min_clients=2))
    assert built.vocabulary.tokens == ("b", "c")
    assert (built.rare, built.coverage) == (1, 10 / 19)
    with pytest.raises(ImpossibleLimits, match="--client"):
        select_vocabulary(TokenCounts("c", {"a": 1}, None, 1, 0), VocabularyLimits(min_clients=2))


def test_impossible_limits_and_empty_columns_are_told():
    with pytest.raises(ImpossibleLimits, match="--max-entries is 0"):
        VocabularyLimits(max_entries=0)
    with pytest.raises(EmptyVocabulary, match="only missing values"):
        select_vocabulary(TokenCounts("c", {}, None, 3, 3), VocabularyLimits())
    with pytest.raises(EmptyVocabulary, match="holds a line feed"):
        select_vocabulary(TokenCounts("c", {"": 2, "a\nb": 1}, None, 3, 0), VocabularyLimits())
    with pytest.raises(EmptyVocabulary, match="lower --min-count"):
        select_vocabulary(TokenCounts("c", {"a": 1}, None, 1, 0), VocabularyLimits(min_count=2))


def test_a_column_that_hardly_repeats_is_told_to_be_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MAX_DISTINCT", 3)
    path = written(tmp_path / "d.parquet", c=["a", "b", "c", "d"])
    with pytest.raises(TooManyTokens, match="hash it instead"):
        count_tokens([open_table(path)], "c")


def test_a_folder_is_read_file_by_file_in_order_of_name(tmp_path):
    written(tmp_path / "b.parquet", c=["x", "y"])
    written(tmp_path / "a.parquet", c=["y"])
    tables = open_tables(tmp_path)
    assert [table.path.name for table in tables] == ["a.parquet", "b.parquet"]
    assert count_tokens(tables, "c").occurrences == {"y": 2, "x": 1}
    with pytest.raises(MissingColumn, match="did you mean c"):
        count_tokens(tables, "C")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableDataFile, match=r"no \.parquet file"):
        open_tables(tmp_path / "empty")


def test_a_file_that_cannot_be_written_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "v.txt"
    write_whole(path, b"old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnwritableVocabulary, match="No space left"):
        write_whole(path, b"new\n")
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UnwritableVocabulary, match="there is no folder"):
        write_whole(tmp_path / "none" / "v.txt", b"")
    with pytest.raises(UnwritableVocabulary, match="is a directory"):
        write_whole(tmp_path, b"")
