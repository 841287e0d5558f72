"""Random numbers that depend on nothing but their key: seed, trial, stream, client, task, draw.

Counter-based (Philox4x32-10; Salmon et al., SC 2011): a draw is a pure function of its key, so it
is the same whichever process asks, in whatever order, one by one or for a million clients at once.
A change in one stream (one more draw for bandwidth) leaves all others as they were.

The 64-bit Philox key is the start of SHA-256 over seed, trial and stream name; the 128-bit counter
is (draw // 2, task, client, client's upper half).
"""

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.portable_math import Floats, normal_quantile, portable_log

_WORD = 0xFFFFFFFF
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
_UNIT = 2.0**-52
_WORDS_BELOW = 2**32
_CLIENTS_BELOW = 2**64
_AT_ONCE = 2**16
"""So many draws are made at a time: a dozen arrays of them stay in the processor's caches."""

# A Python int below 2**32, or an array of uint64 that holds such values.
Word = TypeVar("Word", bound="int | NDArray[np.uint64]")


def philox4x32(
    counter: tuple[Word, Word, Word, Word], key: tuple[int, int]
) -> tuple[Word, Word, Word, Word]:
    """Four 32-bit words of a counter of four and a key of two (ten rounds).

    Args:
        counter: Python ints, or arrays of uint64 with values below ``2**32``, of equal shapes.
        key: Two 32-bit words.

    Returns:
        Words of the counter's type and shape, each below ``2**32``.
    """
    # Arrays of uint64 compute as ints do: products of two words fit 64 bits.
    c0, c1, c2, c3 = cast(tuple[int, int, int, int], counter)
    for k0, k1 in _round_keys(key):
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> 32) ^ c1 ^ k0,
            product_1 & _WORD,
            (product_0 >> 32) ^ c3 ^ k1,
            product_0 & _WORD,
        )
    return cast(tuple[Word, Word, Word, Word], (c0, c1, c2, c3))


@cache
def _round_keys(key: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """The key of each round; a run has few keys and draws millions of times from each."""
    return tuple(
        ((key[0] + i * _WEYL_0) & _WORD, (key[1] + i * _WEYL_1) & _WORD) for i in range(_ROUNDS)
    )


@dataclass(frozen=True)
class RandomStream:
    """One named stream. Clients, tasks and draws are numbered by whoever uses it.

    Clients are below ``2**64``, tasks and draws below ``2**32``; where arrays are taken, their
    shapes are broadcast and that is the result's shape. Values for arrays and for single numbers
    are equal to the bit.

    Attributes:
        seed: The run's.
        trial: Which repetition of the run.
        name: What is drawn, e.g. ``"per_example_s"``.
    """

    seed: int
    trial: int
    name: str

    @cached_property
    def key(self) -> tuple[int, int]:
        """The Philox key: two 32-bit words."""
        text = f"flint-stream-v1|{self.seed}|{self.trial}|{self.name}"
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")

    def uniform(self, client: int, task: int = 0, draw: int = 0) -> float:
        """Uniform in the open interval (0, 1): a multiple of 2**-53 that is neither 0 nor 1."""
        _require_word(task, draw)
        client, task = int(client), int(task)  # numpy's integers would overflow
        if not 0 <= client < _CLIENTS_BELOW:
            raise ValueError(f"client {client} is not in [0, 2**64)")
        words = philox4x32((draw >> 1, task, client & _WORD, client >> 32), self.key)
        low, high = words[2:] if draw & 1 else words[:2]
        return float((high << 20 | low >> 12) + 0.5) * _UNIT

    def uniforms(self, clients: ArrayLike, tasks: ArrayLike = 0, draw: int = 0) -> Floats:
        """Uniforms of many clients or tasks at once; see `uniform`."""
        _require_word(draw)
        client, task = np.broadcast_arrays(_unsigned(clients), _unsigned(tasks))
        if task.size and int(task.max()) >= _WORDS_BELOW:
            raise ValueError("a task is not in [0, 2**32)")
        drawn = np.empty(client.size)
        clients_in_turn, tasks_in_turn = client.ravel(), task.ravel()
        for first in range(0, client.size, _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            drawn[some] = self._some_uniforms(clients_in_turn[some], tasks_in_turn[some], draw)
        return drawn.reshape(client.shape)

    def _some_uniforms(
        self, client: NDArray[np.uint64], task: NDArray[np.uint64], draw: int
    ) -> Floats:
        block = np.full(client.shape, draw >> 1, dtype=np.uint64)
        lower, upper = client & np.uint64(_WORD), client >> np.uint64(32)
        words = philox4x32((block, task, lower, upper), self.key)
        low, high = words[2:] if draw & 1 else words[:2]
        bits = (high << np.uint64(20)) | (low >> np.uint64(12))
        return (bits.astype(np.float64) + 0.5) * _UNIT

    def normal(self, client: int, task: int = 0, draw: int = 0) -> float:
        """Standard normal, by the inverse of its distribution function at `uniform`."""
        return normal_quantile(self.uniform(client, task, draw))

    def normals(self, clients: ArrayLike, tasks: ArrayLike = 0, draw: int = 0) -> Floats:
        """Standard normals of many clients or tasks at once."""
        return normal_quantile(self.uniforms(clients, tasks, draw))

    def exponential(self, client: int, task: int = 0, draw: int = 0) -> float:
        """Exponential with mean 1."""
        return -portable_log(self.uniform(client, task, draw))

    def exponentials(self, clients: ArrayLike, tasks: ArrayLike = 0, draw: int = 0) -> Floats:
        """Exponentials with mean 1 of many clients or tasks at once."""
        return -portable_log(self.uniforms(clients, tasks, draw))

    def permutation(self, count: int) -> NDArray[np.int64]:
        """Numbers 0 to ``count - 1`` in random order."""
        return np.argsort(self.uniforms(np.arange(count)), kind="stable")


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """All streams of one trial of one run.

    >>> streams = RandomStreams(seed=7)
    >>> streams["bandwidth"].uniform(3) == streams["bandwidth"].uniforms([1, 2, 3])[2]
    True
    """

    seed: int
    trial: int = 0

    def __getitem__(self, name: str) -> RandomStream:
        return RandomStream(self.seed, self.trial, name)


@overload
def pick(uniform: float, count: int) -> int: ...
@overload
def pick(uniform: Floats, count: int) -> NDArray[np.int64]: ...
def pick(uniform: float | Floats, count: int) -> int | NDArray[np.int64]:
    """Whole number from 0 to ``count - 1``, all equally likely, from a uniform.

    >>> pick(0.5, 10)
    5
    """
    # The product of a number below 1 can still round up to count.
    if isinstance(uniform, np.ndarray):
        return np.minimum((uniform * count).astype(np.int64), count - 1)
    return min(int(uniform * count), count - 1)


def _unsigned(values: ArrayLike) -> NDArray[np.uint64]:
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind == "u":
        return array.astype(np.uint64)
    if array.dtype.kind != "i" and array.size:
        raise TypeError(f"clients and tasks are whole numbers, not {array.dtype}")
    if array.size and int(array.min()) < 0:
        raise ValueError("a client or task is negative")
    return array.astype(np.uint64)


def _require_word(*values: int) -> None:
    for value in values:
        if not 0 <= value < _WORDS_BELOW:
            raise ValueError(f"{value} is not in [0, 2**32)")
