"""Local training of clients, one after the other, and the sum of their updates."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import (
    compiled,
    compiled_exactly,
    compiled_reordered,
    entry,
)
from simulation.executors.compiled.first_layer import number_rows, step_table, take
from simulation.executors.compiled.layout import BAG, FEATURES
from simulation.executors.compiled.network import (
    Network,
    backward,
    forward,
    level,
    logit_gradient,
    loss,
)
from simulation.executors.compiled.shuffles import shuffled
from simulation.executors.grid_sum import TO_GRID

_GRID = np.float64(TO_GRID)


class Clients(NamedTuple):
    """Tasks that start from one version: columns of what each trains on, and how.

    Attributes:
        x: Address of its first record, int64.
        y: Address of its first label, int64.
        count: Its records, at least 1.
        rate: Learning rate, float64.
        seed: Of the order of its records, uint64.
        weight: Of its update in the sum, float64.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    count: NDArray[np.int64]
    rate: NDArray[np.float64]
    seed: NDArray[np.uint64]
    weight: NDArray[np.float64]


class Outcomes(NamedTuple):
    """What came of each task.

    Attributes:
        loss_before: Mean over its records at the base version.
        loss_after: The same after the training.
        squared_norm: Of its update.
        diverged: First step whose logits were not finite, from 1; 0 for none.
        used: Rows of the table that its records use.
    """

    loss_before: NDArray[np.float64]
    loss_after: NDArray[np.float64]
    squared_norm: NDArray[np.float64]
    diverged: NDArray[np.int64]
    used: NDArray[np.int64]


class Plan(NamedTuple):
    """What every task does; see `simulation.executors.training.LocalPlan`."""

    epochs: int
    batch: int
    proximal_mu: float


@entry
def train_client(
    net: Network, plan: Plan, clients: Clients, n: int, order: NDArray[np.int64], found: Outcomes
) -> None:
    """Train task ``n``; afterwards the local buffers hold its update.

    The first epoch's batches are seen by the base version from the last to the first: that gives
    the loss before, and leaves the values of the first step where the step needs them.
    """
    x, y, count = clients.x[n], clients.y[n], clients.count[n]
    rate = clients.rate[n]
    pull = rate * plan.proximal_mu
    used = 0 if net.first == FEATURES else number_rows(net, x, count)
    found.used[n] = used
    found.diverged[n] = 0
    before = 0.0
    step = 0
    top = len(net.layers)
    weights = net.base
    for epoch in range(plan.epochs):
        order_of(plan, clients, n, epoch, order)
        if epoch == 0:
            last = (count - 1) // plan.batch * plan.batch
            for begin in range(last, 0, -plan.batch):
                size = min(plan.batch, count - begin)
                take(net, net.base, x, y, order[begin:], size)
                forward(net, net.base, size)
                logits = level(net, net.values, top, size)
                before += loss(logits, net.labels, size)
        for begin in range(0, count, plan.batch):
            size = min(plan.batch, count - begin)
            chosen = order[begin:]
            take(net, weights, x, y, chosen, size)
            forward(net, weights, size)
            logits = level(net, net.values, top, size)
            if step == 0:
                before += loss(logits, net.labels, size)
            step += 1
            gradient = level(net, net.gradients, top, size)
            is_finite = logit_gradient(gradient, logits, net.labels, size, rate / size)
            if not is_finite and found.diverged[n] == 0:
                found.diverged[n] = step
            pull_now = pull if step > 1 else 0.0
            backward(net, weights, net.local, size, pull_now)
            step_table(net, weights, net.local, chosen, size, used, pull_now)
            weights = net.local
    after = 0.0
    for begin in range(0, count, plan.batch):
        size = min(plan.batch, count - begin)
        take(net, net.local, x, y, order[begin:], size)
        forward(net, net.local, size)
        after += loss(level(net, net.values, top, size), net.labels, size)
    found.loss_before[n] = before / count
    found.loss_after[n] = after / count
    found.squared_norm[n] = _subtract_base(net, used)


@compiled
def order_of(
    plan: Plan, clients: Clients, n: int, epoch: int, order: NDArray[np.int64]
) -> None:
    """The epoch's order; of a single batch it does not matter."""
    count = clients.count[n]
    if count > plan.batch:
        shuffled(order, count, clients.seed[n], epoch)
    else:
        for i in range(count):
            order[i] = i


@compiled_reordered
def _subtract_base(net: Network, used: int) -> float:
    """Turn the local parameters into the update; returns its squared norm."""
    total = 0.0
    for i in range(net.local.size):
        change = net.local[i] - net.base[i]
        net.local[i] = change
        total += np.float64(change) * np.float64(change)
    for row in range(used):
        base = net.base_table[net.used[row]]
        local = net.table[row]
        for j in range(local.size):
            change = local[j] - base[j]
            local[j] = change
            total += np.float64(change) * np.float64(change)
    return total


@entry
def sum_clients(
    net: Network,
    plan: Plan,
    clients: Clients,
    order: NDArray[np.int64],
    limit: float,
    total: NDArray[np.float64],
    found: Outcomes,
) -> None:
    """Train all tasks and add their updates up, but for those that are not finite.

    Args:
        limit: Of a weight times a norm; beyond it an update is left out.
        total: In wire order, shape ``(parameters,)``; changed in place.
    """
    for n in range(len(clients.count)):
        train_client(net, plan, clients, n, order, found)
        norm = math.sqrt(found.squared_norm[n])
        is_finite = math.isfinite(found.loss_before[n]) and math.isfinite(found.loss_after[n])
        if is_finite and clients.weight[n] * norm <= limit:
            add_update(net, found.used[n], clients.weight[n], total)


@compiled
def add_update(net: Network, used: int, weight: float, total: NDArray[np.float64]) -> None:
    """``total += weight * update``, on the grid of `simulation.executors.grid_sum`."""
    width = net.base_table.shape[1]
    for row in range(used):
        begin = net.used[row] * width
        _add_to_grid(total[begin : begin + width], net.table[row], weight)
    if net.first == BAG:
        begin = net.base_table.size
        bias = net.local[net.bag_bias : net.bag_bias + width]
        _add_to_grid(total[begin : begin + width], bias, weight)
    for at in range(len(net.layers)):
        kernel, bias_at, columns = net.layers[at, 0], net.layers[at, 1], net.layers[at, 3]
        inputs, outputs, wire = net.layers[at, 4], net.layers[at, 5], net.layers[at, 7]
        for i in range(inputs):
            row_update = net.local[kernel + i * columns : kernel + i * columns + outputs]
            _add_to_grid(total[wire : wire + outputs], row_update, weight)
            wire += outputs
        bias = net.local[bias_at : bias_at + outputs]
        _add_to_grid(total[wire : wire + outputs], bias, weight)


@compiled_exactly
def _add_to_grid(total: NDArray[np.float64], update: NDArray[np.float32], weight: float) -> None:
    for i in range(update.size):
        term = np.float64(update[i]) * weight
        total[i] += (term + _GRID) - _GRID


@entry
def copy_update(net: Network, used: int, delta: NDArray[np.float32]) -> None:
    """Write the update in wire order, its table cut to the rows used, ids not in order."""
    width = net.base_table.shape[1]
    place = 0
    for row in range(used):
        for j in range(width):
            delta[place + j] = net.table[row, j]
        place += width
    if net.first == BAG:
        for j in range(width):
            delta[place + j] = net.local[net.bag_bias + j]
        place += width
    for at in range(len(net.layers)):
        kernel, bias, columns = net.layers[at, 0], net.layers[at, 1], net.layers[at, 3]
        outputs = net.layers[at, 5]
        for i in range(net.layers[at, 4]):
            for j in range(outputs):
                delta[place + j] = net.local[kernel + i * columns + j]
            place += outputs
        for j in range(outputs):
            delta[place + j] = net.local[bias + j]
        place += outputs

