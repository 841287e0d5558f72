"""Seeds of the order of tasks' records: `server.coordination.selection.shuffle_seed`, compiled."""

import numba
import numpy as np
from numpy.typing import NDArray

from simulation.timeline.compilation import Signature, entry_point
from simulation.timeline.draws import digest_word


def shuffle_seeds(seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """`shuffle_seed` of each of the tasks ``t1``, ``t2`` and so on, to the bit.

    Args:
        seed: At most 64 bits.
        numbers: Of the tasks, not negative, shape ``(tasks,)``.
    """
    prefix = np.frombuffer(f"shuffle\0{seed}\0t".encode(), np.uint8).copy()
    seeds = np.empty(len(numbers), np.uint64)
    _hash_each(prefix, np.ascontiguousarray(numbers, np.int64), np.zeros(64, np.uint32), seeds)
    return seeds


def _hash_each_in(
    prefix: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    w: NDArray[np.uint32],
    seeds: NDArray[np.uint64],
) -> None:
    for place in range(len(numbers)):
        w[:16] = 0
        for at in range(len(prefix)):
            w[at >> 2] |= np.uint32(prefix[at]) << np.uint32(24 - 8 * (at & 3))
        digits, rest = 1, numbers[place] // 10
        while rest > 0:
            digits += 1
            rest //= 10
        rest = numbers[place]
        for at in range(len(prefix) + digits - 1, len(prefix) - 1, -1):
            w[at >> 2] |= np.uint32(48 + rest % 10) << np.uint32(24 - 8 * (at & 3))
            rest //= 10
        seeds[place] = digest_word(w, len(prefix) + digits)


_types: Signature = numba.types


def _array(kind: Signature) -> Signature:
    return _types.Array(kind, 1, "C")


_hash_each = entry_point(
    _hash_each_in,
    _types.void(
        _array(_types.uint8), _array(_types.int64), _array(_types.uint32), _array(_types.uint64)
    ),
)
