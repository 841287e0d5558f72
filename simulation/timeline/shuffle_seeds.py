"""Seeds of the order of tasks' records: `server.coordination.selection.shuffle_seed`, compiled.

Sixteen tasks are hashed side by side, each in a lane of vectors of SHA-256's words: one after the
other took 4 % of a dry-run of a small model.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulation.timeline.compilation import Signature, entry_point
from simulation.timeline.draws import SHA_ROUNDS, SHA_START

LANES = 16
_WORDS = 16
"""Of 32 bits, of a message that fits into one block: prefix and number have at most 49 bytes."""

_Of = Any
"""Something of Numba's or LLVM's, which are not typed."""


def shuffle_seeds(seed: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """`shuffle_seed` of each of the tasks ``t1``, ``t2`` and so on, to the bit.

    Args:
        seed: At most 64 bits.
        numbers: Of the tasks, not negative, shape ``(tasks,)``.
    """
    prefix = f"shuffle\0{seed}\0t".encode()
    message = np.frombuffer(prefix.ljust(4 * _WORDS, b"\0"), ">u4").astype(np.uint32)
    words = np.repeat(message, LANES)
    digests = np.zeros(2 * LANES, np.uint32)
    seeds = np.empty(len(numbers), np.uint64)
    _hash_each(
        message, len(prefix), np.ascontiguousarray(numbers, np.int64),
        words, words.ctypes.data, digests, digests.ctypes.data, seeds,
    )  # fmt: skip
    return seeds


def _lanes_hashed(_context: _Of, _words: _Of, _digests: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """SHA-256's first two words of `LANES` messages of one block (FIPS 180-4, section 6.2.2).

    The code takes addresses: of the message's words, ``(16, LANES)`` of uint32, and of room for
    what is found, ``(2, LANES)``.
    """
    vector = ir.VectorType(ir.IntType(32), LANES)

    def generate(_context: _Of, builder: _Of, _signature: _Of, arguments: _Of) -> _Of:
        words, digests = (builder.inttoptr(each, vector.as_pointer()) for each in arguments)

        def every(value: int) -> _Of:
            return ir.Constant(vector, [int(value)] * LANES)

        def place(base: _Of, row: int) -> _Of:
            return builder.gep(base, [ir.Constant(ir.IntType(32), row)])

        def turned(x: _Of, *bits: int) -> _Of:
            first, *others = [
                builder.or_(builder.lshr(x, every(each)), builder.shl(x, every(32 - each)))
                for each in bits
            ]
            for other in others:
                first = builder.xor(first, other)
            return first

        def added(first: _Of, *others: _Of) -> _Of:
            for other in others:
                first = builder.add(first, other)
            return first

        w = [builder.load(place(words, row), align=4) for row in range(_WORDS)]
        for t in range(_WORDS, len(SHA_ROUNDS)):
            low, high = w[t - 15], w[t - 2]
            s0 = builder.xor(turned(low, 7, 18), builder.lshr(low, every(3)))
            s1 = builder.xor(turned(high, 17, 19), builder.lshr(high, every(10)))
            w.append(added(w[t - 16], s0, w[t - 7], s1))
        a, b, c, d, e, f, g, h = (every(each) for each in SHA_START)
        for of_round, word in zip(SHA_ROUNDS, w, strict=True):
            chosen = builder.xor(g, builder.and_(e, builder.xor(f, g)))
            first = added(h, turned(e, 6, 11, 25), chosen, every(of_round), word)
            most = builder.or_(builder.and_(a, b), builder.and_(c, builder.or_(a, b)))
            second = builder.add(turned(a, 2, 13, 22), most)
            h, g, f, e = g, f, e, builder.add(d, first)
            d, c, b, a = c, b, a, builder.add(first, second)
        for row, (found, start) in enumerate(zip((a, b), SHA_START, strict=False)):
            builder.store(builder.add(found, every(start)), place(digests, row), align=4)
        return _context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


hash_lanes: _Of = intrinsic(_lanes_hashed)


def _hash_each_in(
    message: NDArray[np.uint32],
    length: int,
    numbers: NDArray[np.int64],
    words: NDArray[np.uint32],
    words_address: int,
    digests: NDArray[np.uint32],
    digests_address: int,
    seeds: NDArray[np.uint64],
) -> None:
    """Write each number's digits behind the message, lane by lane, and hash them together."""
    first_word = length >> 2
    for begin in range(0, len(numbers), LANES):
        lanes = min(LANES, len(numbers) - begin)
        for lane in range(lanes):
            for at in range(first_word, _WORDS - 1):
                words[at * LANES + lane] = message[at]
            end, rest = length + 1, numbers[begin + lane] // 10
            while rest > 0:
                end += 1
                rest //= 10
            words[(end >> 2) * LANES + lane] |= np.uint32(0x80) << np.uint32(24 - 8 * (end & 3))
            words[(_WORDS - 1) * LANES + lane] = np.uint32(8 * end)
            rest = numbers[begin + lane]
            for at in range(end - 1, length - 1, -1):
                digit = np.uint32(48 + rest % 10) << np.uint32(24 - 8 * (at & 3))
                words[(at >> 2) * LANES + lane] |= digit
                rest //= 10
        hash_lanes(words_address, digests_address)
        for lane in range(lanes):
            high = np.uint64(digests[lane]) << np.uint64(32)
            seeds[begin + lane] = high | np.uint64(digests[LANES + lane])


_types: Signature = numba.types


def _array(kind: Signature) -> Signature:
    return _types.Array(kind, 1, "C")


_WORD_ARRAY = _array(_types.uint32)
_hash_each = entry_point(
    _hash_each_in,
    _types.void(
        _WORD_ARRAY, _types.int64, _array(_types.int64),
        _WORD_ARRAY, _types.int64, _WORD_ARRAY, _types.int64, _array(_types.uint64),
    ),
)  # fmt: skip
