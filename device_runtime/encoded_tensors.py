"""A tensor's values in the encodings an update may have, and how they become float32 again.

Values are decoded a chunk at a time, so that whoever sums them never holds a second copy of a
model. Nothing here trusts what it decodes to be finite: a scale may be anything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INT8_BLOCK = 256
"""Values of an int8 tensor that share one scale; part of the protocol."""

CHUNK = 8_192
"""Values decoded at once: 96 KiB with a float64 copy; a multiple of `INT8_BLOCK`."""


@dataclass(frozen=True, slots=True)
class Float32Values:
    """As they are.

    Attributes:
        values: Shape ``(size,)``.
    """

    values: NDArray[np.float32]

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.values.size


@dataclass(frozen=True, slots=True)
class Float16Values:
    """IEEE 754 half precision.

    Attributes:
        values: Shape ``(size,)``.
    """

    values: NDArray[np.float16]

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.values.size

    def decode(self, start: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Values from ``start`` on, as many as fit in ``out``; returns it."""
        np.copyto(out, self.values[start : start + out.size])
        return out


@dataclass(frozen=True, slots=True)
class Int8Values:
    """``codes * scale``, each `INT8_BLOCK` values with a scale of their own, the last maybe fewer.

    Attributes:
        codes: Shape ``(size,)``.
        scales: Shape ``(ceil(size / INT8_BLOCK),)``.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.codes.size

    def decode(self, start: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Float16Values.decode`; ``start`` is a multiple of `INT8_BLOCK`."""
        codes = self.codes[start : start + out.size]
        np.copyto(out, codes)
        scales = self.scales[start // INT8_BLOCK :]
        whole, rest = divmod(out.size, INT8_BLOCK)
        in_blocks = out[: out.size - rest].reshape(-1, INT8_BLOCK)
        in_blocks *= scales[:whole, None]
        if rest:
            out[out.size - rest :] *= scales[whole]
        return out


Values = Float32Values | Float16Values | Int8Values


@dataclass(frozen=True, slots=True)
class SparseTensor:
    """A tensor that is 0 but for some values.

    Attributes:
        size: Scalars in the whole tensor.
        positions: Of the values in it, raveled; ascending, distinct, below ``size``.
        values: In the order of positions.
    """

    size: int
    positions: NDArray[np.int64]
    values: Values


EncodedTensor = Values | SparseTensor


def values_of(tensor: EncodedTensor) -> Values:
    """The values that are sent of a tensor."""
    return tensor.values if isinstance(tensor, SparseTensor) else tensor


def chunks(
    values: Values, scratch: NDArray[np.float32]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """All values as float32, a chunk at a time, each with the place of its first.

    A chunk is good until the next one is taken.

    Args:
        scratch: Shape ``(chunk,)``, a multiple of `INT8_BLOCK`; its size sets the chunk's.
    """
    size, step = values.size, scratch.size
    if isinstance(values, Float32Values):
        for start in range(0, size, step):
            yield start, values.values[start : start + step]
        return
    for start in range(0, size, step):
        yield start, values.decode(start, scratch[: size - start])


def decoded(tensor: EncodedTensor) -> NDArray[np.float32]:
    """The whole tensor, raveled, shape ``(size,)``; never a view."""
    values = values_of(tensor)
    whole = np.empty(values.size, np.float32)
    for start, chunk in chunks(values, np.empty(CHUNK, np.float32)):
        whole[start : start + chunk.size] = chunk
    if not isinstance(tensor, SparseTensor):
        return whole
    dense = np.zeros(tensor.size, np.float32)
    dense[tensor.positions] = whole
    return dense


def all_decoded(tensors: Sequence[EncodedTensor]) -> NDArray[np.float32]:
    """Whole tensors, each raveled, concatenated."""
    return np.concatenate([decoded(tensor) for tensor in tensors])
