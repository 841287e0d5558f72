"""Checkpoints give back what they were given, and refuse what is none."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from simulation.checkpoint import (
    CheckpointPace,
    UnusableCheckpoint,
    decode_checkpoint,
    encode_checkpoint,
)

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text()
    | st.binary()
    | arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int64]), arrays.array_shapes(min_side=0)
    )
)
TREES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text().filter(lambda k: k[:1] != "$"), inner)
    ),
    max_leaves=20,
)


def same(found, wanted) -> bool:
    """To the bit: also the sign of zero, NaN and the type."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, np.ndarray):
        equal = found.dtype == wanted.dtype and found.shape == wanted.shape
        return equal and found.tobytes() == wanted.tobytes()
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    return type(found) is type(wanted) and repr(found) == repr(wanted)


@given(st.dictionaries(st.text().filter(lambda k: k[:1] != "$"), TREES))
def test_a_state_comes_back_to_the_bit(state):
    assert same(decode_checkpoint("s-1", encode_checkpoint("s-1", state)), state)


def test_tuples_come_back_as_lists():
    assert decode_checkpoint("s-1", encode_checkpoint("s-1", {"a": (1, (2.5,))})) == {
        "a": [1, [2.5]]
    }


def test_a_checkpoint_of_another_run_is_refused():
    data = encode_checkpoint("s-1", {})
    with pytest.raises(UnusableCheckpoint, match="of run s-2 is of run s-1, format 4"):
        decode_checkpoint("s-2", data)


def test_a_checkpoint_of_an_earlier_version_is_refused_as_such():
    """Before format 4 they were zip files of arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, tree=np.zeros(8, np.uint8))
    with pytest.raises(UnusableCheckpoint, match=r"by an earlier version of FLINT.*anew"):
        decode_checkpoint("s-1", buffer.getvalue())


def saved(tree: bytes, behind: bytes = b"") -> bytes:
    """What a checkpoint of this tree would be."""
    whole = b"flint checkpoint" + struct.pack("<Q", len(tree)) + tree + behind
    return whole + struct.pack("<I", zlib.crc32(whole))


def of_state(state: str) -> bytes:
    return f'{{"format": 4, "run_id": "s-1", "state": {{"x": {state}}}}}'.encode()


WHOLE = encode_checkpoint("s-1", {"weights": np.arange(1000.0), "name": "x"})


def test_a_tree_saved_by_hand_is_read():
    data = saved(of_state('{"$array": ["<f4", [2]]}'), struct.pack("<2f", 1.0, 2.0))
    assert decode_checkpoint("s-1", data)["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"not a checkpoint at all, but as long as one",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:400] + b"\xff" * 8 + WHOLE[408:],
        saved(b"[1, 2]"),
        saved(b"{"),
        saved(b"\xff\xfe"),
        saved(b"[" * 100_000),
        saved(b'{"format": 4, "run_id": "s-1"}'),
        saved(of_state('{"$array": ["<f4", [2]]}'), b"\0" * 7),
        saved(of_state('{"$array": ["<f4", [-2, -1]]}'), b"\0" * 7),
        saved(of_state('{"$array": ["<f4", [-2, 4]]}'), b"\0" * 8),
        saved(of_state('{"$array": ["|O", [1]]}'), b"\0" * 8),
        saved(of_state('{"$array": ["no type", [1]]}'), b"\0" * 8),
        saved(of_state('{"$array": 3}')),
        saved(of_state('{"$bytes": -1}')),
        saved(of_state('{"$bytes": 1e3}')),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(data):
    with pytest.raises(UnusableCheckpoint, match=r"run s-1 .*start the run anew"):
        decode_checkpoint("s-1", data)


def test_checkpoints_are_a_second_apart_and_take_two_percent_of_the_time_at_most():
    now_s = [100.0]
    pace = CheckpointPace(lambda: now_s[0])

    def due_in_s() -> float:
        begun_s = now_s[0]
        while not pace.is_due():
            now_s[0] += 0.25
        return now_s[0] - begun_s

    def save(seconds: float) -> None:
        now_s[0] += seconds

    assert due_in_s() == 1.0
    pace.keep(lambda: save(0.0))
    assert due_in_s() == 1.0
    pace.keep(lambda: save(0.5))
    assert due_in_s() == 25.0
