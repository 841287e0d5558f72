"""Ascending positions as bytes: the number of positions skipped before each, in LEB128.

Seven bits a byte, lowest first, the eighth set where another follows: protobuf's varint. Positions
so written are ascending and distinct whatever the bytes are; only how many there are and where the
last one lies is left to check. Where one value in a hundred is sent, a position takes little more
than a byte.
"""

import numpy as np
from numpy.typing import NDArray

MAX_GAP_BYTES = 5
"""Of one gap: 35 bits, more than any tensor has positions."""

_MORE = 0x80
_LOW_BITS = 0x7F


class InvalidGaps(ValueError):
    """The bytes are not this many gaps, or lead beyond the last position."""


def encode_gaps(positions: NDArray[np.int64]) -> bytes:
    """Positions, ascending and distinct, shape ``(count,)``, as bytes."""
    gaps = np.diff(positions, prepend=-1) - 1
    parts = gaps[:, None] >> (7 * np.arange(MAX_GAP_BYTES))
    is_used = parts > 0
    is_used[:, 0] = True
    more = np.zeros_like(is_used)
    more[:, :-1] = is_used[:, 1:]
    encoded = (parts & _LOW_BITS) | np.where(more, _MORE, 0)
    return encoded[is_used].astype(np.uint8).tobytes()


def decode_gaps(data: bytes, count: int, size: int) -> NDArray[np.int64]:
    """Inverse of `encode_gaps`; memory is a few times the bytes given.

    Args:
        count: Positions that there must be.
        size: All positions must be below.

    Returns:
        Ascending, distinct, shape ``(count,)``.

    Raises:
        InvalidGaps: If the bytes say anything else.
    """
    if not count <= len(data) <= MAX_GAP_BYTES * count:
        raise InvalidGaps(f"{len(data)} bytes cannot hold {count} positions")
    if count == 0:
        return np.empty(0, np.int64)
    read = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(read < _MORE)
    if ends.size != count or ends[-1] != read.size - 1:
        raise InvalidGaps(f"the bytes hold {ends.size} whole positions; there are {count} values")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > MAX_GAP_BYTES:
        raise InvalidGaps(f"a position of {lengths.max()} bytes; at most {MAX_GAP_BYTES}")
    first = ends - lengths + 1
    place = np.arange(read.size) - np.repeat(first, lengths)
    gaps = np.add.reduceat((read & _LOW_BITS).astype(np.int64) << (7 * place), first)
    positions = np.cumsum(gaps + 1) - 1
    if positions[-1] >= size:
        raise InvalidGaps(f"position {positions[-1]} of a tensor of {size} values")
    return positions
