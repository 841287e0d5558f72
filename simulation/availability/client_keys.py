"""A 64-bit key of each device id: what partitions a log and keys its coins, whatever the order."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

# SplitMix64 (Steele et al., OOPSLA 2014): its finaliser mixes all bits of a word.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def client_keys(ids: pa.Array) -> Keys:
    """Keys of ids, shape ``(ids,)``; equal ids have equal keys.

    Args:
        ids: ``int64`` or ``large_string``, without nulls.
    """
    if pa.types.is_integer(ids.type):
        return _mixed(ids.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64))
    encoded = ids.dictionary_encode()
    lengths, words = _words(encoded.dictionary)
    keys = _mixed(lengths.astype(np.uint64))
    for column in range(words.shape[1]):
        # Beyond its end a text mixes nothing in: its key hangs on no longer text beside it.
        keys = np.where(lengths > 8 * column, _mixed(keys ^ words[:, column]), keys)
    codes: NDArray[np.int64] = encoded.indices.to_numpy(zero_copy_only=False)
    return keys[codes]


def _mixed(words: Keys) -> Keys:
    mixed: Keys = words + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def _words(texts: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Length of each text in bytes, and its UTF-8 as 64-bit words, zero at the end."""
    if not len(texts):
        return np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.uint64)
    _, offsets_buffer, data_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    data = (
        np.frombuffer(data_buffer, dtype=np.uint8)
        if data_buffer is not None and data_buffer.size
        else np.zeros(1, dtype=np.uint8)
    )
    lengths = np.diff(offsets)
    width = max(8, int(-(-lengths.max() // 8)) * 8)
    place = np.arange(width)
    at = np.minimum(offsets[:-1, None] + place, len(data) - 1)
    padded = np.where(place < lengths[:, None], data[at], np.uint8(0))
    return lengths, np.ascontiguousarray(padded).view("<u8").astype(np.uint64)
