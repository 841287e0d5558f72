"""Feature columns become a model's input, equal to the plain rule said row by row."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.columns import Column, Kind
from device_runtime.feature_inputs import (
    FeatureInput,
    InputFeature,
    InputForm,
    UnsuitableFeatures,
    UnsuitableFeatureValue,
    may_give_missing,
)
from device_runtime.hashing import encode_bag, hash_bucket
from device_runtime.transform_chain import TransformChain
from feature_catalog.encoders import BagEncoder
from feature_catalog.field_encodings import FieldEncoding

BAG = InputForm("bag", places=8, ids=1024, seed=5)
FIELDS = InputForm("fields", places=4, ids=500, seed=0)

TEXTS = st.lists(st.none() | st.text(max_size=4), min_size=5, max_size=5)
NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=5, max_size=5)


def bag(form=BAG, **columns):
    made = {name: Column.of(values, kind=kind) for name, (values, kind) in columns.items()}
    features = [
        InputFeature(name, column.kind, column.values.shape[1:]) for name, column in made.items()
    ]
    return FeatureInput(form, tuple(features)).assemble(made)


@given(topic=TEXTS, hour=NUMBERS, words=st.lists(TEXTS, min_size=5, max_size=5))
def test_a_bag_is_the_distinct_buckets_of_name_and_value_in_order_of_name(topic, hour, words):
    x = bag(topic=(topic, Kind.STRING), hour=(hour, Kind.INT), a_words=(words, Kind.STRING))
    for row in range(5):
        one = [("hour", hour[row]), ("topic", topic[row])]
        several = [("a_words", word) for word in words[row]]
        tokens = [f"{name}={value}" for name, value in one + several if value is not None]
        assert np.array_equal(x[row], encode_bag(tokens, 1024, 5, max_ids=8))


def test_a_bag_is_what_the_data_file_encoder_makes_of_the_same_columns():
    columns = {"ad": ["a", None, "ü"], "hour": [3, 14, None]}
    encoder = BagEncoder(
        [FieldEncoding("ad", "category"), FieldEncoding("hour", "category")],
        num_buckets=1024,
        max_ids=8,
        seed=5,
    )
    x = bag(ad=(columns["ad"], Kind.STRING), hour=(columns["hour"], Kind.INT))
    assert np.array_equal(x, encoder.encode(pa.RecordBatch.from_pydict(columns)))


def test_each_feature_has_a_place_of_its_own_in_a_model_of_fields():
    x = bag(FIELDS, topic=(["a", None], Kind.STRING), hour=([3, 14], Kind.INT))
    assert x.dtype == np.int32
    assert x.tolist() == [
        [hash_bucket("hour=3", 500, 0), hash_bucket("topic=a", 500, 0), -1, -1],
        [hash_bucket("hour=14", 500, 0), -1, -1, -1],
    ]


def test_numbers_are_flattened_in_order_of_name():
    features = (
        InputFeature("b_vector", Kind.FLOAT, (2,), may_miss=False),
        InputFeature("a_count", Kind.INT, may_miss=False),
    )
    x = FeatureInput(InputForm("numbers", places=3), features).assemble(
        {"a_count": Column.of([7, 8]), "b_vector": Column.of([[0.5, 1.0], [2.0, 0.1]])}
    )
    assert x.dtype == np.float32
    assert x.tolist() == [[7.0, 0.5, 1.0], [8.0, 2.0, float(np.float32(0.1))]]


@pytest.mark.parametrize(
    ("form", "feature", "sentence"),
    [
        (BAG, InputFeature("ctr", Kind.FLOAT), r"feature ctr is a float.*bucketize it first"),
        (FIELDS, InputFeature("ids", Kind.INT, (3,)), r"feature ids has 3 values"),
        (InputForm("numbers", 1), InputFeature("city", Kind.STRING), r"city is text"),
        (InputForm("numbers", 1), InputFeature("age", Kind.INT), r"age may be missing"),
        (
            InputForm("numbers", 3),
            InputFeature("age", Kind.INT, may_miss=False),
            r"are 1 numbers a record \(age 1\), and the model reads 3",
        ),
    ],
)
def test_features_a_model_cannot_read_are_refused_by_name(form, feature, sentence):
    with pytest.raises(UnsuitableFeatures, match=sentence):
        FeatureInput(form, (feature,))


def test_more_features_than_a_model_of_fields_has_places_are_refused():
    features = tuple(InputFeature(f"f{i}", Kind.INT) for i in range(5))
    with pytest.raises(UnsuitableFeatures, match=r"5 features.* at most 4; leave f4 out"):
        FeatureInput(FIELDS, features)


def test_a_number_that_is_not_finite_as_float32_is_refused_by_name():
    feature = InputFeature("age", Kind.FLOAT, may_miss=False)
    assemble = FeatureInput(InputForm("numbers", 1), (feature,)).assemble
    with pytest.raises(UnsuitableFeatureValue, match=r"feature age .* not finite .* clip it"):
        assemble({"age": Column.of([1e300])})
    with pytest.raises(UnsuitableFeatureValue, match=r"feature age has a missing value"):
        assemble({"age": Column.of([None, 1.0])})


def test_a_column_that_is_not_there_or_of_another_kind_is_refused_by_name():
    assemble = FeatureInput(BAG, (InputFeature("topic", Kind.STRING),)).assemble
    with pytest.raises(UnsuitableFeatureValue, match="feature topic is not among the columns"):
        assemble({})
    with pytest.raises(UnsuitableFeatureValue, match="feature topic holds int values"):
        assemble({"topic": Column.of([1])})


@pytest.mark.parametrize(
    ("chain", "missing"),
    [
        ("[]", True),
        ('[{"op": "normalize", "mean": 0, "stdev": 1, "missing": 0}]', False),
        ('[{"op": "clip", "min": 0, "missing": 1}, {"op": "bucketize", "boundaries": [1]}]', False),
        ('[{"op": "embed_lookup", "asset": "a"}]', False),
        ('[{"op": "embed_lookup", "asset": "a", "out_of_range": "missing"}]', True),
    ],
)
def test_a_chain_may_give_a_missing_value_unless_a_step_replaces_it(chain, missing):
    assert may_give_missing(TransformChain.from_json(chain)) is missing


def test_no_record_gives_an_input_of_no_rows():
    assert bag(topic=([], Kind.STRING)).shape == (0, 8)
