"""Bytes of what a device keeps, before any device has it: the sizes its own code counts by.

Numbers have a greatest size, so a bound on what is made of them alone is a bound. Text has none:
where nothing else limits it, sizes are an estimate from a given length, and say so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_runtime.columns import Kind
from device_runtime.feature_cache import EntryKey, entry_bytes
from device_runtime.retained_records import record_bytes
from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.fields import Dtype

FILE_OVER_COUNTED = 1.4
"""Most that the file took for each byte its records and entries count as (feature_cache.py)."""
FILE_BYTES = 2**20 + 160 * 1024
"""What the file takes besides: its write-ahead log, and one page a table and index."""
MEMORY_A_TOKEN_BYTES = 240
"""Memory a vocabulary takes for each token besides its file's bytes, while it is read."""
TOKENS_A_BYTE = 1 / 6
"""Tokens in a byte of a vocabulary whose entries nobody has said; few, short ones."""

_DIGEST_BYTES = 16
_INTEGER_BYTES = 9
_ELEMENT_BYTES: Mapping[Dtype, int] = {
    Dtype.BOOL: 1,
    Dtype.INT32: 5,
    Dtype.INT64: _INTEGER_BYTES,
    Dtype.FLOAT32: 5,
    Dtype.FLOAT64: 9,
}


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, and whether nothing can be larger."""

    bytes: int
    is_bound: bool = True

    def __add__(self, other: "Size") -> "Size":
        """Both together."""
        return Size(self.bytes + other.bytes, self.is_bound and other.is_bound)


@dataclass(frozen=True, slots=True)
class SizedField:
    """A value in a row.

    Attributes:
        dtype: As it is sent.
        shape: Of one value.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...] = ()


def event_bytes(fields: Mapping[str, tuple[Kind, tuple[int, ...]]], text_bytes: int) -> Size:
    """What one event counts as in its store, every field there.

    Args:
        fields: Kind of each, and shape of one value.
    """
    values = [_array(shape, _element(kind, text_bytes)) for kind, shape in fields.values()]
    body = _row(list(fields), values)
    return Size(record_bytes(bytes(body.bytes), None), body.is_bound)


def row_bytes(fields: Sequence[SizedField], text_bytes: int) -> Size:
    """CBOR of a view's row as it is fetched and cached, every field there."""
    values = [_array(each.shape, _of_dtype(each.dtype, text_bytes)) for each in fields]
    return _row([each.name for each in fields], values)


def raw_entry_bytes(
    app: str, view: str, join_keys: Sequence[Dtype], row: Size, text_bytes: int
) -> Size:
    """What a cached row counts as."""
    key = key_bytes(join_keys, text_bytes)
    entry = EntryKey(bytes(key.bytes), bytes(_DIGEST_BYTES))
    counted = entry_bytes(app, view, entry, bytes(row.bytes))
    return Size(counted, row.is_bound and key.is_bound)


def processed_entry_bytes(
    app: str,
    view: str,
    join_keys: Sequence[Dtype],
    gives: tuple[Kind, tuple[int, ...]],
    text_bytes: int,
    *,
    reads_asset: bool,
) -> Size:
    """What a cached value counts as that went through a chain.

    Args:
        gives: Kind and shape of what came out.
        reads_asset: Whether the chain reads one, whose digest is then in the key.
    """
    kind, shape = gives
    count = math.prod(shape)
    content = Size(_head(8 * count) + 8 * count)
    if kind is Kind.STRING:
        content = Size(_head(count) + count * (_head(text_bytes) + text_bytes), is_bound=False)
    sizes = 1 + sum(_head(size) for size in shape)
    missing = _head(math.ceil(count / 8)) + math.ceil(count / 8)
    body = 1 + (1 + len(str(kind))) + sizes + content.bytes + missing
    key = key_bytes(join_keys, text_bytes)
    assets = bytes(_DIGEST_BYTES if reads_asset else 0)
    entry = EntryKey(bytes(key.bytes), bytes(_DIGEST_BYTES), assets)
    counted = entry_bytes(app, view, entry, bytes(body))
    return Size(counted, content.is_bound and key.is_bound)


def key_bytes(join_keys: Sequence[Dtype], text_bytes: int) -> Size:
    """CBOR of an entity's key."""
    parts = [_of_dtype(dtype, text_bytes) for dtype in join_keys]
    return sum(parts, Size(_head(len(parts))))


def memory_bytes(asset: Asset) -> int:
    """What an asset takes in a device's memory once it is read."""
    if asset.type is AssetType.EMBEDDING:
        return asset.size_bytes
    tokens = asset.entries or math.ceil(asset.size_bytes * TOKENS_A_BYTE)
    return asset.size_bytes + tokens * MEMORY_A_TOKEN_BYTES


def file_bytes(counted_bytes: int) -> int:
    """What the device's file takes at most for records and entries that count as so much."""
    return math.ceil(counted_bytes * FILE_OVER_COUNTED)


def _row(names: Sequence[str], values: Sequence[Size]) -> Size:
    named = sum(_head(len(name.encode())) + len(name.encode()) for name in names)
    return sum(values, Size(_head(len(names)) + named))


def _array(shape: tuple[int, ...], element: Size) -> Size:
    for size in reversed(shape):
        element = Size(_head(size) + size * element.bytes, element.is_bound)
    return element


def _of_dtype(dtype: Dtype, text_bytes: int) -> Size:
    if dtype is Dtype.STRING:
        return _element(Kind.STRING, text_bytes)
    return Size(_ELEMENT_BYTES[dtype])


def _element(kind: Kind, text_bytes: int) -> Size:
    """An element of a kind: an app may give any integer and any float."""
    if kind is Kind.STRING:
        return Size(_head(text_bytes) + text_bytes, is_bound=False)
    return Size(_INTEGER_BYTES)


def _head(count: int) -> int:
    """Bytes CBOR spends on saying how much follows."""
    return next((size for size, below in _HEADS if count < below), 9)


_HEADS = ((1, 24), (2, 2**8), (3, 2**16), (5, 2**32))
