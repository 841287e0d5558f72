"""Transforms against a scalar oracle, to the bit: golden files and drawn values."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.hashing import hash_bucket
from device_runtime.transform_assets import EmbeddingTable, InvalidAsset, Vocabulary
from device_runtime.transform_chain import TransformChain, parse_transform
from device_runtime.transform_parameters import InvalidTransform
from device_runtime.transforms import OPS
from tests.device_runtime.transform_golden import (
    CASES,
    FOLDER,
    TABLE,
    TOKENS,
    coded,
    decoded,
    golden_text,
)
from tests.device_runtime.transform_oracle import transform_values

ASSETS = {
    "words": Vocabulary.of(tuple(TOKENS)),
    "table": EmbeddingTable.of(np.array(TABLE, np.float32)),
}


def bits(column: Column) -> list:
    """Values with None where missing, floats as their bits."""
    values = column.values.astype(object)
    values[column.missing] = None
    return coded(values.tolist())


@pytest.mark.parametrize("name", sorted(CASES))
def test_golden_files_are_what_the_oracle_says(name):
    assert (FOLDER / f"{name}.json").read_text() == golden_text(name)


@pytest.mark.parametrize("name", sorted(CASES))
def test_transforms_equal_the_golden_files_to_the_bit(name):
    cases = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
    assert len(cases) >= 3
    for case in cases:
        chain = TransformChain.from_json(case["chain"])
        inputs = Column.of(decoded(case["inputs"], case["kind"]), kind=Kind(case["kind"]))
        assert bits(chain.apply(inputs, ASSETS)) == case["outputs"]
        assert chain.to_json() == case["chain"]
        assert chain.sha256().hex() == case["sha256"]


def test_every_op_of_the_closed_list_has_a_golden_file():
    assert {path.stem for path in FOLDER.glob("*.json")} == {*OPS, "chains"}


FINITE = st.floats(allow_nan=False, allow_infinity=False)
IDS = st.integers(-(2**31), 2**31 - 1)
VALUES = {
    Kind.STRING: st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(TOKENS),
    Kind.INT: st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 6),
    Kind.FLOAT: st.floats() | st.sampled_from([0.0, -0.0, 1.0, 0.1]),
}


def steps(kind: Kind):
    """A step with every parameter drawn, that takes ``kind``."""
    missing = st.none() | IDS
    number = st.none() | FINITE
    seeds = st.integers(0, 2**32 - 1)
    buckets = st.integers(1, 2**31 - 1)
    tokens = [
        st.fixed_dictionaries(
            {"op": st.just("hash"), "buckets": buckets, "seed": seeds, "missing": missing}
        ),
        st.fixed_dictionaries(
            {"op": st.just("vocab"), "asset": st.just("words"), "unknown": IDS, "missing": missing}
            | {"seed": seeds, "hash_buckets": st.none()}
        ),
        st.fixed_dictionaries(
            {"op": st.just("vocab"), "asset": st.just("words"), "unknown": st.none()}
            | {"seed": seeds, "hash_buckets": buckets, "missing": missing}
        ),
    ]
    boundaries = st.lists(FINITE.map(lambda x: x + 0.0), min_size=1, max_size=20, unique=True)
    numbers = [
        st.fixed_dictionaries(
            {"op": st.just("bucketize"), "boundaries": boundaries.map(sorted), "missing": missing}
            | {"side": st.sampled_from(["left", "right"])}
        ),
        st.fixed_dictionaries(
            {"op": st.just("normalize"), "mean": FINITE, "missing": number}
            | {"stdev": st.floats(min_value=0, exclude_min=True, allow_infinity=False)}
        ),
        st.tuples(FINITE, FINITE, number, st.sampled_from(["min", "max", "both"])).map(
            lambda drawn: {
                "op": "clip",
                "min": min(drawn[:2]) if drawn[3] != "max" else None,
                "max": max(drawn[:2]) if drawn[3] != "min" else None,
                "missing": drawn[2],
            }
        ),
    ]
    embed = st.sampled_from(
        [
            {"op": "embed_lookup", "asset": "table", "out_of_range": rule, "row": row}
            for rule, row in [("zeros", None), ("missing", None), ("row", 2)]
        ]
    )
    own = {Kind.STRING: tokens, Kind.INT: [*tokens, *numbers, embed], Kind.FLOAT: numbers}
    return st.one_of(*own[kind])


@settings(max_examples=120, deadline=None)
@given(st.data(), st.sampled_from(sorted(Kind)))
def test_drawn_chains_equal_the_scalar_oracle_to_the_bit(data, kind):
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=12))
    chain, reached = [], kind
    for _ in range(data.draw(st.integers(1, 3))):
        if chain and chain[-1]["op"] == "embed_lookup":
            break
        step = data.draw(steps(reached))
        chain.append({k: v + 0.0 if isinstance(v, float) else v for k, v in step.items()})
        reached = TransformChain((parse_transform(step),)).gives(reached)
    result = TransformChain.from_json(json.dumps(chain)).apply(Column.of(values, kind=kind), ASSETS)
    assert bits(result) == coded(transform_values(chain, values, {"words": TOKENS, "table": TABLE}))
    assert result.kind is reached


def test_hash_is_the_function_that_made_the_training_data():
    words = ["", "hello", "ünïcode", "日本語"]
    chain = TransformChain.from_json('[{"op": "hash", "buckets": 1024, "seed": 5}]')
    ids = chain.apply(Column.of(words)).values.tolist()
    assert ids == [hash_bucket(word, 1024, seed=5) for word in words]


def test_rows_of_several_values_are_transformed_value_by_value():
    bags = Column.of([["a", None], ["hello", "0"]])
    chain = TransformChain.from_json('[{"op":"vocab","asset":"words","unknown":0,"missing":-1}]')
    assert chain.apply(bags, ASSETS).as_dtype("int32").tolist() == [[4, -1], [1, 3]]


def test_defaults_and_spelling_do_not_change_the_digest():
    short = TransformChain.from_json('[{"stdev": 2, "mean": -0.0, "op": "normalize"}]')
    long = TransformChain.from_json('[{"op":"normalize","mean":0,"stdev":2.0,"missing":null}]')
    other = TransformChain.from_json('[{"op":"normalize","mean":0,"stdev":2.5}]')
    assert short.sha256() == long.sha256() != other.sha256()
    assert short.to_json() == '[{"mean":0.0,"missing":null,"op":"normalize","stdev":2.0}]'


@pytest.mark.parametrize(
    ("chain", "names"),
    [
        ([{"op": "lambda"}], "identity, hash"),
        ([{"op": ["hash"]}], "op is"),
        ([{"op": "hash"}], "hash lacks a parameter"),
        ([{"op": "hash", "buckets": 0}], "hash.buckets"),
        ([{"op": "hash", "buckets": True}], "hash.buckets"),
        ([{"op": "hash", "buckets": 2**31}], "hash.buckets"),
        ([{"op": "hash", "buckets": 8, "seed": -1}], "hash.seed"),
        ([{"op": "hash", "buckets": 8, "bukets": 8}], "hash.bukets"),
        ([{"op": "vocab", "unknown": 0}], "vocab lacks"),
        ([{"op": "vocab", "asset": "", "unknown": 0}], "vocab.asset"),
        ([{"op": "vocab", "asset": "w"}], "vocab needs one of"),
        ([{"op": "vocab", "asset": "w", "unknown": 0, "hash_buckets": 4}], "vocab needs one of"),
        ([{"op": "bucketize", "boundaries": []}], "bucketize.boundaries"),
        ([{"op": "bucketize", "boundaries": [1, 1]}], "strictly rising"),
        ([{"op": "bucketize", "boundaries": [0, "a"]}], "bucketize.boundaries"),
        ([{"op": "bucketize", "boundaries": [0], "side": "up"}], "bucketize.side"),
        ([{"op": "normalize", "mean": 0, "stdev": 0}], "normalize.stdev"),
        ([{"op": "normalize", "mean": 10**400, "stdev": 1}], "normalize.mean"),
        ([{"op": "clip"}], "clip needs"),
        ([{"op": "clip", "min": 2, "max": 1}], "clip.min"),
        ([{"op": "embed_lookup", "asset": "t", "row": 1}], "embed_lookup.row"),
        ([{"op": "embed_lookup", "asset": "t", "out_of_range": "clamp"}], "out_of_range"),
        ([{"op": "identity", "missing": [1]}], "identity.missing"),
        ([{"op": "identity"}] * 17, "at most 16"),
        ({"op": "identity"}, "a list of transforms"),
        (["identity"], "its op and parameters"),
    ],
)
def test_a_wrong_transform_is_refused_in_one_sentence_that_names_it(chain, names):
    with pytest.raises(InvalidTransform, match="FLN-2850") as refusal:
        TransformChain.from_json(json.dumps(chain))
    assert names in str(refusal.value)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, '[{"op":"clip","min":NaN}]', "x" * 10**6])
def test_what_is_no_chain_is_refused(text):
    with pytest.raises(InvalidTransform):
        TransformChain.from_json(text)


@pytest.mark.parametrize(
    ("kind", "chain"),
    [
        (Kind.STRING, '[{"op":"normalize","mean":0,"stdev":1}]'),
        (Kind.FLOAT, '[{"op":"hash","buckets":2}]'),
        (Kind.FLOAT, '[{"op":"embed_lookup","asset":"table"}]'),
        (
            Kind.STRING,
            '[{"op":"hash","buckets":2},{"op":"clip","min":0},{"op":"hash","buckets":2}]',
        ),
        (Kind.INT, '[{"op":"identity","missing":"x"}]'),
        (Kind.INT, '[{"op":"identity","missing":0.5}]'),
    ],
)
def test_a_step_that_cannot_take_what_it_is_given_is_refused_before_any_value(kind, chain):
    with pytest.raises(InvalidTransform):
        TransformChain.from_json(chain).gives(kind)


@pytest.mark.parametrize(
    "values",
    [
        ["\ud800"],
        [1, "a"],
        [2**63],
        [b"bytes"],
        [[1, 2], [3]],
        np.array([2**63], np.uint64),
        np.array([1j]),
        [None, None],
    ],
)
def test_values_no_column_can_hold_are_refused(values):
    with pytest.raises(UnsuitableColumn, match="FLN-2851"):
        Column.of(values)


def test_values_of_another_kind_than_the_field_says_are_refused():
    with pytest.raises(UnsuitableColumn):
        Column.of(["1"], kind=Kind.INT)
    assert Column.of([1, None], kind=Kind.FLOAT).kind is Kind.FLOAT


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([1, None], "int32"), ([2**31], "int32"), ([0.5], "int32"), (["a"], "float32")],
)
def test_a_model_is_never_handed_a_value_that_does_not_fit(values, dtype):
    with pytest.raises(UnsuitableColumn):
        Column.of(values).as_dtype(dtype)


def test_embeddings_come_back_as_the_float32_they_were():
    chain = TransformChain.from_json('[{"op":"embed_lookup","asset":"table"}]')
    rows = chain.apply(Column.of([1, 3]), ASSETS).as_dtype("float32")
    assert rows.tobytes() == np.array(TABLE, np.float32)[[1, 3]].tobytes()


def test_assets_survive_their_files_and_are_known_by_their_digest():
    words, table = ASSETS["words"], ASSETS["table"]
    assert Vocabulary.from_bytes(words.to_bytes()).tokens == tuple(TOKENS)
    assert Vocabulary.from_bytes(words.to_bytes()).sha256 == words.sha256
    again = EmbeddingTable.from_bytes(table.to_bytes())
    assert again.table.tobytes() == table.table.tobytes()
    assert again.sha256 == table.sha256


def test_an_embedding_file_is_one_that_numpy_writes_and_reads(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.array(TABLE, np.float32))
    assert EmbeddingTable.from_bytes(path.read_bytes()).sha256 == ASSETS["table"].sha256


@pytest.mark.parametrize("content", [b"", b"a", b"a\n\n", b"a\na\n", b"\xff\n"])
def test_a_damaged_vocabulary_is_refused(content):
    with pytest.raises(InvalidAsset, match="FLN-2852"):
        Vocabulary.from_bytes(content)


@given(st.binary(max_size=200), st.integers(0, 180))
def test_a_damaged_embedding_table_is_refused_and_nothing_else_happens(noise, keep):
    content = ASSETS["table"].to_bytes()[:keep] + noise
    try:
        table = EmbeddingTable.from_bytes(content).table
    except InvalidAsset:
        return
    assert np.isfinite(table).all()
    assert len(content) == len(EmbeddingTable.of(table).to_bytes())


def test_a_table_with_a_number_that_is_not_finite_is_refused():
    content = ASSETS["table"].to_bytes()[:-4] + struct.pack("<f", float("nan"))
    with pytest.raises(InvalidAsset, match="not finite"):
        EmbeddingTable.from_bytes(content)


@pytest.mark.parametrize("assets", [{}, {"words": ASSETS["table"]}])
def test_an_asset_that_is_not_there_or_of_another_sort_is_named(assets):
    chain = TransformChain.from_json('[{"op":"vocab","asset":"words","unknown":0}]')
    with pytest.raises(InvalidAsset, match="words"):
        chain.apply(Column.of(["a"]), assets)
    assert chain.asset_names == ("words",)
