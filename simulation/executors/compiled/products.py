"""The matrix products of a training step, over padded row-major float32 arrays.

Rows come in multiples of `ROWS` and columns in multiples of `LANES`, the padding zero: no product
has a remainder to treat apart.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.tiles import (
    LANES,
    ROWS,
    TILE,
    dot_tile,
    fma_tile_1,
    fma_tile_2,
    fma_tile_3,
    fma_tile_4,
)

_DEPTH = 128
"""Terms summed at a time: so much of a tile's columns of ``b`` stays in the first-level cache."""

Matrix = NDArray[np.float32]


@compiled
def _product(  # noqa: PLR0913 - addresses and strides, in bytes
    out: int, out_row: int, start: int, start_row: int, a: int, a_row: int, a_column: int,
    b: int, b_row: int, rows: int, depth: int, columns: int,
) -> None:  # fmt: skip
    """``out = start + a @ b``; ``depth`` is at least 1."""
    for k in range(0, depth, _DEPTH):
        terms = min(_DEPTH, depth - k)
        for j in range(0, columns, TILE):
            width = min(TILE, columns - j)
            right = b + k * b_row + 4 * j
            for i in range(0, rows, ROWS):
                into = out + i * out_row + 4 * j
                left = a + i * a_row + k * a_column
                begin, begin_row = into, out_row
                if k == 0:
                    begin, begin_row = start + i * start_row + 4 * j, start_row
                if width == TILE:
                    fma_tile_4(
                        into, out_row, begin, begin_row, left, a_row, a_column, right, b_row, terms
                    )
                elif width == 3 * LANES:
                    fma_tile_3(
                        into, out_row, begin, begin_row, left, a_row, a_column, right, b_row, terms
                    )
                elif width == 2 * LANES:
                    fma_tile_2(
                        into, out_row, begin, begin_row, left, a_row, a_column, right, b_row, terms
                    )
                else:
                    fma_tile_1(
                        into, out_row, begin, begin_row, left, a_row, a_column, right, b_row, terms
                    )


@compiled
def affine(out: Matrix, x: Matrix, kernel: Matrix, bias: Matrix, rows: int) -> None:
    """``out = x @ kernel + bias`` over the first ``rows``, rounded up to whole tiles.

    Args:
        out: Shape ``(rows, columns)``.
        x: Shape ``(rows, at least inputs)``.
        kernel: Shape ``(inputs, columns)``.
        bias: Shape ``(1, columns)``.
    """
    _product(
        out.ctypes.data, out.strides[0], bias.ctypes.data, 0, x.ctypes.data, x.strides[0], 4,
        kernel.ctypes.data, kernel.strides[0], rows, kernel.shape[0], out.shape[1],
    )  # fmt: skip


@compiled
def add_outer(out: Matrix, start: Matrix, x: Matrix, gradient: Matrix, rows: int) -> None:
    """``out = start + x[:rows].T @ gradient[:rows]``, a gradient step; ``start`` may be ``out``.

    Args:
        out: Shape ``(inputs, columns)``.
        start: Shape ``(inputs, columns)``.
        x: Shape ``(rows, at least inputs rounded up to whole tiles)``.
        gradient: Shape ``(rows, columns)``.
    """
    _product(
        out.ctypes.data, out.strides[0], start.ctypes.data, start.strides[0],
        x.ctypes.data, 4, x.strides[0], gradient.ctypes.data, gradient.strides[0],
        out.shape[0], rows, gradient.shape[1],
    )  # fmt: skip


@compiled
def add_product(out: Matrix, left: Matrix, right: Matrix, rows: int, depth: int) -> None:
    """``out += left[:, :depth] @ right[:depth]`` over the first ``rows``, as `affine` rounds them.

    Args:
        out: Shape ``(rows, columns)``.
        left: Shape ``(rows, at least depth)``.
        right: Shape ``(at least depth, columns)``.
    """
    _product(
        out.ctypes.data, out.strides[0], out.ctypes.data, out.strides[0],
        left.ctypes.data, left.strides[0], 4, right.ctypes.data, right.strides[0],
        rows, depth, out.shape[1],
    )  # fmt: skip


@compiled
def outer(out: Matrix, zeros: Matrix, x: Matrix, gradient: Matrix, rows: int) -> None:
    """``out = x[:rows].T @ gradient[:rows]``; see `add_outer`.

    Args:
        zeros: Shape ``(1, columns)``.
    """
    _product(
        out.ctypes.data, out.strides[0], zeros.ctypes.data, 0,
        x.ctypes.data, 4, x.strides[0], gradient.ctypes.data, gradient.strides[0],
        out.shape[0], rows, gradient.shape[1],
    )  # fmt: skip


@compiled
def multiply_transposed(out: Matrix, gradient: Matrix, kernel: Matrix, rows: int) -> None:
    """``out = gradient @ kernel.T`` over the first ``rows``, rounded up to whole tiles.

    Args:
        out: Shape ``(rows, at least inputs rounded up to whole tiles)``.
        gradient: Shape ``(rows, columns)``.
        kernel: Shape ``(inputs, columns)``.
    """
    vectors = kernel.shape[1] // LANES
    for k in range(0, kernel.shape[0], ROWS):
        for i in range(0, rows, ROWS):
            dot_tile(
                out.ctypes.data + i * out.strides[0] + 4 * k, out.strides[0],
                gradient.ctypes.data + i * gradient.strides[0], gradient.strides[0],
                kernel.ctypes.data + k * kernel.strides[0], kernel.strides[0], vectors,
            )  # fmt: skip
