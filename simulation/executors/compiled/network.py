"""Forward and backward of one batch through the dense layers, over the padded buffers."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.products import (
    Matrix,
    add_outer,
    affine,
    multiply_transposed,
)

Vector = NDArray[np.float32]


class Network(NamedTuple):
    """A model's layout and the buffers of the client that is being trained.

    Attributes:
        first: See `Layout.first`.
        layers: `Layer`, one a row, int64.
        levels: `Level`, one a row, int64.
        bag_bias: See `Layout.bag_bias`.
        slots: See `Layout.slots`.
        base: Padded dense parameters of the base version.
        local: Padded dense parameters of the client.
        values: Of all levels.
        gradients: Of all levels: of the loss times ``-learning_rate / batch``, so that a step is
            an addition.
        base_table: The first layer's table at the base version, ``(table rows, table width)``.
        table: The client's rows of it, ``(rows it can use, table width)``.
        row_of_id: Row of ``table`` that an id has, or -1, int32, ``(table rows,)``.
        used: Id of each row of ``table``, int32.
        rows: Row of ``table`` of each record's slots, or -1, int32, ``(records, slots)``.
        labels: Of the batch, ``(capacity, tasks)``.
    """

    first: int
    layers: NDArray[np.int64]
    levels: NDArray[np.int64]
    bag_bias: int
    slots: int
    base: Vector
    local: Vector
    values: Vector
    gradients: Vector
    base_table: Matrix
    table: Matrix
    row_of_id: NDArray[np.int32]
    used: NDArray[np.int32]
    rows: NDArray[np.int32]
    labels: Matrix


@compiled
def level(net: Network, buffer: Vector, at: int, count: int) -> Matrix:
    """Values or gradients between layers ``at - 1`` and ``at``, rows rounded up to whole tiles."""
    offset, columns = net.levels[at, 0], net.levels[at, 1]
    rows = (count + 3) // 4 * 4
    return buffer[offset : offset + rows * columns].reshape((rows, columns))


@compiled
def kernel_of(net: Network, weights: Vector, at: int) -> Matrix:
    """A dense layer's padded kernel."""
    begin, end = net.layers[at, 0], net.layers[at, 1]
    return weights[begin:end].reshape((net.layers[at, 2], net.layers[at, 3]))


@compiled
def bias_of(net: Network, weights: Vector, at: int) -> Matrix:
    """A dense layer's padded bias, shape ``(1, columns)``."""
    begin, columns = net.layers[at, 1], net.layers[at, 3]
    return weights[begin : begin + columns].reshape((1, columns))


@compiled
def forward(net: Network, weights: Vector, count: int) -> None:
    """Values of all levels from those of the first."""
    for at in range(len(net.layers)):
        outputs = level(net, net.values, at + 1, count)
        inputs = level(net, net.values, at, count)
        affine(outputs, inputs, kernel_of(net, weights, at), bias_of(net, weights, at), count)
        if net.layers[at, 6]:
            cut_off_negative(outputs)


@compiled
def cut_off_negative(values: Matrix) -> None:
    """ReLU in place; NaN stays."""
    flat = values.ravel()
    for i in range(flat.size):
        flat[i] = np.float32(0.0) if flat[i] < np.float32(0.0) else flat[i]


@compiled
def loss(logits: Matrix, labels: Matrix, count: int) -> float:
    """Sum over ``count`` records and their tasks of ``log(1 + exp(z)) - y z``."""
    total = 0.0
    for i in range(count):
        for task in range(labels.shape[1]):
            z = np.float64(logits[i, task])
            total += max(z, 0.0) - labels[i, task] * z + math.log1p(math.exp(-abs(z)))
    return total


@compiled
def logit_gradient(
    gradient: Matrix, logits: Matrix, labels: Matrix, count: int, rate: float
) -> bool:
    """Write ``rate * (y - sigmoid(z))``; returns whether every logit is a finite number."""
    is_finite = True
    for i in range(count):
        for task in range(labels.shape[1]):
            z = logits[i, task]
            is_finite = is_finite and math.isfinite(z)
            sigmoid = 1.0 / (1.0 + math.exp(-np.float64(z)))
            gradient[i, task] = rate * (labels[i, task] - sigmoid)
    return is_finite


@compiled
def backward(net: Network, source: Vector, target: Vector, count: int, pull: float) -> None:
    """A step: ``target`` is ``source`` and what the gradients add; at the end those of the first
    level are known, where a table is below it.

    Args:
        source: Parameters that the values were computed with.
        target: Another buffer, or the same.
        pull: Of FedProx, times the learning rate; subtracts ``pull * (source - base)`` as well.
    """
    for at in range(len(net.layers) - 1, -1, -1):
        gradient = level(net, net.gradients, at + 1, count)
        values = level(net, net.values, at, count)
        kernel, bias = kernel_of(net, source, at), bias_of(net, source, at)
        if at > 0 or net.first > 0:
            below = level(net, net.gradients, at, count)
            multiply_transposed(below, gradient, kernel, count)
            if (at > 0 and net.layers[at - 1, 6]) or (at == 0 and net.first == 1):
                mask(below, values)
        if pull != 0.0:
            pull_back(kernel, kernel_of(net, net.base, at), pull)
            pull_back(bias, bias_of(net, net.base, at), pull)
        add_outer(kernel_of(net, target, at), kernel, values, gradient, count)
        add_rows(bias_of(net, target, at), bias, gradient, count)


@compiled
def mask(gradient: Matrix, values: Matrix) -> None:
    """Nothing goes back through what ReLU cut off."""
    of_gradient, of_values = gradient.ravel(), values.ravel()
    for i in range(of_gradient.size):
        of_gradient[i] = of_gradient[i] if of_values[i] > np.float32(0.0) else np.float32(0.0)


@compiled
def pull_back(weights: Matrix, base: Matrix, pull: float) -> None:
    """FedProx (Li et al., MLSys 2020): ``weights -= pull * (weights - base)``."""
    strength = np.float32(pull)
    of_weights, of_base = weights.ravel(), base.ravel()
    for i in range(of_weights.size):
        of_weights[i] -= strength * (of_weights[i] - of_base[i])


@compiled
def add_rows(target: Matrix, source: Matrix, gradient: Matrix, count: int) -> None:
    """``target = source + gradient[:count].sum(0)``, a bias' step."""
    for j in range(target.shape[1]):
        target[0, j] = source[0, j]
    for i in range(count):
        for j in range(target.shape[1]):
            target[0, j] += gradient[i, j]
