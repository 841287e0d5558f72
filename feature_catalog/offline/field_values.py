"""Values as a source holds them, made those of a field: its type, its shape, nothing else.

A number is widened or narrowed only where it stays what it is; floats alone may be rounded, to the
nearest float32. What does not fit is refused: a value that was cut would train a model in silence.
"""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.offline.errors import UnfitValues

_TYPES = {
    Dtype.BOOL: pa.bool_(),
    Dtype.INT32: pa.int32(),
    Dtype.INT64: pa.int64(),
    Dtype.FLOAT32: pa.float32(),
    Dtype.FLOAT64: pa.float64(),
    Dtype.STRING: pa.string(),
}


def field_type(field: Field) -> pa.DataType:
    """Arrow's type of a field; of an array, fixed-size lists."""
    kind = _TYPES[field.dtype]
    for size in reversed(field.shape):
        kind = pa.list_(kind, size)
    return kind


def field_values(values: pa.ChunkedArray, field: Field, where: str) -> pa.ChunkedArray:
    """Values as a field's.

    Args:
        values: As the source holds them: numbers of any width, text, booleans; of an array lists,
            nested as its shape or flat.
        where: What holds them, for the refusal.

    Returns:
        As many, of `field_type`; null stays null, of floats NaN stays NaN.

    Raises:
        UnfitValues: If one is of another type or shape, or out of the type's range.
    """
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # text of more than 2 GiB stays in chunks
        return pa.chunked_array(
            [field_values(pa.chunked_array([c]), field, where).combine_chunks() for c in array.chunks]
        )
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        done = _fixed_lists(array, field) if field.shape else _scalars(array, field.dtype)
    except (_Unfit, pa.ArrowException) as error:
        raise UnfitValues(
            f"{where} holds {_shown(array.type)}, of which not all are "
            f"{_form(field)} ({_first_line(error)}); correct them, or the field's dtype or shape"
        ) from error
    return pa.chunked_array([done])


class _Unfit(Exception):
    """Why values do not fit."""


def _scalars(array: pa.Array, dtype: Dtype) -> pa.Array:
    kind, wanted = array.type, _TYPES[dtype]
    if pat.is_null(kind):
        return array.cast(wanted)
    is_number = pat.is_integer(kind) or pat.is_floating(kind) or pat.is_decimal(kind)
    is_text = pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind)
    fits = {Dtype.STRING: is_text, Dtype.BOOL: pat.is_boolean(kind)}.get(dtype, is_number)
    if not fits:
        raise _Unfit(f"{dtype} is another type than {kind}")
    if dtype in {Dtype.INT32, Dtype.INT64} and pat.is_floating(kind):
        # How pandas writes whole numbers some of which are missing.
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if dtype in {Dtype.FLOAT32, Dtype.FLOAT64}:
        return array.cast(wanted, safe=False)
    return array.cast(wanted)


def _fixed_lists(array: pa.Array, field: Field) -> pa.Array:
    is_there = array.is_valid()
    flat = array.drop_null()
    per_row = math.prod(field.shape)
    shape = list(field.shape)
    while _is_list(flat.type):
        wanted = shape.pop(0) if _is_list(flat.type.value_type) and shape else math.prod(shape)
        if flat.null_count or not _has_length(flat, wanted):
            raise _Unfit(f"an array has not the shape {list(field.shape)}")
        flat, shape = pc.list_flatten(flat), shape or [1]
    rows = len(array) - array.null_count
    if pat.is_null(flat.type) and rows == 0:
        return pa.nulls(len(array), field_type(field))
    if len(flat) != rows * per_row or not rows == 0 and not _is_list(array.type):
        raise _Unfit(f"{list(field.shape)} is the shape of arrays")
    packed = _scalars(flat, field.dtype)
    for size in reversed(field.shape):
        packed = pa.FixedSizeListArray.from_arrays(packed, size)
    if not array.null_count:
        return packed
    places = np.cumsum(is_there.to_numpy(zero_copy_only=False)) - 1
    return packed.take(pa.array(places, mask=~is_there.to_numpy(zero_copy_only=False)))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


def _has_length(lists: pa.Array, wanted: int) -> bool:
    lengths = pc.min_max(pc.list_value_length(lists)).as_py()
    return lengths["min"] in (wanted, None) and lengths["max"] in (wanted, None)


def _form(field: Field) -> str:
    return f"{field.dtype} {list(field.shape)}" if field.shape else str(field.dtype)


def _shown(kind: pa.DataType) -> str:
    return str(kind) if len(str(kind)) <= 60 else f"{str(kind)[:57]}..."


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")[:200]
