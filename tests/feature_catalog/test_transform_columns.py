"""The cloud's transforms over Arrow equal the device's and the oracle, to the bit."""

import json
import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.transform_chain import TransformChain
from feature_catalog.transform_columns import array_of, column_of, transform_array
from tests.device_runtime.test_transforms import ASSETS, VALUES, bits, steps
from tests.device_runtime.transform_golden import CASES, FOLDER, TABLE, TOKENS, coded, decoded
from tests.device_runtime.transform_oracle import transform_values

TYPES = {
    Kind.STRING: [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    Kind.INT: [pa.int64()],
    Kind.FLOAT: [pa.float64()],
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_cloud_equals_the_golden_files_to_the_bit(name):
    for case in json.loads((FOLDER / f"{name}.json").read_text())["cases"]:
        kind = Kind(case["kind"])
        for arrow_type in TYPES[kind]:
            inputs = pa.array(decoded(case["inputs"], kind), arrow_type)
            chunked = pa.chunked_array([inputs[:3], inputs[3:3], inputs[3:]])
            outputs = transform_array(chunked, TransformChain.from_json(case["chain"]), ASSETS)
            assert coded(outputs.to_pylist()) == case["outputs"]
            assert outputs.num_chunks == 3


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(Kind)), st.lists(st.integers(0, 12), max_size=3))
def test_chunks_slices_and_nulls_change_no_bit(data, kind, cuts):
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=12))
    step = data.draw(steps(kind))
    step = {k: v + 0.0 if isinstance(v, float) else v for k, v in step.items()}
    chain = TransformChain.from_json(json.dumps([step]))
    whole = pa.array([*values, *values], data.draw(st.sampled_from(TYPES[kind])))
    sliced = whole.slice(len(values))
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    chunks = [sliced[a:b] for a, b in pairwise(edges)]
    cloud = transform_array(pa.chunked_array(chunks, whole.type), chain, ASSETS)
    device = chain.apply(Column.of(values, kind=kind), ASSETS)
    assert coded(cloud.to_pylist()) == bits(device)
    oracle = transform_values([step], values, {"words": TOKENS, "table": TABLE})
    assert coded(cloud.to_pylist()) == coded(oracle)


@pytest.mark.parametrize(
    "arrow_type", [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.bool_()]
)
def test_numbers_of_any_width_are_widened_exactly(arrow_type):
    values = [True, None, False] if arrow_type == pa.bool_() else [1, None, 0]
    column = column_of(pa.array(values, arrow_type))
    assert column.values.tolist() == [1, 0, 0]
    assert column.missing.tolist() == [False, True, False]


def test_lists_of_one_size_are_rows_of_several_values_and_a_null_list_is_all_missing():
    values = [["a", "hello"], None, ["0", None], ["<unk>", "b"]]
    array = pa.array(values, pa.list_(pa.string(), 2)).slice(1)
    chain = TransformChain.from_json('[{"op":"vocab","asset":"words","unknown":9}]')
    assert transform_array(array, chain, ASSETS).to_pylist() == [[None] * 2, [3, None], [0, 9]]


def test_a_column_survives_arrow():
    column = Column.of([[0.5, math.nan], [math.inf, -0.0]])
    again = column_of(array_of(column))
    assert again.values.tobytes() == column.values.tobytes()
    assert again.missing.tolist() == [[False, True], [False, False]]


def test_a_column_without_chunks_keeps_its_type():
    empty = transform_array(
        pa.chunked_array([], pa.string()), TransformChain.from_json('[{"op":"hash","buckets":2}]')
    )
    assert (len(empty), empty.type) == (0, pa.int64())


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1], [1, 2]]),
        pa.array([b"x"]),
        pa.array([2**63], pa.uint64()),
        pa.array(np.array(["2026-01-01"], "datetime64[s]")),
    ],
)
def test_a_column_of_another_type_is_refused(array):
    with pytest.raises(UnsuitableColumn):
        column_of(array)
