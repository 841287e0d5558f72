"""Positions as gaps: what is written is read; bytes from outside are read whole or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.sparse_positions import MAX_GAP_BYTES, InvalidGaps, decode_gaps, encode_gaps

positions_in = st.integers(1, 2**40).flatmap(
    lambda size: st.tuples(
        st.just(size), st.sets(st.integers(0, min(size, 2**34) - 1), max_size=50).map(sorted)
    )
)


def varint(value: int) -> bytes:
    """LEB128, one byte at a time."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


@given(positions_in)
def test_positions_come_back_from_bytes_anyone_could_write(case):
    size, positions = case
    data = encode_gaps(np.array(positions, np.int64))
    gaps = [b - a - 1 for a, b in zip([-1, *positions], positions, strict=False)]
    assert data == b"".join(map(varint, gaps))
    assert decode_gaps(data, len(positions), size).tolist() == positions


@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 2**40))
@settings(max_examples=500)
def test_any_bytes_are_ascending_positions_inside_or_refused(data, count, size):
    try:
        positions = decode_gaps(data, count, size)
    except InvalidGaps:
        return
    assert positions.shape == (count,)
    assert np.all(np.diff(positions) > 0)
    assert count == 0 or (positions[0] >= 0 and positions[-1] < size)


@given(positions_in, st.data())
def test_positions_cut_off_or_one_too_many_are_refused(case, data):
    size, positions = case
    encoded = encode_gaps(np.array(positions, np.int64))
    count = len(positions)
    for wrong in (encoded + b"\0", encoded[: data.draw(st.integers(0, max(0, len(encoded) - 1)))]):
        if wrong != encoded:
            with pytest.raises(InvalidGaps):
                decode_gaps(wrong, count, size)
    with pytest.raises(InvalidGaps):
        decode_gaps(encoded, count + 1, size)


@pytest.mark.parametrize(
    ("data", "count", "size"),
    [
        (b"", 1, 10),
        (b"\x05", 1, 5),
        (b"\x80", 1, 10),
        (b"\x00\x80", 2, 10),
        (b"\x80" * MAX_GAP_BYTES + b"\0", 2, 10),
        (b"\xff\xff\xff\xff\x7f" * 3, 3, 2**36),
        (b"\0" * 11, 2, 10),
        (b"\0", 1, 0),
    ],
    ids=["none", "beyond", "open", "open-end", "too-long", "sum-beyond", "more-bytes", "no-room"],
)
def test_what_is_no_position_is_refused(data, count, size):
    with pytest.raises(InvalidGaps):
        decode_gaps(data, count, size)
