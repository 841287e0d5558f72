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
    try:
        done = [
            _fixed_lists(chunk, field) if field.shape else _scalars(chunk, field.dtype)
            for chunk in values.chunks
        ]
    except (_Unfit, pa.ArrowException) as error:
        raise UnfitValues(
            f"{where} holds {_shown(values.type)}, of which not all are "
            f"{_form(field)} ({_first_line(error)}); correct them, or the field's dtype or shape"
        ) from error
    return pa.chunked_array(done, field_type(field))


class _Unfit(Exception):
    """Why values do not fit."""


def _scalars(array: pa.Array, dtype: Dtype) -> pa.Array:
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
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
    flat = array.drop_null()
    is_flat = _depth(array.type) == 1
    lengths = (math.prod(field.shape),) if is_flat else field.shape
    if _depth(array.type) != len(lengths) and not pat.is_null(array.type):
        raise _Unfit(f"{array.type} has another number of dimensions than {list(field.shape)}")
    for wanted in lengths if not pat.is_null(array.type) else ():
        if flat.null_count or not _has_length(flat, wanted):
            raise _Unfit(f"an array has not the shape {list(field.shape)}")
        flat = pc.list_flatten(flat)
    packed = _scalars(flat, field.dtype)
    for size in reversed(field.shape):
        packed = pa.FixedSizeListArray.from_arrays(packed, size)
    is_there = array.is_valid().to_numpy(zero_copy_only=False)
    return packed.take(pa.array(np.cumsum(is_there) - 1, mask=~is_there))


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if _is_list(kind) else 0


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
