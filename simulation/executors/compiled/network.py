"""Forward and backward of one batch through the dense layers, over the padded buffers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.loops import add_rows, cut_off_negative, mask, pull_back
from simulation.executors.compiled.memory import move
from simulation.executors.compiled.products import add_outer, affine, multiply_transposed


class Network(NamedTuple):
    """A model's layout, and addresses of the buffers of the client that is being trained.

    Attributes:
        first: See `Layout.first`.
        top: Number of dense layers, and so of the level of the logits.
        size: Floats of ``base`` and of ``local``.
        tasks: Labels a record.
        slots: See `Layout.slots`.
        bag_bias: Offset of a bag's bias.
        width: Columns of the first layer's table.
        table_rows: Rows of it.
        moved: At most how far the client's parameters are from there, so far: an L2 norm each of
            its table and of each dense layer; then the largest norm of its inputs; float64.
        local: Padded dense parameters of the client.
        values: Of all levels.
        gradients: Of all levels: of the loss times ``-learning_rate / batch``, so that a step is
            an addition.
        labels: Of the batch.
        order: Of the client's records in the epoch, int64.
        drawn: Work space of `shuffles.shuffled`.
        table: The client's rows of the table.
        row_of_id: Row of ``table`` that an id has, or -1, int32.
        used: Id of each row of ``table``, int32.
        rows: Row of ``table`` of each record's slots, or -1, int32.
        layers: `Layer`, one a row.
        levels: `Level`, one a row.
        base: Padded dense parameters of the base version.
        base_table: That table at the base version.
        base_norms: L2 norms of its table and of each dense layer, float64.
    """

    first: int
    top: int
    size: int
    tasks: int
    slots: int
    bag_bias: int
    width: int
    table_rows: int
    moved: int
    local: int
    values: int
    gradients: int
    labels: int
    order: int
    drawn: int
    table: int
    row_of_id: int
    used: int
    rows: int
    layers: NDArray[np.int64]
    levels: NDArray[np.int64]
    base: int
    base_table: int
    base_norms: int


@compiled
def network_of(
    fixed: NDArray[np.int64],
    layers: NDArray[np.int64],
    levels: NDArray[np.int64],
    versions: NDArray[np.int64],
    row: int,
) -> Network:
    """A network at a version.

    Args:
        fixed: The fields before ``layers``.
        versions: Of each, its number and what `Network` has of it, one a row.
    """
    return Network(
        fixed[0], fixed[1], fixed[2], fixed[3], fixed[4], fixed[5], fixed[6], fixed[7], fixed[8],
        fixed[9], fixed[10], fixed[11], fixed[12], fixed[13], fixed[14], fixed[15], fixed[16],
        fixed[17], fixed[18], layers, levels, versions[row, 1],
        versions[row, 2], versions[row, 3],
    )  # fmt: skip


@compiled
def parameters_of(net: Network) -> int:
    """How many there are, in wire order."""
    last = net.layers[net.top - 1]
    return int(last[7] + (last[4] + 1) * last[5])


@compiled
def forward(net: Network, weights: int, count: int) -> None:
    """Values of all levels from those of the first."""
    for at in range(net.top):
        layer, below, above = net.layers[at], net.levels[at], net.levels[at + 1]
        outputs, columns = net.values + 4 * above[0], above[1]
        affine(
            outputs, columns, net.values + 4 * below[0], below[1],
            weights + 4 * layer[0], layer[4], weights + 4 * layer[1], count,
        )  # fmt: skip
        if layer[6]:
            cut_off_negative(outputs, count * columns)


@compiled
def backward(net: Network, source: int, target: int, count: int, pull: float) -> None:
    """A step: ``target`` is ``source`` and what the gradients add.

    At the end the gradients of the first level are known, where a table is below it.

    Args:
        source: Parameters that the values were computed with.
        target: Other parameters, or the same.
        pull: Of FedProx, times the learning rate; subtracts ``pull * (source - base)`` as well.
    """
    for at in range(net.top - 1, -1, -1):
        layer, below, above = net.layers[at], net.levels[at], net.levels[at + 1]
        kernel, bias, columns, inputs = 4 * layer[0], 4 * layer[1], layer[3], layer[4]
        gradient, values = net.gradients + 4 * above[0], net.values + 4 * below[0]
        if at > 0 or net.first > 0:
            through = net.gradients + 4 * below[0]
            multiply_transposed(
                through, below[1], gradient, columns, source + kernel, inputs, count
            )
            if below[2]:
                mask(through, values, count * below[1])
        if pull != 0.0:
            pull_back(source + kernel, net.base + kernel, pull, layer[2] * columns + columns)
        add_outer(
            target + kernel, source + kernel, columns, columns, values, below[1], inputs,
            gradient, count,
        )  # fmt: skip
        if target != source:
            move(target + bias, source + bias, 4 * columns)
        add_rows(target + bias, gradient, columns, count)
