"""Rows of clients that are trained in sample space, and what they make: updates, and their sums.

A row is a step's record: its inputs to each layer and its gradients. The update of a client is
``inputs.T @ gradients`` of its rows, and so is the sum of many, see
`simulation.executors.compiled.sample_space`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.loops import (
    add_number,
    add_on_grid,
    add_rows,
    dot,
    fill,
    fill_doubles,
    put_sum,
)
from simulation.executors.compiled.memory import get_index
from simulation.executors.compiled.network import Network
from simulation.executors.compiled.products import add_outer, grid_tile, multiply_transposed
from simulation.executors.compiled.tiles import ROWS, TILE


class Samples(NamedTuple):
    """Addresses: rows of the clients that are summed next, and work space of the one in training.

    Attributes:
        inputs: For each level, of rows: what the layer above takes, one row a step and record.
        gradients: For each level, of the same rows: times the task's weight once it is trained.
        at_base: For each level, of a client's records: values at the base version.
        base_sums: A client's records times the first kernel at the base version, before ReLU.
        square: Columns of the two that follow.
        alike: Products of inputs with inputs, one a pair of rows.
        alike_gradients: Products of gradients with gradients.
        labels: Of the records of a client, or of clients of one step.
        step_labels: Of a step's records.
        ends: Of the segments that rows are summed by, int64.
        tile: Room for a tile of `ROWS` times `TILE` float64, then one of zeros.
        capacity: Rows after which those so far are summed.
        segment: Rows of one lane after which they are a segment.
    """

    inputs: NDArray[np.int64]
    gradients: NDArray[np.int64]
    at_base: NDArray[np.int64]
    base_sums: int
    square: int
    alike: int
    alike_gradients: int
    labels: int
    step_labels: int
    ends: int
    tile: int
    capacity: int
    segment: int


@compiled
def samples_of(space: NDArray[np.int64], rooms: NDArray[np.int64]) -> Samples:
    """Sample space, of its numbers and of the addresses of rows by level."""
    return Samples(
        rooms[0], rooms[1], rooms[2], space[0], space[1], space[2], space[3], space[4], space[5],
        space[6], space[7], space[8], space[9],
    )  # fmt: skip


@compiled
def row_at(net: Network, levels: NDArray[np.int64], at: int, row: int) -> int:
    """Address of a level's row."""
    return int(levels[at] + 4 * row * net.levels[at, 1])


class Waiting(NamedTuple):
    """Rows of a group that are trained and not yet in its sum.

    Attributes:
        rows: How many.
        segments: Into how many they are cut.
        is_summed: Whether there is a sum already, of others of the group.
    """

    rows: int
    segments: int
    is_summed: bool


@compiled
def clear_rows(net: Network, space: Samples, begin: int, rows: int) -> None:
    """Leave nothing of a client whose numbers may not be finite: padding must stay zero."""
    for at in range(1, net.top + 1):
        columns = net.levels[at, 1]
        fill(space.gradients[at] + 4 * begin * columns, 0.0, (rows + 4) * columns)


@compiled
def squared_norm(net: Network, space: Samples, begin: int, rows: int) -> float:
    """Of the update that some rows make: ``|A.T @ D|**2`` is the sum of ``(A @ A.T) (D @ D.T)``."""
    square, squared = space.square, 0.0
    for at in range(net.top):
        inputs = row_at(net, space.inputs, at, begin)
        gradients = row_at(net, space.gradients, at + 1, begin)
        columns, below = net.levels[at + 1, 1], net.levels[at, 1]
        multiply_transposed(space.alike, square, inputs, below, inputs, rows, rows)
        add_number(space.alike, 1.0, rows * square)
        multiply_transposed(
            space.alike_gradients, square, gradients, columns, gradients, rows, rows
        )
        for i in range(rows):
            row = 4 * i * square
            squared += dot(space.alike + row, space.alike_gradients + row, rows)
    return 0.0 if squared < 0.0 else squared  # NaN stays


@compiled
def write_update(net: Network, space: Samples, rows: int) -> None:
    """The update that the first ``rows`` make, into the local buffers."""
    for at in range(net.top):
        layer, columns = net.layers[at], net.levels[at + 1, 1]
        kernel, bias = net.local + 4 * layer[0], net.local + 4 * layer[1]
        fill(bias, 0.0, columns)
        add_outer(
            kernel, bias, 0, columns, space.inputs[at], net.levels[at, 1], layer[4],
            space.gradients[at + 1], rows,
        )  # fmt: skip
        add_rows(bias, space.gradients[at + 1], columns, rows)


@compiled
def add_rows_on_grid(
    net: Network, space: Samples, segments: int, total: int, is_summed: bool
) -> None:
    """Add the sums of all segments to a sum, in wire order.

    Segments are taken so many at a time that a tile's columns of their gradients stay in the
    nearest cache; the tile is summed over them there, and then goes to the sum.

    Args:
        is_summed: Whether there is a sum to add to; else it is written.
    """
    first = 0
    while first < segments:
        begin, last = _end_of(space, first), first + 1
        while last < segments and _end_of(space, last + 1) - begin <= space.segment:
            last += 1
        for at in range(net.top):
            layer, bias = net.layers[at], net.local + 4 * net.layers[at, 1]
            wire, outputs, inputs = total + 8 * layer[7], layer[5], layer[4]
            for j in range(0, outputs, TILE):
                for i in range(0, inputs, ROWS):
                    _sum_tile(net, space, at, first, last, i, j)
                    for n in range(min(ROWS, inputs - i)):
                        to, of_tile = wire + 8 * ((i + n) * outputs + j), space.tile + 8 * TILE * n
                        put_sum(to, of_tile, min(TILE, outputs - j), is_summed)
            wire += 8 * inputs * outputs
            if not is_summed:
                fill_doubles(wire, 0.0, outputs)
            for segment in range(first, last):
                row, end = _end_of(space, segment), _end_of(space, segment + 1)
                fill(bias, 0.0, layer[3])
                add_rows(bias, row_at(net, space.gradients, at + 1, row), layer[3], end - row)
                add_on_grid(wire, bias, 1.0, outputs)
        first, is_summed = last, True


@compiled
def _end_of(space: Samples, segments: int) -> int:
    """Rows of the first segments."""
    return int(get_index(space.ends, segments - 1)) if segments > 0 else 0


@compiled
def _sum_tile(net: Network, space: Samples, at: int, first: int, last: int, i: int, j: int) -> None:
    """Sum a tile of a layer's kernel over segments ``first`` to ``last``, on the grid."""
    below, columns = net.levels[at, 1], net.levels[at + 1, 1]
    start, width = space.tile + 8 * ROWS * TILE, min(TILE, columns - j)
    for segment in range(first, last):
        row, end = _end_of(space, segment), _end_of(space, segment + 1)
        grid_tile(
            width, space.tile, start, row_at(net, space.inputs, at, row) + 4 * i, below,
            row_at(net, space.gradients, at + 1, row) + 4 * j, columns, end - row,
        )  # fmt: skip
        start = space.tile
