"""Local SGD without local weights: a client's weights are the base's and what its steps left.

After some steps a kernel is ``W0 + A.T @ D``, of the inputs ``A`` of all records stepped on so far
and their gradients ``D`` (times minus the learning rate over the batch). So a product with it is
one with ``W0``, the same for every client and always in cache, and one with the small matrix
``X @ A.T``: the dual form of a linear layer's training (Irie et al., ICML 2022, section 2). Each
client costs memory for its records only, its losses need no second pass through the first layer,
and the updates of many clients are summed by one product, ``A.T @ (c D)`` over the rows of all.
A client of one step is the case without history: many of those are one large batch.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import carray
from numpy.typing import NDArray

from simulation.executors.compiled.clients import (
    Clients,
    Outcomes,
    Plan,
    add_update,
    order_of,
)
from simulation.executors.compiled.compiling import compiled, compiled_reordered, entry
from simulation.executors.compiled.first_layer import pointer
from simulation.executors.compiled.network import (
    Network,
    Vector,
    bias_of,
    cut_off_negative,
    kernel_of,
    logit_gradient,
    loss,
    mask,
)
from simulation.executors.compiled.products import (
    Matrix,
    add_product,
    affine,
    multiply_transposed,
    outer,
)


class Samples(NamedTuple):
    """Rows of the clients whose updates are summed next, and work space of the one in training.

    Attributes:
        offsets: Of each level in ``inputs`` and ``gradients``, int64.
        at_base: Of each level in ``base_values``, int64.
        inputs: Of the layers, one row a step and record.
        gradients: Of the levels, in the same rows; times a task's weight once it is trained.
        base_values: Of all levels for a client's records, at the base version.
        base_sums: Inputs of the first layer times its base kernel, before ReLU, one row a record.
        alike: Products of inputs with inputs, ``(rows, rows)``.
        alike_gradients: Products of gradients with gradients, ``(rows, rows)``.
        labels: Of a client's records, ``(records, tasks)``.
        step_labels: The same in the order of a step.
    """

    offsets: NDArray[np.int64]
    at_base: NDArray[np.int64]
    inputs: Vector
    gradients: Vector
    base_values: Vector
    base_sums: Matrix
    alike: Matrix
    alike_gradients: Matrix
    labels: Matrix
    step_labels: Matrix


@compiled
def _rows(
    net: Network, buffer: Vector, offsets: NDArray[np.int64], at: int, begin: int, count: int
) -> Matrix:
    """Rows of a level, rounded up to whole tiles; what is beyond ``count`` is not of use."""
    columns = net.levels[at, 1]
    first = offsets[at] + begin * columns
    rows = (count + 3) // 4 * 4
    return buffer[first : first + rows * columns].reshape((rows, columns))


@compiled
def train_in_samples(
    net: Network,
    space: Samples,
    plan: Plan,
    clients: Clients,
    n: int,
    order: NDArray[np.int64],
    begin: int,
    found: Outcomes,
) -> int:
    """Train task ``n`` into the rows from ``begin``; returns how many it has.

    Its update is then ``inputs.T @ gradients`` of these rows.
    """
    count, rate = clients.count[n], clients.rate[n]
    keep = 1.0 - rate * plan.proximal_mu
    found.diverged[n], found.used[n] = 0, 0
    found.loss_before[n] = _at_base(net, space, clients, n) / count
    row, step = begin, 0
    for epoch in range(plan.epochs):
        order_of(plan, clients, n, epoch, order)
        for first in range(0, count, plan.batch):
            size = min(plan.batch, count - first)
            step += 1
            is_finite = _step(net, space, order[first:], begin, row, size, rate / size)
            if not is_finite and found.diverged[n] == 0:
                found.diverged[n] = step
            if keep != 1.0 and step > 1:
                _scale(net, space, begin, row - begin, keep)
            row += size
    rows = row - begin
    # The rows of the last epoch are all records once; what is alike in them serves both.
    after, squared = _loss_and_norm(net, space, order, begin, rows, count)
    found.loss_after[n], found.squared_norm[n] = after / count, squared
    return rows


@compiled
def _at_base(net: Network, space: Samples, clients: Clients, n: int) -> float:
    """Values of a client's records at the base version; returns the sum of their losses."""
    count, width, tasks = clients.count[n], net.levels[0, 2], space.labels.shape[1]
    x = carray(pointer(clients.x[n]), (count, width), dtype=np.float32)
    y = carray(pointer(clients.y[n]), (count, tasks), dtype=np.float32)
    inputs = _rows(net, space.base_values, space.at_base, 0, 0, count)
    for i in range(count):
        for j in range(width):
            inputs[i, j] = x[i, j]
        for task in range(tasks):
            space.labels[i, task] = y[i, task]
    for at in range(len(net.layers)):
        kernel, bias = kernel_of(net, net.base, at), bias_of(net, net.base, at)
        outputs = _rows(net, space.base_values, space.at_base, at + 1, 0, count)
        inputs = _rows(net, space.base_values, space.at_base, at, 0, count)
        affine(outputs, inputs, kernel, bias, count)
        if at == 0:
            space.base_sums[:count] = outputs[:count]
        if net.layers[at, 6]:
            cut_off_negative(outputs)
    top = len(net.layers)
    logits = _rows(net, space.base_values, space.at_base, top, 0, count)
    return loss(logits, space.labels, count)


@compiled
def _step(
    net: Network,
    space: Samples,
    chosen: NDArray[np.int64],
    begin: int,
    row: int,
    size: int,
    rate: float,
) -> bool:
    """One step on the chosen records, into the rows from ``row``; returns whether it is finite."""
    top, past = len(net.layers), row - begin
    for i in range(size):
        for task in range(space.labels.shape[1]):
            space.step_labels[i, task] = space.labels[chosen[i], task]
    _gather(net, space, space.inputs, space.base_values, 0, chosen, row, size)
    if past == 0:
        for at in range(1, top + 1):
            _gather(net, space, space.inputs, space.base_values, at, chosen, row, size)
    else:
        for at in range(top):
            inputs = _rows(net, space.inputs, space.offsets, at, row, size)
            outputs = _rows(net, space.inputs, space.offsets, at + 1, row, size)
            if at == 0:
                for i in range(size):
                    outputs[i] = space.base_sums[chosen[i]]
            else:
                kernel, bias = kernel_of(net, net.base, at), bias_of(net, net.base, at)
                affine(outputs, inputs, kernel, bias, size)
            history = _rows(net, space.inputs, space.offsets, at, begin, past)
            multiply_transposed(space.alike, inputs, history, size)
            _add_one(space.alike, size, past)
            moved = _rows(net, space.gradients, space.offsets, at + 1, begin, past)
            add_product(outputs, space.alike, moved, size, past)
            if net.layers[at, 6]:
                cut_off_negative(outputs)
    logits = _rows(net, space.inputs, space.offsets, top, row, size)
    gradient = _rows(net, space.gradients, space.offsets, top, row, size)
    is_finite = logit_gradient(gradient, logits, space.step_labels, size, rate)
    for at in range(top - 1, 0, -1):
        gradient = _rows(net, space.gradients, space.offsets, at + 1, row, size)
        below = _rows(net, space.gradients, space.offsets, at, row, size)
        multiply_transposed(below, gradient, kernel_of(net, net.base, at), size)
        if past > 0:
            moved = _rows(net, space.gradients, space.offsets, at + 1, begin, past)
            multiply_transposed(space.alike, gradient, moved, size)
            history = _rows(net, space.inputs, space.offsets, at, begin, past)
            add_product(below, space.alike, history, size, past)
        if net.layers[at - 1, 6]:
            mask(below, _rows(net, space.inputs, space.offsets, at, row, size))
    return is_finite


@compiled
def _gather(
    net: Network,
    space: Samples,
    into: Vector,
    source: Vector,
    at: int,
    chosen: NDArray[np.int64],
    row: int,
    size: int,
) -> None:
    columns = net.levels[at, 1]
    for i in range(size):
        to = space.offsets[at] + (row + i) * columns
        of = space.at_base[at] + chosen[i] * columns
        into[to : to + columns] = source[of : of + columns]


@compiled
def _add_one(alike: Matrix, rows: int, columns: int) -> None:
    """A bias is the kernel's row of an input that is always 1."""
    for i in range(rows):
        for j in range(columns):
            alike[i, j] += np.float32(1.0)


@compiled
def _loss_and_norm(
    net: Network, space: Samples, order: NDArray[np.int64], begin: int, rows: int, count: int
) -> tuple[float, float]:
    """Sum of the records' losses at the local parameters, and the squared norm of the update."""
    top = len(net.layers)
    last = begin + rows - count
    squared = 0.0
    for at in range(top):
        history = _rows(net, space.inputs, space.offsets, at, begin, rows)
        moved = _rows(net, space.gradients, space.offsets, at + 1, begin, rows)
        multiply_transposed(space.alike, history, history, rows)
        multiply_transposed(space.alike_gradients, moved, moved, rows)
        _add_one(space.alike, rows, rows)
        squared += _sum_of_products(space.alike, space.alike_gradients, rows)

        inputs = _rows(net, space.base_values, space.at_base, at, 0, count)
        outputs = _rows(net, space.base_values, space.at_base, at + 1, 0, count)
        if at == 0:
            for i in range(count):
                outputs[i] = space.base_sums[order[i]]
            alike = space.alike[rows - count : rows]
        else:
            affine(outputs, inputs, kernel_of(net, net.base, at), bias_of(net, net.base, at), count)
            multiply_transposed(space.alike, inputs, history, count)
            _add_one(space.alike, count, rows)
            alike = space.alike[:count]
        add_product(outputs, alike, moved, count, rows)
        if net.layers[at, 6]:
            cut_off_negative(outputs)
    for i in range(count):
        for task in range(space.labels.shape[1]):
            space.step_labels[i, task] = space.labels[order[i], task]
    logits = _rows(net, space.base_values, space.at_base, top, 0, count)
    return loss(logits, space.step_labels, count), squared


@compiled_reordered
def _sum_of_products(left: Matrix, right: Matrix, rows: int) -> float:
    total = 0.0
    for i in range(rows):
        for j in range(rows):
            total += np.float64(left[i, j]) * np.float64(right[i, j])
    return max(total, 0.0)


@compiled
def _scale(net: Network, space: Samples, begin: int, rows: int, by: float) -> None:
    """Multiply the update in these rows."""
    factor = np.float32(by)
    for at in range(1, len(net.layers) + 1):
        gradient = _rows(net, space.gradients, space.offsets, at, begin, rows)[:rows].ravel()
        for i in range(gradient.size):
            gradient[i] *= factor


@entry
def sum_samples(
    net: Network,
    space: Samples,
    plan: Plan,
    clients: Clients,
    order: NDArray[np.int64],
    group_rows: int,
    limit: float,
    total: NDArray[np.float64],
    found: Outcomes,
) -> None:
    """Train all tasks and add their updates up, but for those that are not finite.

    Args:
        group_rows: After so many rows, those of all clients so far are summed.
        limit: See `clients.sum_clients`.
        total: In wire order, shape ``(parameters,)``; changed in place.
    """
    filled = 0
    for n in range(len(clients.count)):
        rows = train_in_samples(net, space, plan, clients, n, order, filled, found)
        norm = math.sqrt(found.squared_norm[n])
        is_finite = math.isfinite(found.loss_before[n]) and math.isfinite(found.loss_after[n])
        if is_finite and clients.weight[n] * norm <= limit:
            _scale(net, space, filled, rows, clients.weight[n])
            filled += rows
        if filled >= group_rows or (filled > 0 and n == len(clients.count) - 1):
            write_update(net, space, filled)
            add_update(net, 0, 1.0, total)
            filled = 0


@compiled
def write_update(net: Network, space: Samples, rows: int) -> None:
    """The update that the first ``rows`` make, into the network's local parameters."""
    for at in range(len(net.layers)):
        inputs = _rows(net, space.inputs, space.offsets, at, 0, rows)
        gradient = _rows(net, space.gradients, space.offsets, at + 1, 0, rows)
        zeros = bias_of(net, net.local, at)
        zeros[:] = np.float32(0.0)
        outer(kernel_of(net, net.local, at), zeros, inputs, gradient, rows)
        for i in range(rows):
            for j in range(zeros.shape[1]):
                zeros[0, j] += gradient[i, j]
