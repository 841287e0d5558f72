"""Update compression: from float32 arrays to fewer bytes, as a job asks for it.

``float16``: half precision; what is beyond its range saturates at +-65504, what is below 3e-8 is 0.
``int8``: 8 bits and a scale for each 256 values, rounded up or down at random so that the mean is
right (QSGD; Alistarh et al., NeurIPS 2017), by the task's seed: the same task gives the same bytes.
``top_k``: the share of values that is largest in magnitude, over all tensors at once. With error
feedback what is not sent is kept on the device and added to its next update (Seide et al.,
Interspeech 2014; Stich et al., NeurIPS 2018); `device_runtime.residual` keeps it.

No general-purpose compression: a gateway that took in 500 plain updates a second took in 50 gzipped
ones, and floats hardly shrink.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
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
from device_runtime.protocol import device_pb2 as pb

KNOWN_CODECS = ("float16", "int8", "top_k")
"""What this runtime can be asked for beside plain float32."""

VALUE_ENCODINGS = ("float32", "float16", "int8")

MAX_FRACTION = 0.5
"""Of `UpdateCodec.fraction`: beyond, positions cost more than they save."""

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_INT8_MAX = 127
_ROUNDING = 2**32  # beside the task's seed; orders of epochs are drawn with small numbers there


class UnknownCodec(ValueError):
    """An update codec this runtime does not have, or one without sense."""


@dataclass(frozen=True, slots=True)
class UpdateCodec:
    """How updates are encoded; ``client.compression`` of a job.

    Attributes:
        name: One of `KNOWN_CODECS`.
        fraction: ``top_k``: share of the model's parameters that is sent, (0, `MAX_FRACTION`].
        values: ``top_k``: encoding of the values sent, one of `VALUE_ENCODINGS`.
        error_feedback: ``top_k``: whether what is left out is kept and added to the next update.
    """

    name: str
    fraction: float = 0.0
    values: str = ""
    error_feedback: bool = False

    def __post_init__(self) -> None:
        if self.name not in KNOWN_CODECS:
            raise UnknownCodec(f"codec {self.name[:20]!r} is not one of {', '.join(KNOWN_CODECS)}")
        if not self.is_sparse:
            if self.error_feedback:
                raise UnknownCodec(f"codec {self.name} leaves nothing out to feed back")
            return
        if not 0 < self.fraction <= MAX_FRACTION:
            raise UnknownCodec(f"fraction {self.fraction} is not above 0 and at most 0.5")
        if self.values not in VALUE_ENCODINGS:
            raise UnknownCodec(f"values {self.values[:20]!r} have no encoding of that name")

    @classmethod
    def from_message(cls, message: pb.UpdateCodec) -> Self:
        """The codec a leased task asks for.

        Raises:
            UnknownCodec: If this runtime does not have it.
        """
        if message.name not in KNOWN_CODECS:
            raise UnknownCodec(f"codec {message.name[:20]!r} is not known to this runtime")
        if message.name != "top_k":
            return cls(message.name)
        return cls(message.name, message.fraction, message.values, message.error_feedback)

    def to_message(self) -> pb.UpdateCodec:
        """Inverse of `from_message`."""
        return pb.UpdateCodec(
            name=self.name,
            fraction=self.fraction,
            values=self.values,
            error_feedback=self.error_feedback,
        )

    @property
    def is_sparse(self) -> bool:
        """Whether only some values are sent."""
        return self.name == "top_k"

    @property
    def value_encoding(self) -> str:
        """Encoding of the values that are sent, one of `VALUE_ENCODINGS`."""
        return self.values if self.is_sparse else self.name

    def sent_of(self, parameter_count: int) -> int:
        """How many values of a model an update carries, at most."""
        if not self.is_sparse:
            return parameter_count
        return min(parameter_count, math.ceil(self.fraction * parameter_count))


def compress(
    arrays: Sequence[NDArray[np.float32]],
    codec: UpdateCodec,
    *,
    seed: int,
    parameter_count: int | None = None,
) -> list[EncodedTensor]:
    """Encode an update; the same arrays and seed give the same bits.

    Args:
        arrays: In wire order, of any shape; all values finite.
        seed: Of the task, 64 bits; rounds int8.
        parameter_count: Scalars of the model; needed where the arrays are only those of its
            parameters that can differ from 0.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, _ROUNDING], np.uint64)))
    flat = [np.ravel(array) for array in arrays]
    if not codec.is_sparse:
        return [_encoded(array, codec.value_encoding, generator) for array in flat]
    whole = np.concatenate(flat)
    count = codec.sent_of(whole.size if parameter_count is None else parameter_count)
    largest = _largest(whole, count)
    ends = np.cumsum([array.size for array in flat])
    tensors: list[EncodedTensor] = []
    for array, chosen, end in zip(
        flat, np.split(largest, np.searchsorted(largest, ends[:-1])), ends.tolist(), strict=True
    ):
        positions = chosen - (end - array.size)
        values = _encoded(array[positions], codec.value_encoding, generator)
        tensors.append(SparseTensor(array.size, positions, values))
    return tensors


def _largest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Positions of the ``count`` values that are largest in magnitude, ascending; no zeros.

    Of equal values the first are taken, so that it does not matter which zeros are there.
    """
    magnitude = np.abs(values)
    least = np.float32(0)
    if count < values.size:
        least = np.partition(magnitude, values.size - count)[values.size - count]
    chosen = magnitude > least
    if least > 0:
        ties = np.flatnonzero(magnitude == least)
        chosen[ties[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def _encoded(values: NDArray[np.float32], encoding: str, generator: np.random.Generator) -> Values:
    if encoding == "float32":
        return Float32Values(values)
    if encoding == "float16":
        return Float16Values(np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16))
    return _rounded_to_int8(values, generator)


def _rounded_to_int8(values: NDArray[np.float32], generator: np.random.Generator) -> Int8Values:
    if values.size == 0:
        return Int8Values(np.empty(0, np.int8), np.empty(0, np.float32))
    starts = np.arange(0, values.size, INT8_BLOCK)
    largest = np.maximum.reduceat(np.abs(values), starts)
    scales: NDArray[np.float32] = np.divide(largest, np.float32(_INT8_MAX), dtype=np.float32)
    # A block whose scale is below what float32 can divide by is sent as zeros.
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(np.inf))
    steps = np.repeat(divisors, INT8_BLOCK)[: values.size]
    np.divide(values, steps, out=steps)
    steps += generator.random(values.size, dtype=np.float32)
    np.floor(steps, out=steps)
    np.clip(steps, -_INT8_MAX, _INT8_MAX, out=steps)
    return Int8Values(steps.astype(np.int8), scales)
