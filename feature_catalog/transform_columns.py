"""The cloud's transforms: the device's own code over Arrow columns, so both agree to the bit.

Only the form of a column changes here. A null is missing and so is NaN, which comes back as null;
whole numbers of any width come back as int64, floats as float64, text as string. A value of several
elements is a fixed-size list; a list that is null has all its elements missing.
"""

from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from numpy.typing import NDArray

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain

Values = TypeVar("Values", pa.Array, pa.ChunkedArray)

_TYPES = {Kind.STRING: pa.string(), Kind.INT: pa.int64(), Kind.FLOAT: pa.float64()}


def transform_array(values: Values, chain: TransformChain, assets: Assets | None = None) -> Values:
    """Put an Arrow column through a chain of transforms, chunk by chunk.

    Args:
        values: Text (dictionary-encoded too), numbers, booleans, or fixed-size lists of them.
        chain: What they go through.
        assets: By name, what the chain reads.

    Returns:
        As many rows in as many chunks.

    Raises:
        UnsuitableColumn: If the column is of another type.
        InvalidTransform: If a step cannot take what the one before gives.
        InvalidAsset: If an asset is not there, or of another sort.
    """
    if isinstance(values, pa.ChunkedArray):
        done = [transform_array(chunk, chain, assets) for chunk in values.chunks]
        if done:
            return pa.chunked_array(done)
        empty = transform_array(pa.array([], values.type), chain, assets)
        return pa.chunked_array([], type=empty.type)
    if pat.is_fixed_size_list(values.type) or _kind_of(values.type) is not Kind.STRING:
        return array_of(chain.apply(column_of(values), assets))
    distinct, places = _distinct(values)
    return array_of(chain.apply(column_of(distinct), assets)).take(places)


def column_of(array: pa.Array) -> Column:
    """An Arrow array as a column.

    Raises:
        UnsuitableColumn: If it is of a type that no column holds.
    """
    kind = _kind_of(array.type)
    shape, mask = [len(array)], _nulls_of(array)
    while not pat.is_dictionary(array.type) and pat.is_fixed_size_list(array.type):
        width = array.type.list_size
        array = array.values.slice(array.offset * width, len(array) * width)
        shape.append(width)
        mask = np.repeat(mask, width) | _nulls_of(array)
    if pat.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pat.is_boolean(array.type):
        array = array.cast(pa.int8())
    if kind is not Kind.STRING and array.null_count:
        array = array.fill_null(0)
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return Column.of(numbers.reshape(shape), mask.reshape(shape), kind=kind)


def array_of(column: Column) -> pa.Array:
    """A column as an Arrow array."""
    array = pa.array(
        column.values.ravel(),
        _TYPES[column.kind],
        mask=np.ascontiguousarray(column.missing.ravel()),
    )
    for width in reversed(column.values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, width)
    return array


def _distinct(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Each text once, and null, and where every row's is: texts repeat, and cost most."""
    encoded = texts if pat.is_dictionary(texts.type) else texts.dictionary_encode()
    known = encoded.dictionary
    places = encoded.indices.cast(pa.int64()).fill_null(len(known))
    return pa.concat_arrays([known, pa.nulls(1, known.type)]), places


def _nulls_of(array: pa.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _kind_of(arrow_type: pa.DataType) -> Kind:
    if pat.is_dictionary(arrow_type) or pat.is_fixed_size_list(arrow_type):
        return _kind_of(arrow_type.value_type)
    if pat.is_string(arrow_type) or pat.is_large_string(arrow_type):
        return Kind.STRING
    if pat.is_integer(arrow_type) or pat.is_boolean(arrow_type):
        return Kind.INT
    if pat.is_floating(arrow_type):
        return Kind.FLOAT
    raise UnsuitableColumn(
        f"a column of Arrow's {arrow_type} is neither text nor integers nor floats, nor fixed-size "
        "lists of them; convert it before"
    )
