"""Feature hashing: tokens to bucket ids, the same on the server and on every device.

The hash is MurmurHash3 x86 32-bit (Austin Appleby, public domain) of the token's UTF-8 bytes, read
as an unsigned number and reduced modulo the number of buckets. Its name and seed are recorded with
every data set, so a device of any language can repeat it.
"""

from collections.abc import Iterable

import mmh3
import numpy as np
from numpy.typing import NDArray

HASH_NAME = "murmur3_32"
MAX_IDS = 64
PADDING = -1


def hash_bucket(token: str, num_buckets: int, seed: int) -> int:
    """Return the bucket of a token, in ``[0, num_buckets)``.

    Args:
        token: Any text; hashed as UTF-8.
        num_buckets: At least 1.
        seed: 32-bit unsigned seed of the hash.

    >>> hash_bucket("hello", 1024, seed=0)
    583
    """
    return int(mmh3.hash(token.encode(), seed, signed=False)) % num_buckets


def encode_bag(
    tokens: Iterable[str], num_buckets: int, seed: int, max_ids: int = MAX_IDS
) -> NDArray[np.int32]:
    """Encode a record's tokens as its distinct bucket ids, padded with -1.

    A bucket counts once however often its tokens occur: presence, not frequency, which trains
    better on short texts and leaves more of the ``max_ids`` places to different tokens. Order is
    that of first occurrence, so what matters most goes first; ids beyond ``max_ids`` are cut.

    Args:
        tokens: Most important first.
        num_buckets: Size of the model's table.
        seed: 32-bit unsigned seed of the hash.
        max_ids: Places in a record.

    Returns:
        Bucket ids, int32, shape ``(max_ids,)``.
    """
    ids = dict.fromkeys(hash_bucket(token, num_buckets, seed) for token in tokens)
    record = np.full(max_ids, PADDING, np.int32)
    kept = list(ids)[:max_ids]
    record[: len(kept)] = kept
    return record
