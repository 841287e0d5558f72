"""Columns become tokens and numbers as documented, against a row-by-row oracle."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.hashing import encode_bag, hash_bucket
from feature_catalog.encoders import MissingNumber, build_encoder
from feature_catalog.featurize import (
    FieldRoles,
    InputWidthMismatch,
    NoFeatures,
    SeveralLabels,
    learn_encodings,
)
from feature_catalog.field_encodings import FieldEncoding, UnsupportedColumn
from feature_catalog.table_files import TableFile
from modeling.spec import ModelSpec
from modeling.zoo import MULTITASK_MLP
from tests.feature_catalog.models import BAG_MODEL, DENSE_MODEL, FIELD_MODEL, WORD_MODEL

ROLES = FieldRoles("client", "label")
SEED = 5


def _in_memory(columns: dict[str, Any]) -> TableFile:
    table = pa.table(columns)
    return TableFile(Path("data.parquet"), table.schema, table.num_rows, table)


def _encode(
    columns: dict[str, Any],
    roles: FieldRoles = ROLES,
    model: ModelSpec = BAG_MODEL,
    training: list[bool] | None = None,
) -> tuple[list[list[float]], tuple[FieldEncoding, ...]]:
    rows = len(next(iter(columns.values())))
    table = _in_memory(
        {"client": ["c"] * rows, "label": [0] * rows} | columns,
    )
    is_training = np.array(training if training is not None else [True] * rows)
    encodings = learn_encodings(table, roles, model, is_training)
    encoder = build_encoder(table, encodings, model, SEED)
    encoded = [encoder.encode(batch) for batch in table.batches(encoder.columns)]
    return np.concatenate(encoded).tolist(), encodings


def _bag(*tokens: str) -> list[int]:
    return encode_bag(tokens, 128, SEED, max_ids=8).tolist()


def test_strings_integers_and_booleans_become_column_equals_value() -> None:
    encoded, _ = _encode({"city": ["Rome", None], "age": [3, 4], "new": [True, False]})
    assert encoded == [_bag("city=Rome", "age=3", "new=true"), _bag("age=4", "new=false")]


def test_dictionary_encoded_strings_are_strings() -> None:
    encoded, _ = _encode({"city": pa.array(["Rome", None, "Oslo"]).dictionary_encode()})
    assert encoded == [_bag("city=Rome"), _bag(), _bag("city=Oslo")]


def test_list_columns_give_a_token_an_element_after_the_single_values() -> None:
    encoded, _ = _encode({"tags": [["a", "b"], None, []], "age": [1, 2, 3]})
    assert encoded == [_bag("age=1", "tags=a", "tags=b"), _bag("age=2"), _bag("age=3")]


def test_text_gives_lower_case_words_then_pairs_after_the_categories() -> None:
    roles = FieldRoles("client", "label", text_field="text")
    encoded, _ = _encode({"text": ["Hi you, Hi", None], "age": [1, 2]}, roles)
    assert encoded[0] == _bag("age=1", "hi", "you", ",", "hi you", "you ,", ", hi")
    assert encoded[1] == _bag("age=2")


def test_record_keeps_the_first_tokens_when_there_are_too_many() -> None:
    roles = FieldRoles("client", "label", text_field="text")
    words = [f"w{i}" for i in range(20)]
    encoded, _ = _encode({"text": [" ".join(words)]}, roles)
    assert encoded == [_bag(*words)]


def test_floats_fall_into_deciles_of_training_clients_only() -> None:
    values = [float(v) for v in range(100)] + [1e9, float("nan"), None]
    encoded, (encoding,) = _encode({"price": values}, training=[True] * 100 + [False] * 3)
    assert encoding.edges == pytest.approx(np.quantile(np.arange(100), np.arange(1, 10) / 10))
    assert encoded[0] == _bag("price=q0")
    assert encoded[55] == _bag("price=q5")
    assert encoded[100] == _bag("price=q9")
    assert encoded[101] == encoded[102] == _bag()


def test_integers_that_nearly_always_differ_are_binned_and_recurring_ones_are_not() -> None:
    stamps = list(range(10_000, 12_000))
    items = [row % 1500 % 900 for row in range(2000)]
    encoded, encodings = _encode({"ts": stamps, "item": items})
    assert [e.treatment for e in encodings] == ["quantile_bins", "category"]
    assert encoded[0] == _bag("ts=q0", "item=0")
    assert encoded[1999] == _bag("ts=q9", f"item={items[1999]}")


def test_dates_and_times_are_binned() -> None:
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=n) for n in range(10)]
    times = [dt.datetime(2024, 1, 1, hour) for hour in range(10)]
    encoded, _ = _encode({"day": days, "at": times})
    assert encoded[0] == _bag("day=q0", "at=q0")
    assert encoded[9] == _bag("day=q9", "at=q9")


def test_strings_that_nearly_always_differ_are_left_out_with_a_reason() -> None:
    _, encodings = _encode({"id": [f"user {n}" for n in range(1500)], "age": [1] * 1500})
    assert encodings[0].treatment == "left_out"
    assert "name it as the text field" in encodings[0].reason


def test_column_without_a_training_value_is_left_out() -> None:
    _, encodings = _encode({"late": [None, 3], "age": [1, 2]}, training=[True, False])
    assert [e.treatment for e in encodings] == ["left_out", "category"]


def test_unsupported_column_is_named() -> None:
    with pytest.raises(UnsupportedColumn, match=r"data\.parquet: column 'where' holds struct"):
        _encode({"where": [{"lat": 1.0}]})


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(NoFeatures, match="no column is left"):
        _encode({"age": [1]}, FieldRoles("client", "label", exclude_fields=("age",)))


def test_text_field_of_numbers_with_fractions_is_refused() -> None:
    with pytest.raises(NoFeatures, match="holds double, not text"):
        _encode({"t": [1.5]}, FieldRoles("client", "label", text_field="t"))


def test_dense_columns_are_standardised_on_training_clients() -> None:
    encoded, encodings = _encode(
        {"a": [1.0, 3.0, 5.0], "name": ["x", "y", "z"], "b": [7, 7, 8]},
        model=DENSE_MODEL,
        training=[True, True, False],
    )
    assert encoded == [[-1.0, 0.0], [1.0, 0.0], [3.0, 1.0]]
    assert [e.treatment for e in encodings] == ["standardize", "left_out", "standardize"]


def test_dense_model_refuses_another_number_of_columns() -> None:
    with pytest.raises(InputWidthMismatch, match=r"takes 2 numbers a record, but .* 1 numeric"):
        _encode({"a": [1.0], "name": ["x"]}, model=DENSE_MODEL)


def test_dense_model_refuses_a_missing_number() -> None:
    with pytest.raises(MissingNumber, match="column 'b'"):
        _encode({"a": [1.0, 2.0], "b": [1.0, None]}, model=DENSE_MODEL)


def test_encodings_survive_json() -> None:
    _, encodings = _encode({"price": [1.0, 2.0, 3.0], "age": [1, 2, 3]})
    assert tuple(FieldEncoding.from_dict(e.to_dict()) for e in encodings) == encodings


_rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 9)),
        st.one_of(st.none(), st.lists(st.sampled_from(["a", "b", "c"]), max_size=5)),
        st.one_of(st.none(), st.lists(st.sampled_from(["Hi", "you", "!", "ok"]), max_size=6)),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60)
@given(_rows)
def test_any_table_encodes_as_its_rows_do_one_by_one(rows: list[tuple[Any, Any, Any]]) -> None:
    table = _in_memory(
        {
            "client": ["c"] * (len(rows) + 1),
            "label": [0] * (len(rows) + 1),
            "n": pa.array([r[0] for r in rows] + [1], pa.int64()),
            "tags": pa.array([r[1] for r in rows] + [["a"]], pa.list_(pa.string())),
            "text": pa.array([" ".join(r[2]) if r[2] else None for r in rows] + ["x"], pa.string()),
        }
    )
    roles = FieldRoles("client", "label", text_field="text")
    encodings = learn_encodings(table, roles, BAG_MODEL, np.ones(len(rows) + 1, bool))
    encoder = build_encoder(table, encodings, BAG_MODEL, SEED)
    (batch,) = table.batches(encoder.columns)

    expected = []
    for number, tags, words in rows:
        tokens = [] if number is None else [f"n={number}"]
        tokens += [f"tags={tag}" for tag in tags or []]
        lowered = [word.lower() for word in words or []]
        tokens += lowered + [f"{a} {b}" for a, b in itertools.pairwise(lowered)]
        expected.append(_bag(*tokens))
    assert encoder.encode(batch)[:-1].tolist() == expected


def test_parquet_of_several_row_groups_encodes_like_one_table(tmp_path: Path) -> None:
    from feature_catalog.table_files import open_table

    table = pa.table(
        {
            "client": ["c"] * 50,
            "label": [0] * 50,
            "city": [f"c{n % 7}" for n in range(50)],
            "tags": [[f"t{n % 3}"] * (n % 4) for n in range(50)],
        }
    )
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=8)
    file = open_table(tmp_path / "d.parquet")
    encodings = learn_encodings(file, ROLES, BAG_MODEL, np.ones(50, bool))
    encoder = build_encoder(file, encodings, BAG_MODEL, SEED)
    encoded = np.concatenate([encoder.encode(b) for b in file.batches(encoder.columns)])
    assert encoded.tolist() == [
        _bag(f"city=c{n % 7}", *[f"tags=t{n % 3}"] * (n % 4)) for n in range(50)
    ]


def _ids(*tokens: str | None) -> list[int]:
    return [-1 if token is None else hash_bucket(token, 128, SEED) for token in tokens]


def test_a_model_of_fields_takes_each_columns_token_in_its_own_place() -> None:
    columns = {
        "city": ["Rome", None],
        "tags": [["a", "b"], ["c"]],
        "price": [1.0, 9.0],
    }
    encoded, encodings = _encode(columns, model=FIELD_MODEL)
    assert encoded[0] == _ids("city=Rome", "price=q0", None)
    assert encoded[1] == _ids(None, "price=q9", None)
    left_out = {e.field: e.reason for e in encodings if e.treatment == "left_out"}
    assert left_out == {"tags": "a list has several values, and the model takes one a column"}


def test_a_model_of_fields_refuses_more_columns_than_it_has_places() -> None:
    columns = {name: [1, 2] for name in "abcd"}
    with pytest.raises(InputWidthMismatch, match=r"takes at most 3 columns .*a, b, c, d"):
        _encode(columns, model=FIELD_MODEL)


def test_a_text_model_takes_the_words_in_order_and_with_repeats() -> None:
    roles = FieldRoles("client", "label", text_field="text")
    columns = {"text": ["Hi you, HI", None, "a b c d e f g"], "age": [1, 2, 3]}
    encoded, encodings = _encode(columns, roles, WORD_MODEL)
    assert encoded[0] == _ids("hi", "you", ",", "hi", None)
    assert encoded[1] == [-1] * 5
    assert encoded[2] == _ids("a", "b", "c", "d", "e")
    assert encodings[0].reason == "the model reads the text field alone"


def test_a_text_model_without_a_text_field_has_nothing_to_learn_from() -> None:
    with pytest.raises(NoFeatures, match="name a text field"):
        _encode({"age": [1, 2]}, model=WORD_MODEL)


def test_a_model_of_several_tasks_is_refused_by_a_file_with_one_label() -> None:
    with pytest.raises(SeveralLabels, match=r"learns 4 labels a record \(click, like.*FLN-1119"):
        _encode({"age": [1, 2]}, model=MULTITASK_MLP)
