"""Codecs against what they promise, each value by an independent reckoning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from device_runtime.compression import (
    KNOWN_CODECS,
    VALUE_ENCODINGS,
    UnknownCodec,
    UpdateCodec,
    compress,
)
from device_runtime.encoded_tensors import (
    INT8_BLOCK,
    Float16Values,
    Float32Values,
    Int8Values,
    SparseTensor,
    all_decoded,
    chunks,
    decoded,
)
from device_runtime.protocol import device_pb2 as pb

FLOAT16, INT8 = UpdateCodec("float16"), UpdateCodec("int8")
TOP_K = [UpdateCodec("top_k", 0.1, values) for values in VALUE_ENCODINGS]
ALL = [FLOAT16, INT8, *TOP_K]

deltas = st.lists(
    arrays(
        np.float32,
        array_shapes(max_dims=2, max_side=40),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    min_size=1,
    max_size=3,
)


def normal(*shapes, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape).astype(np.float32) for shape in shapes]


def flat(values) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in values])


@given(deltas)
def test_float16_is_the_nearest_half_and_saturates(values):
    found = all_decoded(compress(values, FLOAT16, seed=1))
    whole = flat(values).astype(np.float64)
    inside = np.abs(whole) <= 65504
    np.testing.assert_array_equal(found[~inside], np.sign(whole[~inside]) * 65504)
    error = np.abs(found - whole)[inside]
    assert np.all(error <= np.maximum(np.abs(whole[inside]) * 2.0**-11, 2.0**-25))


@given(deltas, st.integers(0, 2**64 - 1))
def test_int8_is_one_of_the_two_nearest_steps_of_its_block(values, seed):
    for value, tensor in zip(values, compress(values, INT8, seed=seed), strict=True):
        assert isinstance(tensor, Int8Values)
        ravelled, found = value.ravel().astype(np.float64), decoded(tensor)
        for start in range(0, ravelled.size, INT8_BLOCK):
            block = slice(start, start + INT8_BLOCK)
            step = np.abs(ravelled[block]).max() / 127
            if step < np.finfo(np.float32).tiny:
                assert not found[block].any()
            else:
                assert np.all(np.abs(found[block] - ravelled[block]) <= step * (1 + 1e-4))
        assert not found[ravelled == 0].any()


def test_int8_rounds_so_that_the_mean_is_right():
    (value,) = normal(500)
    many = [decoded(*compress([value], INT8, seed=seed)) for seed in range(400)]
    step = np.repeat([np.abs(value[:256]).max(), np.abs(value[256:]).max()], [256, 244]) / 127
    spread = step / 2 / np.sqrt(400)
    assert np.all(np.abs(np.mean(many, axis=0) - value) < 5 * spread + 1e-6)
    assert np.std(many, axis=0).max() > 0


@pytest.mark.parametrize("codec", ALL, ids=str)
def test_the_same_task_gives_the_same_bits_and_decoding_in_chunks_changes_nothing(codec):
    values = normal((70, 90), (3,), (1000,))
    first, again = compress(values, codec, seed=2**64 - 1), compress(values, codec, seed=2**64 - 1)
    whole = all_decoded(first)
    assert all_decoded(again).tobytes() == whole.tobytes()
    for tensor in first:
        values_sent = tensor.values if isinstance(tensor, SparseTensor) else tensor
        for size in (INT8_BLOCK, 3 * INT8_BLOCK):
            parts = chunks(values_sent, np.empty(size, np.float32))
            found = [(start, part.copy()) for start, part in parts]
            assert [start for start, _ in found] == list(range(0, values_sent.size, size))
            joined = np.concatenate([np.empty(0, np.float32), *(part for _, part in found)])
            once = [p.copy() for _, p in chunks(values_sent, np.empty(2**16, np.float32))]
            np.testing.assert_array_equal(joined, np.concatenate([np.empty(0, np.float32), *once]))


@given(deltas, st.sampled_from([0.01, 0.1, 0.33, 0.5]))
def test_top_k_sends_the_largest_of_all_tensors_and_no_zeros(values, fraction):
    codec = UpdateCodec("top_k", fraction, "float32")
    tensors = compress(values, codec, seed=1)
    found, whole = all_decoded(tensors), flat(values)
    most = codec.sent_of(whole.size)
    sent = found != 0
    assert sum(tensor.values.size for tensor in tensors) == sent.sum()
    assert sent.sum() == min(most, np.count_nonzero(whole))
    np.testing.assert_array_equal(found[sent], whole[sent])
    if sent.any():
        assert np.abs(whole[~sent]).max(initial=0) <= np.abs(whole[sent]).min()
    for tensor, value in zip(tensors, values, strict=True):
        assert tensor.size == value.size
        assert np.all(np.diff(tensor.positions) > 0)


@pytest.mark.parametrize("encoding", VALUE_ENCODINGS)
def test_top_k_encodes_its_values_like_a_dense_tensor(encoding):
    values = normal((90, 90), (700,))
    tensors = compress(values, UpdateCodec("top_k", 0.3, encoding), seed=5)
    kind = {"float32": Float32Values, "float16": Float16Values, "int8": Int8Values}[encoding]
    for tensor, value in zip(tensors, values, strict=True):
        assert isinstance(tensor.values, kind)
        error = np.abs(decoded(tensor.values) - value.ravel()[tensor.positions])
        assert error.max() <= {"float32": 0, "float16": 2e-3, "int8": 4 / 127}[encoding]


@pytest.mark.parametrize("codec", [FLOAT16, *TOP_K], ids=str)
def test_rows_that_are_zero_may_be_left_out(codec):
    """What the simulator does with a table of which little is used."""
    table, bias = normal((50, 12), (9,))
    table[np.arange(50) % 5 > 0] = 0
    whole = decoded_list([table, bias], codec)
    cut = decoded_list([table[::5], bias], codec, parameter_count=50 * 12 + 9)
    np.testing.assert_array_equal(whole[0].reshape(50, 12)[::5], cut[0].reshape(10, 12))
    assert not np.delete(whole[0].reshape(50, 12), np.s_[::5], axis=0).any()
    np.testing.assert_array_equal(whole[1], cut[1])


def decoded_list(values, codec, **options) -> list[np.ndarray]:
    return [decoded(tensor) for tensor in compress(values, codec, seed=3, **options)]


def test_of_equal_values_the_first_are_sent():
    values = np.float32([0, 1, -2, 1, 0, -1, 1])
    (tensor,) = compress([values], UpdateCodec("top_k", 3 / 7, "float32"), seed=1)
    assert tensor.positions.tolist() == [1, 2, 3]


@pytest.mark.parametrize("codec", ALL, ids=str)
def test_nothing_learned_is_nothing_sent(codec):
    zeros = [np.zeros((30, 20), np.float32), np.zeros(1, np.float32)]
    assert not all_decoded(compress(zeros, codec, seed=1)).any()


@given(deltas)
@settings(max_examples=30)
def test_no_codec_makes_a_finite_update_infinite(values):
    for codec in ALL:
        assert np.isfinite(all_decoded(compress(values, codec, seed=1))).all()


@pytest.mark.parametrize("codec", [*ALL, UpdateCodec("top_k", 0.25, "int8", True)], ids=str)
def test_a_task_asks_for_the_codec_it_was_made_for(codec):
    sent = pb.UpdateCodec.FromString(codec.to_message().SerializeToString())
    assert UpdateCodec.from_message(sent) == codec


@pytest.mark.parametrize(
    "message",
    [
        pb.UpdateCodec(),
        pb.UpdateCodec(name="gzip"),
        pb.UpdateCodec(name="top_k", values="float16"),
        pb.UpdateCodec(name="top_k", fraction=0.6, values="float16"),
        pb.UpdateCodec(name="top_k", fraction=float("nan"), values="float16"),
        pb.UpdateCodec(name="top_k", fraction=-0.1, values="float16"),
        pb.UpdateCodec(name="top_k", fraction=0.1, values="bfloat16"),
    ],
    ids=str,
)
def test_a_codec_nobody_knows_is_refused(message):
    with pytest.raises(UnknownCodec):
        UpdateCodec.from_message(message)
    with pytest.raises(UnknownCodec):
        UpdateCodec("int8", error_feedback=True)


def test_a_share_is_never_nothing():
    assert [UpdateCodec("top_k", f, "int8").sent_of(1513) for f in (1e-9, 0.01, 0.5)] == [
        1,
        16,
        757,
    ]
    assert [UpdateCodec(name).sent_of(10) for name in KNOWN_CODECS[:2]] == [10, 10]
