"""Numbers at addresses: what the kernel's loops read and write.

The buffers are numpy arrays that `simulation.executors.compiled.training` owns. Their addresses
alone go through the kernel, as Numba's own arrays make it ten times longer to compile.
"""

# ruff: noqa: ANN401, ARG001 - what Numba calls by its own types names arguments it does not use

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from simulation.executors.compiled.compiling import instruction


def _loader(kind: Any, numba_kind: Any) -> Any:
    @instruction
    def load(_context: Any, address: Any, index: Any) -> Any:
        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            base = builder.inttoptr(arguments[0], kind.as_pointer())
            return builder.load(builder.gep(base, [arguments[1]]))

        return numba_kind(types.int64, types.int64), generate

    return load


def _storer(kind: Any, numba_kind: Any) -> Any:
    @instruction
    def store(_context: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            base = builder.inttoptr(arguments[0], kind.as_pointer())
            builder.store(arguments[2], builder.gep(base, [arguments[1]]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, numba_kind), generate

    return store


get = _loader(ir.FloatType(), types.float32)
"""``get(address, i)``: a float32."""
put = _storer(ir.FloatType(), types.float32)
"""``put(address, i, value)``: a float32."""
get_double = _loader(ir.DoubleType(), types.float64)
"""A float64."""
put_double = _storer(ir.DoubleType(), types.float64)
"""A float64."""
get_index = _loader(ir.IntType(64), types.int64)
"""An int64."""
put_index = _storer(ir.IntType(64), types.int64)
"""An int64."""
get_id = _loader(ir.IntType(32), types.int32)
"""An int32."""
put_id = _storer(ir.IntType(32), types.int32)
"""An int32."""


get_byte = _loader(ir.IntType(8), types.int8)
"""An int8."""


@instruction
def move(_context: Any, to: Any, source: Any, size: Any) -> Any:
    """Copy ``size`` bytes to one address from another."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        into, of = (builder.inttoptr(address, pointer) for address in arguments[:2])
        copy: Any = cgutils.raw_memcpy
        copy(builder, into, of, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate
