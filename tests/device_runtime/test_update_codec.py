"""Updates as bytes: what is sent arrives; what is hostile is refused in one way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from device_runtime.compression import UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.manifest import ParameterSpec
from device_runtime.protocol import device_pb2 as pb
from device_runtime.sparse_positions import InvalidGaps, encode_gaps
from device_runtime.update_codec import (
    MAX_RANK,
    MAX_TENSORS,
    InvalidScales,
    MalformedPayload,
    WireUpdate,
    decode_parameters,
    decode_update,
    encode_compressed_update,
    encode_parameters,
    encode_update,
    flatten,
    parameters_from_blob,
    unflatten,
)

float32_arrays = st.lists(
    arrays(np.float32, array_shapes(max_dims=4, max_side=5), elements=st.floats(width=32)),
    min_size=1,
    max_size=5,
)


def specs_of(values) -> tuple[ParameterSpec, ...]:
    return tuple(ParameterSpec(f"p{i}", v.shape) for i, v in enumerate(values))


def small_update() -> bytes:
    values = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)]
    return encode_update(specs_of(values), values, num_examples=7, loss_before=0.5, loss_after=0.25)


@given(float32_arrays, st.integers(-(2**63), 2**63 - 1), st.floats(), st.floats())
def test_an_update_arrives_as_it_was_sent(values, num_examples, loss_before, loss_after):
    payload = encode_update(
        specs_of(values),
        values,
        num_examples=num_examples,
        loss_before=loss_before,
        loss_after=loss_after,
    )
    update = decode_update(payload)
    assert [(t.name, t.shape, t.dtype) for t in update.tensors] == [
        (f"p{i}", v.shape, "float32") for i, v in enumerate(values)
    ]
    for tensor, value in zip(update.tensors, values, strict=True):
        assert tensor.array().tobytes() == value.tobytes()
    assert update.num_examples == num_examples
    np.testing.assert_equal((update.loss_before, update.loss_after), (loss_before, loss_after))


@given(float32_arrays)
def test_stored_parameters_come_back_to_the_bit(values):
    specs = specs_of(values)
    back = parameters_from_blob(specs, encode_parameters(specs, values))
    assert [b.tobytes() for b in back] == [v.tobytes() for v in values]
    flat = flatten(values)
    assert [u.tobytes() for u in unflatten(specs, flat)] == [v.tobytes() for v in values]


CODECS = [
    UpdateCodec("float16"),
    UpdateCodec("int8"),
    *(UpdateCodec("top_k", 0.3, values) for values in ("float32", "float16", "int8")),
]


@given(
    st.lists(
        arrays(
            np.float32,
            array_shapes(max_dims=3, max_side=9),
            elements=st.floats(-1e9, 1e9, width=32),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(CODECS),
)
def test_a_compressed_update_arrives_as_it_was_sent(values, codec):
    tensors = compress(values, codec, seed=3)
    payload = encode_compressed_update(
        specs_of(values), tensors, num_examples=7, loss_before=0.5, loss_after=0.25
    )
    update = decode_update(payload)
    assert [(t.name, t.shape, t.dtype) for t in update.tensors] == [
        (f"p{i}", v.shape, codec.value_encoding) for i, v in enumerate(values)
    ]
    assert {t.is_sparse for t in update.tensors} == {codec.is_sparse}
    sent = all_decoded([tensor.encoded() for tensor in update.tensors])
    assert sent.tobytes() == all_decoded(tensors).tobytes()
    assert (update.num_examples, update.loss_before, update.loss_after) == (7, 0.5, 0.25)


def small_compressed(codec: UpdateCodec) -> bytes:
    values = [np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100), np.ones(3, np.float32)]
    return encode_compressed_update(
        specs_of(values),
        compress(values, codec, seed=1),
        num_examples=7,
        loss_before=0.5,
        loss_after=0.25,
    )


PAYLOADS = st.sampled_from([small_update(), *map(small_compressed, CODECS)])


@given(PAYLOADS, st.data())
def test_a_truncated_update_is_refused_or_still_consistent(payload, data):
    decodes_or_is_malformed(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(
    PAYLOADS,
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=8),
)
def test_flipped_bits_are_refused_or_still_consistent(payload, flips):
    damaged = bytearray(payload)
    for position, bit in flips:
        damaged[position % len(damaged)] ^= 1 << bit
    decodes_or_is_malformed(bytes(damaged))


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_refused_or_consistent(payload):
    decodes_or_is_malformed(payload)


def decodes_or_is_malformed(payload: bytes) -> None:
    try:
        update = decode_update(payload)
    except MalformedPayload:
        return
    assert isinstance(update, WireUpdate)
    assert sum(len(t.data) for t in update.tensors) <= len(payload)
    for tensor in update.tensors:
        if tensor.dtype == "float32" and not tensor.is_sparse:
            assert tensor.array().shape == tensor.shape
        if tensor.dtype in ("float32", "float16", "int8"):
            try:
                encoded = tensor.encoded()
            except (InvalidGaps, InvalidScales):
                continue
            assert encoded.size == math.prod(tensor.shape)


def tensor_list(**fields) -> bytes:
    return pb.TensorList(tensors=[pb.Tensor(**fields)]).SerializeToString()


@pytest.mark.parametrize(
    "payload",
    [
        tensor_list(name="p", dtype="float32", shape=[2**63, 2**63], data=b"1234"),
        tensor_list(name="p", dtype="float32", shape=[2**32, 2**32, 0], data=b"1234"),
        tensor_list(name="p", dtype="float64", shape=[1], data=b"1234"),
        tensor_list(name="p", dtype="float32", shape=[1] * (MAX_RANK + 1), data=b"1234"),
        tensor_list(name="p", dtype="float32", shape=[1] * 100_000, data=b"1234"),
        pb.TensorList(tensors=[pb.Tensor()] * (MAX_TENSORS + 1)).SerializeToString(),
        tensor_list(name="p", dtype="int8", shape=[3], data=b"12"),
        tensor_list(name="p", dtype="float16", shape=[3], data=b"1234"),
        tensor_list(name="p", dtype="float16", shape=[3], data=b"123", gaps=b"\0"),
        tensor_list(name="p", dtype="int8", shape=[3], data=b"1234", gaps=b"\0\0\0\0"),
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x04\x0a\x02\xff\xfe",
    ],
    ids=[
        "overflow",
        "zero",
        "dtype",
        "rank",
        "long-shape",
        "count",
        "int8",
        "float16",
        "half-a-value",
        "more-than-all",
        "length",
        "utf8",
    ],
)
def test_contradictions_are_malformed(payload):
    with pytest.raises(MalformedPayload):
        decode_parameters(payload)


def test_a_dtype_nobody_knows_is_left_to_the_content_gate():
    (tensor,) = decode_parameters(
        tensor_list(name="p", dtype="complex128", shape=[1], data=b"1234")
    )
    assert tensor.dtype == "complex128"


def test_parameters_of_another_order_are_malformed():
    values = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    specs = specs_of(values)
    with pytest.raises(MalformedPayload):
        parameters_from_blob(specs[::-1], encode_parameters(specs, values))


def test_parameters_are_never_sparse():
    (spec,) = specs_of([np.zeros(2, np.float32)])
    sparse = tensor_list(name="p0", dtype="float32", shape=[2], data=b"1234", gaps=b"\0")
    with pytest.raises(MalformedPayload, match="sparse float32"):
        parameters_from_blob([spec], sparse)


def test_a_tensor_of_more_positions_than_memory_takes_the_memory_it_brings():
    gaps = encode_gaps(np.array([5, 2**33]))
    payload = tensor_list(
        name="p", dtype="int8", shape=[2**50], data=b"12", scales=b"\0" * 4, gaps=gaps
    )
    (tensor,) = decode_parameters(payload)
    encoded = tensor.encoded()
    assert (encoded.size, encoded.positions.tolist()) == (2**50, [5, 2**33])


@pytest.mark.parametrize(
    ("scales", "count"),
    [
        (b"", 1),
        (b"\0" * 3, 1),
        (b"\0" * 8, 256),
        (b"\0" * 4, 257),
        (np.float32([np.nan]).tobytes(), 1),
        (np.float32([np.inf]).tobytes(), 1),
        (np.float32([-1e-20]).tobytes(), 1),
        (np.float32([1, -np.inf]).tobytes(), 300),
    ],
)
def test_scales_are_one_for_each_block_finite_and_not_negative(scales, count):
    (tensor,) = decode_parameters(
        tensor_list(name="p", dtype="int8", shape=[count], data=b"1" * count, scales=scales)
    )
    with pytest.raises(InvalidScales):
        tensor.encoded()


def test_decoding_copies_no_array():
    values = [np.arange(1000, dtype=np.float32)]
    (tensor,) = decode_parameters(encode_parameters(specs_of(values), values))
    assert np.shares_memory(tensor.array(), np.frombuffer(tensor.data, np.float32))
    assert not tensor.array().flags.owndata
