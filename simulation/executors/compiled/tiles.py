"""Small matrix products held in registers, written as LLVM instructions.

Every product of a training step is cut into these (`simulation.executors.compiled.products`). They
are what a BLAS has at its core; a BLAS call at the sizes of a mobile model spends a third to a half
of its time around it (measured: 65 to 75 GFLOP/s of 118 for 20 x 256 x 512, against 110 here).

An element of `fma_tile`'s output is summed in the order of ``k``, one fused multiply-add each, so
it does not depend on the tile it falls in, nor on the width of the processor's vectors.
"""

# ruff: noqa: ANN401, ARG001 - what Numba calls by its own types names arguments it does not use

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from simulation.executors.compiled.compiling import instruction
from simulation.executors.grid_sum import TO_GRID

LANES = 16
"""Floats a vector. Narrower processors take it in two or four."""
ROWS = 4
"""Rows a tile."""
TILE = 4 * LANES
"""Columns of the widest tile."""

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_HALF = LANES // 2
_DOUBLES = ir.VectorType(ir.DoubleType(), _HALF)
_VECTOR_BYTES = 4 * LANES


def _number(value: int) -> Any:
    return ir.Constant(_INT, value)


class _Emitter:
    """Instructions of one function."""

    def __init__(self, module: Any, name: str, arguments: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [_INT] * arguments)
        self.function = ir.Function(module, kind, name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.build = ir.IRBuilder(self.function.append_basic_block("entry"))
        fma = f"llvm.fma.v{LANES}f32"
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self._fma = module.globals.get(fma) or ir.Function(module, kind, fma)

    def at(self, address: Any, *offsets: Any) -> Any:
        for offset in offsets:
            address = self.build.add(address, offset)
        return address

    def times(self, stride: Any, count: int) -> Any:
        return self.build.mul(stride, _number(count))

    def load(self, address: Any, kind: Any = _VECTOR) -> Any:
        pointer = self.build.inttoptr(address, kind.as_pointer())
        return self.build.load(pointer, align=4)

    def store(self, value: Any, address: Any) -> None:
        pointer = self.build.inttoptr(address, value.type.as_pointer())
        self.build.store(value, pointer, align=4)

    def repeat(self, number: Any) -> Any:
        """A vector of one number."""
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        first = self.build.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.lanes(first, nothing, [0] * LANES)

    def lanes(self, low: Any, high: Any, chosen: list[int]) -> Any:
        """Lanes of two vectors, those of the second counted on."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen)
        return self.build.shuffle_vector(low, high, mask)

    def fma(self, left: Any, right: Any, sum_: Any) -> Any:
        return self.build.call(self._fma, [left, right, sum_])

    def loop(
        self,
        count: Any,
        start: list[Any],
        body: Callable[[Any, list[Any]], list[Any]],
    ) -> list[Any]:
        """``for i in range(count): values = body(i, values)``; ``count`` is at least 1."""
        before, inside = self.build.block, self.function.append_basic_block("loop")
        after = self.function.append_basic_block("after")
        self.build.branch(inside)
        self.build.position_at_end(inside)
        index = self.build.phi(_INT)
        index.add_incoming(_number(0), before)
        values = [self.build.phi(value.type) for value in start]
        for phi, value in zip(values, start, strict=True):
            phi.add_incoming(value, before)
        changed = body(index, values)
        following = self.build.add(index, _number(1))
        index.add_incoming(following, inside)
        for phi, value in zip(values, changed, strict=True):
            phi.add_incoming(value, inside)
        self.build.cbranch(self.build.icmp_signed("<", following, count), inside, after)
        self.build.position_at_end(after)
        return changed


def _emit_fma_tile(module: Any, vectors: int) -> Any:
    name = f"flint.fma_tile.{vectors}"
    if name in module.globals:
        return module.globals[name]
    emit = _Emitter(module, name, 10)
    out, out_row, start, start_row, a, a_row, a_column, b, b_row, count = emit.function.args
    places = [(i, v) for i in range(ROWS) for v in range(vectors)]
    sums = [
        emit.load(emit.at(start, emit.times(start_row, i), _number(v * _VECTOR_BYTES)))
        for i, v in places
    ]
    sums = _accumulated(emit, vectors, sums, a, a_row, a_column, b, b_row, count)
    for total, (i, v) in zip(sums, places, strict=True):
        emit.store(total, emit.at(out, emit.times(out_row, i), _number(v * _VECTOR_BYTES)))
    emit.build.ret_void()
    return emit.function


def _emit_grid_tile(module: Any, vectors: int) -> Any:
    name = f"flint.grid_tile.{vectors}"
    if name in module.globals:
        return module.globals[name]
    emit = _Emitter(module, name, 8)
    out, start, a, a_row, a_column, b, b_row, count = emit.function.args
    places = [(i, v) for i in range(ROWS) for v in range(vectors)]
    zeros = [ir.Constant(_VECTOR, [0.0] * LANES) for _ in places]
    sums = _accumulated(emit, vectors, zeros, a, a_row, a_column, b, b_row, count)
    grid = ir.Constant(_DOUBLES, [TO_GRID] * _HALF)
    for total, (i, v) in zip(sums, places, strict=True):
        for half in range(2):
            floats = emit.lanes(total, total, list(range(half * _HALF, (half + 1) * _HALF)))
            term = emit.build.fpext(floats, _DOUBLES)
            term = emit.build.fsub(emit.build.fadd(term, grid), grid)
            place = _number(8 * (i * TILE + v * LANES + half * _HALF))
            before = emit.load(emit.at(start, place), _DOUBLES)
            emit.store(emit.build.fadd(before, term), emit.at(out, place))
    emit.build.ret_void()
    return emit.function


def _accumulated(
    emit: _Emitter,
    vectors: int,
    start: list[Any],
    a: Any,
    a_row: Any,
    a_column: Any,
    b: Any,
    b_row: Any,
    count: Any,
) -> list[Any]:
    """Sums of a tile, in registers: ``start`` and a product."""
    rows = [emit.at(a, emit.times(a_row, i)) for i in range(ROWS)]

    def accumulate(_: Any, values: list[Any]) -> list[Any]:
        of_a, of_b, *sums = values
        right = [emit.load(emit.at(of_b, _number(v * _VECTOR_BYTES))) for v in range(vectors)]
        left = [emit.repeat(emit.load(emit.at(row, of_a), _FLOAT)) for row in rows]
        places = [(i, v) for i in range(ROWS) for v in range(vectors)]
        added = [emit.fma(left[i], right[v], sums[n]) for n, (i, v) in enumerate(places)]
        return [emit.at(of_a, a_column), emit.at(of_b, b_row), *added]

    _, _, *sums = emit.loop(count, [_number(0), b, *start], accumulate)
    return sums


def _emit_dot_tile(module: Any) -> Any:
    name = "flint.dot_tile"
    if name in module.globals:
        return module.globals[name]
    emit = _Emitter(module, name, 7)
    out, out_row, a, a_row, b, b_row, count = emit.function.args
    rows_a = [emit.at(a, emit.times(a_row, i)) for i in range(ROWS)]
    rows_b = [emit.at(b, emit.times(b_row, i)) for i in range(ROWS)]

    def accumulate(index: Any, sums: list[Any]) -> list[Any]:
        here = emit.times(index, _VECTOR_BYTES)
        left = [emit.load(emit.at(row, here)) for row in rows_a]
        right = [emit.load(emit.at(row, here)) for row in rows_b]
        products = [(x, y) for x in left for y in right]
        return [emit.fma(x, y, total) for (x, y), total in zip(products, sums, strict=True)]

    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    sums = emit.loop(count, [zero] * LANES, accumulate)
    # Neighbouring lanes of neighbouring vectors are added until lane i is the sum of vector i.
    even, odd = list(range(0, 2 * LANES, 2)), list(range(1, 2 * LANES, 2))
    while len(sums) > 1:
        sums = [
            emit.build.fadd(emit.lanes(low, high, even), emit.lanes(low, high, odd))
            for low, high in zip(sums[::2], sums[1::2], strict=True)
        ]
    for i in range(ROWS):
        row = emit.lanes(sums[0], sums[0], list(range(i * ROWS, (i + 1) * ROWS)))
        emit.store(row, emit.at(out, emit.times(out_row, i)))
    emit.build.ret_void()
    return emit.function


def _fma_tile(vectors: int) -> Any:
    @instruction
    def fma_tile(
        _context: Any,
        out: Any,
        out_row: Any,
        start: Any,
        start_row: Any,
        a: Any,
        a_row: Any,
        a_column: Any,
        b: Any,
        b_row: Any,
        count: Any,
    ) -> Any:
        """``out[i, j] = start[i, j] + sum over k < count of a[i, k] * b[k, j]``.

        Addresses and strides in bytes; ``i`` below `ROWS`, ``j`` below the tile's columns. The
        stride of ``a``'s columns is free, so ``a`` may be a transpose; ``start`` may be ``out``.
        """

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            builder.call(_emit_fma_tile(builder.module, vectors), arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), generate

    return fma_tile


def _grid_tile(vectors: int) -> Any:
    @instruction
    def grid_tile(
        _context: Any,
        out: Any,
        start: Any,
        a: Any,
        a_row: Any,
        a_column: Any,
        b: Any,
        b_row: Any,
        count: Any,
    ) -> Any:
        """``out[i, j] = start[i, j] +`` what `fma_tile` gives, rounded to the grid, in float64.

        See `simulation.executors.grid_sum`. ``out`` and ``start``, which may be the same, have
        rows of `TILE` float64.
        """

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            builder.call(_emit_grid_tile(builder.module, vectors), arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return grid_tile


grid_tile_1, grid_tile_2, grid_tile_3, grid_tile_4 = (
    _grid_tile(vectors) for vectors in (1, 2, 3, 4)
)
fma_tile_1, fma_tile_2, fma_tile_3, fma_tile_4 = (_fma_tile(vectors) for vectors in (1, 2, 3, 4))


@instruction
def dot_tile(
    _context: Any, out: Any, out_row: Any, a: Any, a_row: Any, b: Any, b_row: Any, count: Any
) -> Any:
    """``out[i, j] = sum over k < count * LANES of a[i, k] * b[j, k]``; i and j below `ROWS`."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        builder.call(_emit_dot_tile(builder.module), arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate
