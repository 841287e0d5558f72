"""Updates and parameters as bytes: protobuf ``Update`` and ``TensorList`` of ``device.proto``.

Decoding is for bytes from outside: what a tensor declares is checked against the bytes it carries,
and its array is a view of them. Parameters are always plain float32; an update's tensors may be in
any encoding of `device_runtime.encoded_tensors`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from device_runtime.encoded_tensors import (
    INT8_BLOCK,
    EncodedTensor,
    Float16Values,
    Float32Values,
    Int8Values,
    SparseTensor,
    Values,
)
from device_runtime.manifest import ParameterSpec
from device_runtime.protocol import device_pb2 as pb
from device_runtime.sparse_positions import decode_gaps, encode_gaps

MAX_TENSORS = 4096
MAX_RANK = 8


class MalformedPayload(ValueError):
    """The bytes are not a serialised message of the expected kind, or contradict themselves."""


class InvalidScales(ValueError):
    """An int8 tensor's scales are not one for each block, finite and at least 0."""


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One received array, not yet checked against any model.

    Attributes:
        dtype: As declared, e.g. ``"float32"``.
        shape: As declared, also of a sparse tensor.
        data: Little-endian C-order bytes; their length fits dtype and shape, in a sparse tensor a
            whole number of values that is not above the shape's.
        scales: Of an int8 tensor; not looked at yet.
        gaps: Of a sparse tensor, None for others; not looked at yet.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    scales: bytes = b""
    gaps: bytes | None = None

    @property
    def is_sparse(self) -> bool:
        """Whether it carries some of its values only."""
        return self.gaps is not None

    @property
    def value_count(self) -> int:
        """How many values it carries (valid only for a dtype that is known)."""
        return len(self.data) // _ITEM_BYTES[self.dtype]

    def array(self) -> NDArray[np.float32]:
        """View the bytes as float32 of the declared shape (valid only for a dense float32 one)."""
        return np.frombuffer(self.data, dtype="<f4").reshape(self.shape)

    def encoded(self) -> EncodedTensor:
        """The values as they are encoded, views of the bytes.

        For a tensor whose dtype and shape are a model's: positions take memory by what it carries.

        Raises:
            InvalidGaps: If a sparse tensor's positions are not that.
            InvalidScales: If an int8 tensor's scales are not that.
        """
        values = self._values()
        if self.gaps is None:
            return values
        size = math.prod(self.shape)
        return SparseTensor(size, decode_gaps(self.gaps, values.size, size), values)

    def _values(self) -> Values:
        if self.dtype == "float32":
            return Float32Values(np.frombuffer(self.data, "<f4"))
        if self.dtype == "float16":
            return Float16Values(np.frombuffer(self.data, "<f2"))
        codes = np.frombuffer(self.data, np.int8)
        blocks = -(-codes.size // INT8_BLOCK)
        if len(self.scales) != 4 * blocks:
            raise InvalidScales(
                f"{codes.size} int8 values need {blocks} scales of 4 bytes; "
                f"there are {len(self.scales)} bytes"
            )
        scales = np.frombuffer(self.scales, "<f4")
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise InvalidScales("a scale is negative, infinite or NaN")
        return Int8Values(codes, scales)


@dataclass(frozen=True, slots=True)
class WireUpdate:
    """One received update, not yet checked against any model."""

    tensors: tuple[WireTensor, ...]
    num_examples: int
    loss_before: float
    loss_after: float


_ITEM_BYTES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "int32": 4,
    "int64": 8,
    "int8": 1,
    "uint8": 1,
}


def sha256_of(payload: bytes) -> bytes:
    """Digest of a payload, 32 bytes."""
    return hashlib.sha256(payload).digest()


def encode_parameters(
    parameters: Sequence[ParameterSpec], arrays: Sequence[NDArray[np.float32]]
) -> bytes:
    """Serialise arrays in the order of ``parameters`` as a ``TensorList``.

    Raises:
        ValueError: If an array's shape is not its parameter's.
    """
    return _tensor_list(parameters, arrays).SerializeToString(deterministic=True)


def encode_update(
    parameters: Sequence[ParameterSpec],
    delta: Sequence[NDArray[np.float32]],
    *,
    num_examples: int,
    loss_before: float,
    loss_after: float,
) -> bytes:
    """Serialise an update (delta = local - base, in the order of ``parameters``)."""
    message = pb.Update(
        delta=_tensor_list(parameters, delta),
        num_examples=num_examples,
        loss_before=loss_before,
        loss_after=loss_after,
    )
    return message.SerializeToString(deterministic=True)


def encode_compressed_update(
    parameters: Sequence[ParameterSpec],
    tensors: Sequence[EncodedTensor],
    *,
    num_examples: int,
    loss_before: float,
    loss_after: float,
) -> bytes:
    """Serialise an update that `device_runtime.compression.compress` gave.

    Raises:
        ValueError: If a tensor is not of its parameter's size.
    """
    message = pb.Update(num_examples=num_examples, loss_before=loss_before, loss_after=loss_after)
    for parameter, tensor in zip(parameters, tensors, strict=True):
        if tensor.size != parameter.size:
            raise ValueError(f"{parameter.name} has {parameter.size} values, not {tensor.size}")
        sent = message.delta.tensors.add(name=parameter.name, shape=parameter.shape)
        if isinstance(tensor, SparseTensor):
            sent.gaps = encode_gaps(tensor.positions)
            _write_values(sent, tensor.values)
        else:
            _write_values(sent, tensor)
    return message.SerializeToString(deterministic=True)


def decode_parameters(payload: bytes) -> tuple[WireTensor, ...]:
    """Parse a ``TensorList``.

    Raises:
        MalformedPayload: If the bytes are truncated or a tensor's length contradicts its shape.
    """
    message = pb.TensorList()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise MalformedPayload("bytes are not a TensorList message") from error
    return _wire_tensors(message)


def decode_update(payload: bytes) -> WireUpdate:
    """Parse an ``Update``.

    Raises:
        MalformedPayload: If the bytes are truncated or a tensor's length contradicts its shape.
    """
    message = pb.Update()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise MalformedPayload("bytes are not an Update message") from error
    return WireUpdate(
        _wire_tensors(message.delta), message.num_examples, message.loss_before, message.loss_after
    )


def parameters_from_blob(
    parameters: Sequence[ParameterSpec], payload: bytes
) -> list[NDArray[np.float32]]:
    """Arrays of a stored model version, checked against the model's parameters.

    Raises:
        MalformedPayload: If names, order, shapes or dtypes differ from ``parameters``.
    """
    tensors = decode_parameters(payload)
    found = [(t.name, t.shape, f"sparse {t.dtype}" if t.is_sparse else t.dtype) for t in tensors]
    wanted = [(p.name, p.shape, "float32") for p in parameters]
    if found != wanted:
        raise MalformedPayload(f"parameters are {found}, the model has {wanted}")
    return [tensor.array() for tensor in tensors]


def flatten(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Concatenate arrays, each raveled in C order; shape ``(sum of sizes,)``."""
    return np.concatenate([np.ravel(array) for array in arrays]).astype(np.float32, copy=False)


def unflatten(
    parameters: Sequence[ParameterSpec], vector: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    """Inverse of `flatten`: views of ``vector`` with each parameter's shape."""
    arrays, start = [], 0
    for parameter in parameters:
        arrays.append(vector[start : start + parameter.size].reshape(parameter.shape))
        start += parameter.size
    return arrays


def _tensor_list(
    parameters: Sequence[ParameterSpec], arrays: Sequence[NDArray[np.float32]]
) -> pb.TensorList:
    message = pb.TensorList()
    for parameter, array in zip(parameters, arrays, strict=True):
        if tuple(array.shape) != parameter.shape:
            raise ValueError(
                f"{parameter.name} has shape {array.shape}, expected {parameter.shape}"
            )
        message.tensors.add(
            name=parameter.name,
            dtype="float32",
            shape=parameter.shape,
            data=np.ascontiguousarray(array, dtype="<f4").tobytes(),
        )
    return message


def _wire_tensors(message: pb.TensorList) -> tuple[WireTensor, ...]:
    if len(message.tensors) > MAX_TENSORS:
        raise MalformedPayload(f"{len(message.tensors)} tensors; at most {MAX_TENSORS}")
    tensors = []
    for tensor in message.tensors:
        shape = tuple(int(d) for d in tensor.shape[: MAX_RANK + 1])
        if len(shape) > MAX_RANK:
            raise MalformedPayload(f"tensor of rank {len(tensor.shape)}; at most {MAX_RANK}")
        data = tensor.data  # every access of a bytes field copies it
        gaps = tensor.gaps if tensor.HasField("gaps") else None
        if not _fits(len(data), tensor.dtype, shape, is_sparse=gaps is not None):
            raise MalformedPayload(
                f"tensor declares shape {shape} of {tensor.dtype} but carries {len(data)} bytes"
            )
        tensors.append(WireTensor(tensor.name, tensor.dtype, shape, data, tensor.scales, gaps))
    return tuple(tensors)


def _fits(data_bytes: int, dtype: str, shape: tuple[int, ...], *, is_sparse: bool) -> bool:
    item_bytes = _ITEM_BYTES.get(dtype)
    if item_bytes is None:
        return True
    whole_bytes = math.prod(shape) * item_bytes
    if is_sparse:
        return data_bytes <= whole_bytes and data_bytes % item_bytes == 0
    return data_bytes == whole_bytes


def _write_values(tensor: pb.Tensor, values: Values) -> None:
    match values:
        case Float32Values(array):
            tensor.dtype, tensor.data = "float32", np.ascontiguousarray(array, "<f4").tobytes()
        case Float16Values(array):
            tensor.dtype, tensor.data = "float16", np.ascontiguousarray(array, "<f2").tobytes()
        case Int8Values(codes, scales):
            tensor.dtype, tensor.data = "int8", codes.tobytes()
            tensor.scales = np.ascontiguousarray(scales, "<f4").tobytes()
