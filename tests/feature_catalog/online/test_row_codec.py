"""Stored rows come back as they were, to the bit; damaged ones are said."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.columns import Kind
from feature_catalog.definitions import Field
from feature_catalog.online.errors import UnreadableOnlineValue
from feature_catalog.online.row_codec import decode_rows, encode_rows
from feature_catalog.online.view_rows import column_of_stored

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=32)), min_size=1, max_size=3),
)


def bits(value):
    if isinstance(value, list):
        return [bits(item) for item in value]
    return struct.pack(">d", value) if isinstance(value, float) else (type(value), value)


@settings(max_examples=50)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=3))
def test_rows_come_back_to_the_bit(rows):
    back = decode_rows(encode_rows(rows), 2)
    assert [[bits(v) for v in row] for row in back] == [[bits(v) for v in row] for row in rows]


def test_minus_zero_and_infinities_stay_what_they_are():
    ((a, b),) = decode_rows(encode_rows([(-0.0, -math.inf)]), 2)
    assert math.copysign(1, a) == -1
    assert b == -math.inf


@given(st.binary(max_size=40))
def test_bytes_that_are_no_row_are_refused_in_a_sentence(body):
    try:
        (row,) = decode_rows([body], 2)
    except UnreadableOnlineValue:
        return
    assert len(row) == 2


def test_damaged_bytes_are_said_with_the_mend():
    with pytest.raises(UnreadableOnlineValue, match="materialize VIEW --restart"):
        decode_rows([b"\x82\x01"], 2)


def test_a_row_of_another_width_is_refused():
    with pytest.raises(UnreadableOnlineValue, match="no array of 3 values"):
        decode_rows(encode_rows([(1, 2)]), 3)


def test_arrays_become_columns_of_their_shape_with_what_is_missing():
    field = Field("m", "float32", (2, 2))
    column = column_of_stored([[1.0, 2.0, None, 4.0], None], field)
    assert column.kind is Kind.FLOAT
    assert column.values.shape == (2, 2, 2)
    assert column.to_list() == [[[1.0, 2.0], [None, 4.0]], [[None, None], [None, None]]]
    assert column_of_stored([], field).values.shape == (0, 2, 2)
