"""Entity rows in every form, and what is wrong with one, in a sentence."""

import numpy as np
import pyarrow as pa
import pytest

from device_runtime.feature_values import encode_key
from feature_catalog.definitions import CloudSource, Dtype
from feature_catalog.online import JoinKey, OnlineView
from feature_catalog.online.entity_keys import entity_columns, keys_of
from feature_catalog.online.errors import InvalidEntityRow

SOURCE = CloudSource(path="a.parquet")
TEXT = OnlineView("v", (JoinKey("id", Dtype.STRING),), (), SOURCE)
WHOLE = OnlineView("v", (JoinKey("id", Dtype.INT32),), (), SOURCE)
PAIR = OnlineView("v", (JoinKey("a", Dtype.STRING), JoinKey("b", Dtype.INT64)), (), SOURCE)


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "x", "n": 1}, {"id": "y", "n": 2}],
        {"id": ["x", "y"], "n": (1, 2)},
        pa.table({"id": ["x", "y"], "n": [1, 2]}),
    ],
)
def test_rows_columns_and_tables_are_the_same(rows):
    assert entity_columns(rows) == {"id": ["x", "y"], "n": [1, 2]}


def test_a_key_that_repeats_is_asked_for_once_and_given_to_each_row():
    keys = keys_of({"id": ["x", "y", "x"]}, TEXT)
    assert list(keys.keys) == [encode_key(["x"]), encode_key(["y"])]
    assert keys.spread([10, 20]) == [10, 20, 10]
    pairs = keys_of({"a": ["x", "x", "x"], "b": [1, 2, 1]}, PAIR)
    assert list(pairs.keys) == [encode_key(["x", 1]), encode_key(["x", 2])]
    assert pairs.spread([10, 20]) == [10, 20, 10]


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert list(keys_of({"id": list(np.arange(2))}, WHOLE).keys) == [
        encode_key([0]),
        encode_key([1]),
    ]


@pytest.mark.parametrize(
    ("view", "columns", "said"),
    [
        (TEXT, {"ids": ["x"]}, r"no id \(did you mean ids\?\), a join key of v; they have ids"),
        (TEXT, {"id": ["x", 7]}, "entity row 1 has id = 7, of type int, and the join key is of"),
        (TEXT, {"id": ["x", None]}, "entity row 1 has no value of id"),
        (TEXT, {"id": ["\ud800"]}, "lone surrogate"),
        (WHOLE, {"id": ["7"]}, "entity row 0 has id = '7', of type str"),
        (WHOLE, {"id": [True]}, "of type bool"),
        (WHOLE, {"id": [2**31]}, "does not fit int32"),
    ],
)
def test_a_key_that_cannot_be_found_is_refused(view, columns, said):
    with pytest.raises(InvalidEntityRow, match=said):
        keys_of(columns, view)


def test_rows_that_differ_in_what_they_have_are_refused():
    with pytest.raises(InvalidEntityRow, match="entity row 1 has no id, which row 0 has"):
        entity_columns([{"id": "x"}, {"di": "y"}])
    with pytest.raises(InvalidEntityRow, match=r"different lengths \(a 1, b 2\)"):
        entity_columns({"a": [1], "b": [1, 2]})


def test_no_rows_are_no_keys():
    assert keys_of({"id": []}, TEXT).keys == []
    assert entity_columns([]) == {}
