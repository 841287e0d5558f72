"""Words of memory that several processes read and change at a time.

Every access is sequentially consistent: who sees a word changed sees all that was written before.
"""

# ruff: noqa: ANN401, ARG001 - what Numba calls by its own types names arguments it does not use

from typing import Any

from llvmlite import ir
from numba import types

from simulation.executors.compiled.compiling import entry, instruction

_WORD = ir.IntType(64)
_ALIGNED = 8
_ORDER = "seq_cst"


@instruction
def load(_context: Any, address: Any) -> Any:
    """The int64 at an address."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.load_atomic(word, _ORDER, _ALIGNED)

    return types.int64(types.int64), generate


@instruction
def exchange(_context: Any, address: Any, value: Any) -> Any:
    """Write an int64; returns what was there."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw("xchg", word, arguments[1], _ORDER)

    return types.int64(types.int64, types.int64), generate


@instruction
def add_one(_context: Any, address: Any) -> Any:
    """Count an int64 up; returns what was there: no two callers are given the same number."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", word, ir.Constant(_WORD, 1), _ORDER)

    return types.int64(types.int64), generate


@entry
def read_word(address: int) -> int:
    """`load`, for Python."""
    return int(load(address))


@entry
def write_word(address: int, value: int) -> int:
    """`exchange`, for Python."""
    return int(exchange(address, value))


@entry
def becomes(address: int, value: int, looks: int) -> bool:
    """Look at a word until it has a value, at most so often; returns whether it has."""
    for _ in range(looks):
        if load(address) == value:
            return True
    return False


@entry
def loses(address: int, value: int, looks: int) -> bool:
    """Look at a word until it has a value no more, at most so often; returns whether it has not."""
    for _ in range(looks):
        if load(address) != value:
            return True
    return False
