"""Feature values as bytes: a row of a view as the cloud says it, a processed value, a join key.

All three are CBOR (RFC 8949): small, exact to the last bit of a float, and read in any language.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cbor2
import numpy as np

from device_runtime.columns import Column, Kind
from device_runtime.errors import FlintError

Scalar = str | int | float | bool | None
Value = Scalar | Sequence[Scalar]
"""What a feature may be: text, a number, missing, or a row of these."""


MAX_KEY_BYTES = 1_024
"""Of an entity's encoded key: no longer one is stored, so none is asked for."""


class UnreadableFeatureValue(FlintError):
    """Bytes that should be a feature value are not."""

    code = "FLN-2855"


def encode_key(values: Sequence[str | int]) -> bytes:
    """An entity's join key values, in the entity's order, as bytes.

    >>> encode_key(["u1", 7]).hex()
    '8262753107'
    """
    return cbor2.dumps(list(values), canonical=True)


def encode_row(values: Mapping[str, Value]) -> bytes:
    """A row of a view; NaN becomes missing."""
    return cbor2.dumps({name: _plain(value) for name, value in values.items()}, canonical=True)


def decode_row(body: bytes) -> dict[str, Value]:
    """Read `encode_row` output.

    Raises:
        UnreadableFeatureValue: If it is none.
    """
    found = _loads(body)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UnreadableFeatureValue("a cached feature row is no table of fields; clear the cache")
    return found


def encode_processed(column: Column, row: int) -> bytes:
    """One row of a processed column."""
    values = column.values[row]
    array = np.asarray(values)
    content: Any = array.ravel().tolist()
    if column.kind is not Kind.STRING:
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    missing = np.packbits(np.asarray(column.missing[row]).ravel()).tobytes()
    shape = list(column.values.shape[1:])
    return cbor2.dumps([str(column.kind), shape, content, missing], canonical=True)


def decode_processed(bodies: Sequence[bytes]) -> Column:
    """Rows of one processed column; at least one.

    Raises:
        UnreadableFeatureValue: If they are none, or of several shapes.
    """
    try:
        parts = [_loads(body) for body in bodies]
        kind, shape = Kind(parts[0][0]), tuple(parts[0][1])
        if any((Kind(part[0]), tuple(part[1])) != (kind, shape) for part in parts):
            raise UnreadableFeatureValue("processed values are of several shapes; clear the cache")
        size = int(np.prod(shape, dtype=np.int64))
        if kind is Kind.STRING:
            values = np.array([text for part in parts for text in part[2]], object)
        else:
            dtype = "<i8" if kind is Kind.INT else "<f8"
            values = np.frombuffer(b"".join(part[2] for part in parts), dtype).astype(dtype[1:])
        bits = [np.unpackbits(np.frombuffer(part[3], np.uint8), count=size) for part in parts]
        mask = np.array(bits, np.bool_).reshape(len(parts), *shape)
        return Column(kind, values.reshape(len(parts), *shape), mask)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise UnreadableFeatureValue(
            f"a processed feature value is damaged ({error}); clear the cache"
        ) from error


def _loads(body: bytes) -> Any:  # noqa: ANN401
    try:
        return cbor2.loads(body)
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError) as error:
        raise UnreadableFeatureValue(
            f"a cached feature value is damaged ({error}); clear the cache"
        ) from error


def _plain(value: Value) -> Any:  # noqa: ANN401
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return None if value != value else value  # noqa: PLR0124 - NaN
    return [_plain(element) for element in value]
