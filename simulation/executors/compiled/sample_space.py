"""Local SGD without local weights: a client's weights are the base's and what its steps left.

After some steps a kernel is ``W0 + A.T @ D``, of the inputs ``A`` of all records stepped on so far
and their gradients ``D`` (times minus the learning rate over the batch). So a product with it is
one with ``W0``, the same for every client and always in cache, and one with the small matrix
``X @ A.T``: the dual form of a linear layer's training (Irie et al., ICML 2022, section 2). Each
client costs memory for its records only, its losses need no second pass through the first layer,
and the updates of many clients are summed by one product, ``A.T @ (c D)`` over the rows of all.
A client of one step is the case without history: many of those are one large batch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.clients import (
    Clients,
    Outcomes,
    Plan,
    add_update,
    is_summable,
    order_of,
)
from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.loops import (
    add_number,
    add_rows,
    cut_off_negative,
    dot,
    fill,
    gather,
    logit_gradient,
    loss,
    mask,
    multiply,
)
from simulation.executors.compiled.memory import move
from simulation.executors.compiled.network import Network
from simulation.executors.compiled.products import (
    add_outer,
    add_product,
    affine,
    multiply_transposed,
)


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
        labels: Of a client's records.
    """

    inputs: NDArray[np.int64]
    gradients: NDArray[np.int64]
    at_base: NDArray[np.int64]
    base_sums: int
    square: int
    alike: int
    alike_gradients: int
    labels: int


@entry
def sum_samples(
    net: Network,
    space: Samples,
    plan: Plan,
    clients: Clients,
    group_rows: int,
    limit: float,
    total: int,
    found: Outcomes,
) -> None:
    """Train all tasks and add their updates up, but for those that are not finite.

    Args:
        group_rows: After so many rows, those of all clients so far are summed.
        limit: See `clients.sum_clients`.
        total: See `clients.sum_clients`.
    """
    filled = 0
    for n in range(len(clients.records)):
        rows = _train_in_samples(net, space, plan, clients, n, filled, found)
        if total == 0:
            _write_update(net, space, rows)
        if total != 0 and is_summable(clients, found, n, limit):
            _scale(net, space, filled, rows, clients.weight[n])
            filled += rows
        else:
            _clear(net, space, filled, rows)
        if filled > 0 and (filled >= group_rows or n == len(clients.records) - 1):
            _write_update(net, space, filled)
            add_update(net, 0, 1.0, total)
            filled = 0


@compiled
def _train_in_samples(
    net: Network, space: Samples, plan: Plan, clients: Clients, n: int, begin: int, found: Outcomes
) -> int:
    """Train task ``n`` into the rows from ``begin``; returns how many it has.

    Its update is then ``inputs.T @ gradients`` of these rows.
    """
    count, rate = clients.records[n], clients.rate[n]
    keep = 1.0 - rate * plan.proximal_mu if plan.proximal_mu > 0.0 else 1.0
    found.diverged[n], found.used[n] = 0, 0
    found.loss_before[n] = _values_at_base(net, space, clients, n) / count
    past, step = 0, 0
    for epoch in range(plan.epochs):
        order_of(net, plan, clients, n, epoch)
        for first in range(0, count, plan.batch):
            size = min(plan.batch, count - first)
            step += 1
            order = net.order + 8 * first
            is_finite = _step(net, space, order, begin, past, size, rate / size)
            if not is_finite and found.diverged[n] == 0:
                found.diverged[n] = step
            if keep != 1.0:
                _scale(net, space, begin, past, keep)
            past += size
    # The rows of the last epoch are all records once; what is alike in them serves both.
    found.loss_after[n] = _loss_after(net, space, begin, past, count, found, n) / count
    return past


@compiled
def _values_at_base(net: Network, space: Samples, clients: Clients, n: int) -> float:
    """Values of a client's records at the base version; returns the sum of their losses."""
    count, width = clients.records[n], net.levels[0, 3]
    for i in range(count):
        into = space.at_base[0] + 4 * i * net.levels[0, 1]
        move(into, clients.x[n] + 4 * width * i, 4 * width)
    move(space.labels, clients.y[n], 4 * count * net.tasks)
    for at in range(net.top):
        layer, columns = net.layers[at], net.levels[at + 1, 1]
        outputs = space.at_base[at + 1]
        affine(
            outputs, columns, space.at_base[at], net.levels[at, 1],
            net.base + 4 * layer[0], layer[4], net.base + 4 * layer[1], count,
        )  # fmt: skip
        if at == 0:
            move(space.base_sums, outputs, 4 * count * columns)
        if layer[6]:
            cut_off_negative(outputs, count * columns)
    columns = net.levels[net.top, 1]
    return loss(space.at_base[net.top], columns, space.labels, net.tasks, count)


@compiled
def _step(
    net: Network, space: Samples, order: int, begin: int, past: int, size: int, rate: float
) -> bool:
    """One step on ``size`` records of the order, into the rows after ``past``.

    Returns:
        Whether all its logits are finite.
    """
    top, row = net.top, begin + past
    gather(net.labels, space.labels, 4 * net.tasks, order, size)
    for at in range(top + 1 if past == 0 else 1):
        row_bytes = 4 * net.levels[at, 1]
        gather(space.inputs[at] + row * row_bytes, space.at_base[at], row_bytes, order, size)
    if past > 0:
        for at in range(top):
            columns = net.levels[at + 1, 1]
            outputs = space.inputs[at + 1] + 4 * row * columns
            inputs = space.inputs[at] + 4 * row * net.levels[at, 1]
            if at == 0:
                gather(outputs, space.base_sums, 4 * columns, order, size)
            else:
                _at_base_parameters(net, at, outputs, inputs, size)
            _add_moved(net, space, at, outputs, inputs, begin, past, size)
            if net.layers[at, 6]:
                cut_off_negative(outputs, size * columns)
    columns = net.levels[top, 1]
    logits = space.inputs[top] + 4 * row * columns
    gradient = space.gradients[top] + 4 * row * columns
    is_finite = logit_gradient(gradient, logits, columns, net.labels, net.tasks, size, rate)
    for at in range(top - 1, 0, -1):
        columns, below_columns = net.levels[at + 1, 1], net.levels[at, 1]
        gradient = space.gradients[at + 1] + 4 * row * columns
        below = space.gradients[at] + 4 * row * below_columns
        kernel, inputs = net.base + 4 * net.layers[at, 0], net.layers[at, 4]
        multiply_transposed(below, below_columns, gradient, columns, kernel, inputs, size)
        if past > 0:
            moved = space.gradients[at + 1] + 4 * begin * columns
            multiply_transposed(space.alike, space.square, gradient, columns, moved, past, size)
            history = space.inputs[at] + 4 * begin * below_columns
            add_product(below, below_columns, space.alike, space.square, history, past, size)
        if net.levels[at, 2]:
            mask(below, space.inputs[at] + 4 * row * below_columns, size * below_columns)
    return is_finite


@compiled
def _at_base_parameters(net: Network, at: int, outputs: int, inputs: int, count: int) -> None:
    layer = net.layers[at]
    affine(
        outputs, net.levels[at + 1, 1], inputs, net.levels[at, 1],
        net.base + 4 * layer[0], layer[4], net.base + 4 * layer[1], count,
    )  # fmt: skip


@compiled
def _add_moved(
    net: Network, space: Samples, at: int, outputs: int, inputs: int, begin: int, past: int,
    count: int,
) -> None:  # fmt: skip
    """Add what the client's rows so far have changed in a layer's outputs.

    A bias is the kernel's row of an input that is always 1.
    """
    columns, below = net.levels[at + 1, 1], net.levels[at, 1]
    history = space.inputs[at] + 4 * begin * below
    multiply_transposed(space.alike, space.square, inputs, below, history, past, count)
    add_number(space.alike, 1.0, count * space.square)
    moved = space.gradients[at + 1] + 4 * begin * columns
    add_product(outputs, columns, space.alike, space.square, moved, past, count)


@compiled
def _loss_after(
    net: Network, space: Samples, begin: int, rows: int, count: int, found: Outcomes, n: int
) -> float:
    """Sum of the records' losses at the local parameters; notes the update's squared norm too."""
    square = space.square
    squared = 0.0
    for at in range(net.top):
        columns, below = net.levels[at + 1, 1], net.levels[at, 1]
        history = space.inputs[at] + 4 * begin * below
        moved = space.gradients[at + 1] + 4 * begin * columns
        multiply_transposed(space.alike, square, history, below, history, rows, rows)
        add_number(space.alike, 1.0, rows * square)
        multiply_transposed(space.alike_gradients, square, moved, columns, moved, rows, rows)
        for i in range(rows):
            squared += dot(
                space.alike + 4 * i * square, space.alike_gradients + 4 * i * square, rows
            )
        outputs = space.at_base[at + 1]
        if at == 0:
            # In the order of the last epoch, as the rows are.
            gather(outputs, space.base_sums, 4 * columns, net.order, count)
            alike = space.alike + 4 * (rows - count) * square
            add_product(outputs, columns, alike, square, moved, rows, count)
        else:
            inputs = space.at_base[at]
            _at_base_parameters(net, at, outputs, inputs, count)
            _add_moved(net, space, at, outputs, inputs, begin, rows, count)
        if net.layers[at, 6]:
            cut_off_negative(outputs, count * columns)
    found.squared_norm[n] = 0.0 if squared < 0.0 else squared  # NaN stays
    gather(net.labels, space.labels, 4 * net.tasks, net.order, count)
    columns = net.levels[net.top, 1]
    return loss(space.at_base[net.top], columns, net.labels, net.tasks, count)


@compiled
def _scale(net: Network, space: Samples, begin: int, rows: int, factor: float) -> None:
    """Multiply the update that some rows make."""
    for at in range(1, net.top + 1):
        columns = net.levels[at, 1]
        multiply(space.gradients[at] + 4 * begin * columns, factor, rows * columns)


@compiled
def _clear(net: Network, space: Samples, begin: int, rows: int) -> None:
    """Leave nothing of a client whose numbers may not be finite: padding must stay zero."""
    for at in range(1, net.top + 1):
        columns = net.levels[at, 1]
        fill(space.gradients[at] + 4 * begin * columns, 0.0, (rows + 4) * columns)


@compiled
def _write_update(net: Network, space: Samples, rows: int) -> None:
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
