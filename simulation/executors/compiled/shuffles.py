"""`device_runtime.training_plan.epoch_order`, compiled: the same order without a numpy generator.

Philox4x64-10 (Salmon et al., SC 2011) as numpy seeds it by a key, and numpy's permutation: swaps
from the end, their places drawn from the low bits of 32-bit numbers, those too large drawn again.
"""

# ruff: noqa: ANN401, ARG001 - what Numba calls by its own types names arguments it does not use

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from simulation.executors.compiled.compiling import compiled, entry, instruction
from simulation.executors.compiled.memory import get_index, put_index

_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B))
_HALF = np.uint64(32)
_ONE = np.uint64(1)
_NONE = np.uint64(0)


@instruction
def _high_product(_context: Any, left: Any, right: Any) -> Any:
    """Upper 64 bits of the product of two 64-bit numbers."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        factors = [builder.zext(argument, wide) for argument in arguments]
        product = builder.mul(*factors)
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


@compiled
def _philox(counter: np.uint64, key_0: np.uint64, key_1: np.uint64, block: int) -> None:
    """The four numbers of a counter below 2**64."""
    c_0, c_1, c_2, c_3 = counter, _NONE, _NONE, _NONE
    for _ in range(10):
        high_0, low_0 = _high_product(_MULTIPLIERS[0], c_0), _MULTIPLIERS[0] * c_0
        high_1, low_1 = _high_product(_MULTIPLIERS[1], c_2), _MULTIPLIERS[1] * c_2
        c_0, c_1, c_2, c_3 = high_1 ^ c_1 ^ key_0, low_1, high_0 ^ c_3 ^ key_1, low_0
        key_0 += _WEYL[0]
        key_1 += _WEYL[1]
    put_index(block, 0, np.int64(c_0))
    put_index(block, 1, np.int64(c_1))
    put_index(block, 2, np.int64(c_2))
    put_index(block, 3, np.int64(c_3))


@entry
def shuffled(order: int, count: int, seed: np.uint64, epoch: int, block: int) -> None:
    """Write the epoch's order of ``count`` records to an address.

    Args:
        block: Address of room for four numbers.
    """
    for i in range(count):
        put_index(order, i, i)
    drawn = 8  # 32-bit numbers taken from the block, which holds eight
    counter = _NONE
    for i in range(count - 1, 0, -1):
        mask = np.uint64(i)
        for shift in (1, 2, 4, 8, 16):
            mask |= mask >> np.uint64(shift)
        place = np.uint64(i) + _ONE
        while place > np.uint64(i):
            if drawn == 8:
                counter += _ONE
                _philox(counter, seed, np.uint64(epoch), block)
                drawn = 0
            pair = np.uint64(get_index(block, drawn >> 1))
            place = (pair if drawn & 1 == 0 else pair >> _HALF) & mask
            drawn += 1
        j = np.int64(place)
        moved = get_index(order, i)
        put_index(order, i, get_index(order, j))
        put_index(order, j, moved)
