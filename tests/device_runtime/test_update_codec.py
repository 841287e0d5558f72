"""Updates as bytes: what is sent arrives; what is hostile is refused in one way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from device_runtime.manifest import ParameterSpec
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import (
    MAX_RANK,
    MAX_TENSORS,
    MalformedPayload,
    WireUpdate,
    decode_parameters,
    decode_update,
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


@given(st.data())
def test_a_truncated_update_is_refused_or_still_consistent(data):
    payload = small_update()
    decodes_or_is_malformed(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits_are_refused_or_still_consistent(flips):
    damaged = bytearray(small_update())
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
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x04\x0a\x02\xff\xfe",
    ],
    ids=["overflow", "zero", "dtype", "rank", "long-shape", "count", "length", "utf8"],
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


def test_decoding_copies_no_array():
    values = [np.arange(1000, dtype=np.float32)]
    (tensor,) = decode_parameters(encode_parameters(specs_of(values), values))
    assert np.shares_memory(tensor.array(), np.frombuffer(tensor.data, np.float32))
    assert not tensor.array().flags.owndata
