"""How many tokens share a bucket when they are hashed: measured, and as expected of any hash."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.hashing import hash_bucket

_ALL_HASHES = 2**32


@dataclass(frozen=True, slots=True)
class Collisions:
    """Tokens of a column in buckets.

    Attributes:
        buckets: There are.
        used: Buckets with a token.
        tokens_share: Share of different tokens that share their bucket with another.
        occurrences_share: Share of the data's tokens that are such.
        expected_share: What ``tokens_share`` is on average over hash functions.
    """

    buckets: int
    used: int
    tokens_share: float
    occurrences_share: float
    expected_share: float


def token_hashes(tokens: list[str], seed: int = 0) -> NDArray[np.int64]:
    """MurmurHash3 of tokens, all 32 bits: its remainder by ``buckets`` is a token's bucket."""
    return np.array([hash_bucket(token, _ALL_HASHES, seed) for token in tokens], np.int64)


def expected_collisions(distinct: int, buckets: int) -> float:
    """Chance that a token shares its bucket with one of the others: ``1 - (1 - 1/m)^(n - 1)``.

    >>> round(expected_collisions(366, 365), 3)
    0.633
    """
    if distinct < 2:
        return 0.0
    if buckets == 1:
        return 1.0
    return float(-np.expm1((distinct - 1) * np.log1p(-1.0 / buckets)))


def measure_collisions(
    hashes: NDArray[np.int64], occurrences: NDArray[np.int64], buckets: int
) -> Collisions:
    """Count tokens that share a bucket.

    Args:
        hashes: Of the different tokens, shape ``(distinct,)``; at least one.
        occurrences: How often each occurs, shape ``(distinct,)``.
    """
    _, place, count = np.unique(hashes % buckets, return_inverse=True, return_counts=True)
    shares = count[place] > 1
    return Collisions(
        buckets=buckets,
        used=len(count),
        tokens_share=float(shares.mean()),
        occurrences_share=float(occurrences[shares].sum() / occurrences.sum()),
        expected_share=expected_collisions(len(hashes), buckets),
    )
