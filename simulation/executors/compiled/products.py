"""The matrix products of a training step, over padded row-major float32 arrays.

Matrices are given by address and, where rows are further apart than they are long, columns. Columns
come in multiples of `LANES`, zero where they are padding, and a buffer has room for rows up to the
next multiple of `ROWS`, written or read without effect: no product has a remainder to treat apart.
"""

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
    grid_tile_1,
    grid_tile_2,
    grid_tile_3,
    grid_tile_4,
)

_DEPTH = 128
"""Terms summed at a time: so much of a tile's columns of ``b`` stays in the first-level cache."""


@compiled
def _product(
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
                _tile(
                    width, into, out_row, begin, begin_row, left, a_row, a_column, right, b_row,
                    terms,
                )  # fmt: skip


@compiled
def _tile(
    width: int, out: int, out_row: int, start: int, start_row: int, a: int, a_row: int,
    a_column: int, b: int, b_row: int, terms: int,
) -> None:  # fmt: skip
    """`fma_tile` of ``width`` columns."""
    if width == TILE:
        fma_tile_4(out, out_row, start, start_row, a, a_row, a_column, b, b_row, terms)
    elif width == 3 * LANES:
        fma_tile_3(out, out_row, start, start_row, a, a_row, a_column, b, b_row, terms)
    elif width == 2 * LANES:
        fma_tile_2(out, out_row, start, start_row, a, a_row, a_column, b, b_row, terms)
    else:
        fma_tile_1(out, out_row, start, start_row, a, a_row, a_column, b, b_row, terms)


@compiled
def affine(
    out: int, columns: int, x: int, x_columns: int, kernel: int, inputs: int, bias: int, rows: int
) -> None:
    """``out = x[:, :inputs] @ kernel + bias``.

    Args:
        out: Shape ``(rows, columns)``.
        x: Shape ``(rows, x_columns)``.
        kernel: Shape ``(inputs, columns)``.
        bias: Shape ``(columns,)``.
    """
    row = 4 * columns
    _product(out, row, bias, 0, x, 4 * x_columns, 4, kernel, row, rows, inputs, columns)


@compiled
def add_product(
    out: int, columns: int, left: int, left_columns: int, right: int, depth: int, rows: int
) -> None:
    """``out += left[:, :depth] @ right``.

    Args:
        out: Shape ``(rows, columns)``.
        left: Shape ``(rows, left_columns)``.
        right: Shape ``(depth, columns)``.
    """
    row = 4 * columns
    _product(out, row, out, row, left, 4 * left_columns, 4, right, row, rows, depth, columns)


@compiled
def add_outer(
    out: int, start: int, start_columns: int, columns: int, x: int, x_columns: int, inputs: int,
    gradient: int, rows: int,
) -> None:  # fmt: skip
    """``out = start + x[:, :inputs].T @ gradient``, a gradient step; ``start`` may be ``out``.

    Args:
        out: Shape ``(inputs, columns)``.
        start: Shape ``(inputs, columns)``; or one row for all, if ``start_columns`` is 0.
        x: Shape ``(rows, x_columns)``.
        gradient: Shape ``(rows, columns)``.
    """
    row = 4 * columns
    _product(
        out,
        row,
        start,
        4 * start_columns,
        x,
        4,
        4 * x_columns,
        gradient,
        row,
        inputs,
        rows,
        columns,
    )


@compiled
def grid_tile(
    width: int, out: int, start: int, x: int, x_columns: int, gradient: int, columns: int, rows: int
) -> None:
    """``out = start + x[:, :ROWS].T @ gradient[:, :width]``, on the grid, of a tile.

    Args:
        width: Columns of the tile.
        out: Shape ``(ROWS, TILE)``, float64.
        start: The same, and may be it.
        x: Shape ``(rows, x_columns)``.
        gradient: Shape ``(rows, columns)``.
    """
    step, row = 4 * x_columns, 4 * columns
    if width == TILE:
        grid_tile_4(out, start, x, 4, step, gradient, row, rows)
    elif width == 3 * LANES:
        grid_tile_3(out, start, x, 4, step, gradient, row, rows)
    elif width == 2 * LANES:
        grid_tile_2(out, start, x, 4, step, gradient, row, rows)
    else:
        grid_tile_1(out, start, x, 4, step, gradient, row, rows)


@compiled
def multiply_transposed(
    out: int, out_columns: int, left: int, columns: int, right: int, right_rows: int, rows: int
) -> None:
    """``out[:, :right_rows] = left @ right.T``.

    Args:
        out: Shape ``(rows, out_columns)``.
        left: Shape ``(rows, columns)``.
        right: Shape ``(right_rows, columns)``.
    """
    row = 4 * columns
    for k in range(0, right_rows, ROWS):
        for i in range(0, rows, ROWS):
            into = out + 4 * (i * out_columns + k)
            dot_tile(
                into, 4 * out_columns, left + i * row, row, right + k * row, row, columns // LANES
            )
