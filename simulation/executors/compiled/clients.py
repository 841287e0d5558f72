"""Local training of clients, one after the other, and the sum of their updates."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.first_layer import number_rows, step_table, take
from simulation.executors.compiled.layout import BAG, FEATURES
from simulation.executors.compiled.loops import (
    add_change_on_grid,
    add_on_grid,
    logit_gradient,
    loss,
    squares,
    subtract,
)
from simulation.executors.compiled.memory import get_double, get_id, put_double, put_index
from simulation.executors.compiled.network import Network, backward, forward
from simulation.executors.compiled.shuffles import shuffled

_FAR_FROM_OVERFLOW = 1e30
"""Of float32, whose largest number is 3.4e38."""


class Clients(NamedTuple):
    """Tasks that start from one version: columns of what each trains on, and how.

    Attributes:
        x: Address of its first record, int64.
        y: Address of its first label, int64.
        records: How many it has, at least 1.
        rate: Learning rate, float64.
        seed: Of the order of its records, uint64.
        weight: Of its update in the sum, float64.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    records: NDArray[np.int64]
    rate: NDArray[np.float64]
    seed: NDArray[np.uint64]
    weight: NDArray[np.float64]


class Outcomes(NamedTuple):
    """What came of each task.

    Attributes:
        train_loss: Mean over the records of all steps, at the weights each step started from.
        loss_before: Mean over its records at the base version; NaN if not asked for, as the next.
        loss_after: The same after the training.
        squared_norm: Of its update; NaN if not asked for.
        summable: 1 if it stayed in numbers and can be in a sum, else 0.
        diverged: First step whose logits were not finite, from 1; 0 for none.
        used: Rows of the table that its records use.
    """

    train_loss: NDArray[np.float64]
    loss_before: NDArray[np.float64]
    loss_after: NDArray[np.float64]
    squared_norm: NDArray[np.float64]
    summable: NDArray[np.int64]
    diverged: NDArray[np.int64]
    used: NDArray[np.int64]


class Plan(NamedTuple):
    """What every task does; see `simulation.executors.training.LocalPlan`.

    Attributes:
        losses: Whether losses before and after are asked for, 1 or 0.
        norms: Whether norms are.
    """

    epochs: int
    batch: int
    proximal_mu: float
    losses: int
    norms: int


@entry
def sum_clients(
    net: Network,
    plan: Plan,
    clients: Clients,
    limit: float,
    total: int,
    found: Outcomes,
) -> None:
    """Train all tasks and add their updates up, but for those that are not finite.

    Args:
        limit: Of a weight times a norm; beyond it an update is left out.
        total: Address of the sum, float64, in wire order; changed in place. 0 for none: then the
            last task's update is left in the local buffers.
    """
    for n in range(len(clients.records)):
        used = _train_client(net, plan, clients, n, plan.losses, found)
        if used < 0:
            return
        is_surely = is_surely_summable(
            net, clients.rate[n] * plan.proximal_mu, clients.weight[n], 1.0, limit
        )
        if not is_surely and plan.losses == 0:
            # As its device, which looks at losses before and after.
            _train_client(net, plan, clients, n, 1, found)
        if is_surely and total != 0 and plan.norms == 0:
            found.summable[n] = 1
            _add_change(net, used, clients.weight[n], total)
            continue
        found.squared_norm[n] = _subtract_base(net, used)
        found.summable[n] = 1 if is_surely or is_summable(clients, found, n, limit) else 0
        if total != 0 and found.summable[n] == 1:
            add_update(net, used, clients.weight[n], total)


@compiled
def _train_client(
    net: Network, plan: Plan, clients: Clients, n: int, losses: int, found: Outcomes
) -> int:
    """Train task ``n``; afterwards the local buffers hold its parameters.

    For the losses before, the first epoch's batches are seen by the base version from the last to
    the first, which leaves the values of the first step where the step needs them.

    Returns:
        Rows of the table that its records use; -1 if one is beyond the table.
    """
    x, y, count = clients.x[n], clients.y[n], clients.records[n]
    logits, columns = net.values + 4 * net.levels[net.top, 0], net.levels[net.top, 1]
    gradient = net.gradients + 4 * net.levels[net.top, 0]
    pull = clients.rate[n] * plan.proximal_mu if plan.proximal_mu > 0.0 else 0.0
    used = 0 if net.first == FEATURES else number_rows(net, x, count)
    found.diverged[n], found.used[n] = 0, used
    if used < 0:
        return used
    for at in range(net.top + 2):
        put_double(net.moved, at, 0.0)
    batches = (count + plan.batch - 1) // plan.batch
    before, after, training = 0.0, 0.0, 0.0
    # Passes over all batches: backwards for the losses before, then the epochs, then those after.
    for a_pass in range(1 - losses, plan.epochs + 1 + losses):
        trains = 0 < a_pass <= plan.epochs
        if trains or a_pass == 0:
            order_of(net, plan, clients, n, max(a_pass - 1, 0))
        for step in range(batches):
            batch = step if a_pass > 0 else batches - 1 - step
            begin = batch * plan.batch
            size = min(plan.batch, count - begin)
            is_first = a_pass == 1 and step == 0
            weights = net.base if a_pass == 0 or is_first else net.local
            if losses == 0 or not is_first:
                take(net, weights, x, y, begin, size)
                forward(net, weights, size)
            if not trains:
                of_batch = loss(logits, columns, net.labels, net.tasks, size)
                before += of_batch if a_pass == 0 else 0.0
                after += of_batch if a_pass > 0 else 0.0
                continue
            of_step = logit_gradient(
                gradient, logits, columns, net.labels, net.tasks, size, clients.rate[n] / size
            )
            training += of_step
            if not math.isfinite(of_step) and found.diverged[n] == 0:
                found.diverged[n] = (a_pass - 1) * batches + step + 1
            now = 0.0 if is_first else pull
            backward(net, weights, net.local, size, now)
            if net.first != FEATURES:
                step_table(net, weights, net.local, begin, size, used, now)
            for at in range(net.top + 1):
                below, level = net.levels[max(at - 1, 0)], net.levels[at]
                note_moves(net, at, net.values + 4 * below[0], net.gradients + 4 * level[0], size)
    found.train_loss[n] = training / (count * plan.epochs)
    found.loss_before[n] = before / count if losses else math.nan
    found.loss_after[n] = after / count if losses else math.nan
    return used


@compiled
def note_moves(net: Network, at: int, values: int, gradients: int, rows: int) -> None:
    """Add to `Network.moved` what a step has moved at most.

    The norm of a product is at most the product of the norms; a bias is the kernel's row of an
    input that is always 1, and a table's row moves by the gradients of the slots that use it.

    Args:
        at: Level of the gradients.
        values: Of the level below; of level 0, that level's own.
    """
    of_values = squares(values, rows * net.levels[max(at - 1, 0), 1])
    if at == 0:
        place = net.top + 1
        put_double(net.moved, place, max(get_double(net.moved, place), of_values))
        if net.first == FEATURES:
            return
    moved = squares(gradients, rows * net.levels[at, 1])
    if at == 0:
        moved *= float(rows * net.slots) ** 2
    else:
        moved *= of_values + rows
    put_double(net.moved, at, get_double(net.moved, at) + math.sqrt(moved))


@compiled
def is_surely_summable(
    net: Network, pull: float, weight: float, gradient_weight: float, limit: float
) -> bool:
    """Whether `Network.moved` leaves no doubt that update and losses are finite numbers.

    Losses are, as long as no value of a forward pass can overflow: the norm of a record's values
    is at most that of the kernel times that of the values below.

    Args:
        pull: Of FedProx, times the learning rate.
        weight: Of the update in the sum.
        gradient_weight: By which the gradients were multiplied, at least.
        limit: Of a weight times a norm.
    """
    if pull > 1.0:
        return False
    table = get_double(net.moved, 0)
    if net.first == FEATURES:
        reach = math.sqrt(get_double(net.moved, net.top + 1))
    else:
        reach = (net.slots + 1) * (get_double(net.base_norms, 0) + table)
    moved = table
    for at in range(1, net.top + 1):
        step = get_double(net.moved, at)
        moved += step
        reach = (reach + 1.0) * (get_double(net.base_norms, at) + step / gradient_weight)
    return reach <= _FAR_FROM_OVERFLOW and weight * moved <= limit


@compiled
def _subtract_base(net: Network, used: int) -> float:
    """Leave the update in the local buffers; returns its squared norm."""
    squared = subtract(net.local, net.base, net.size)
    for row in range(used):
        base = net.base_table + 4 * net.width * int(get_id(net.used, row))
        squared += subtract(net.table + 4 * net.width * row, base, net.width)
    return squared


@compiled
def order_of(net: Network, plan: Plan, clients: Clients, n: int, epoch: int) -> None:
    """Write the epoch's order; of a single batch it does not matter."""
    if clients.records[n] > plan.batch:
        shuffled(net.order, clients.records[n], clients.seed[n], epoch, net.drawn)
    else:
        for i in range(clients.records[n]):
            put_index(net.order, i, i)


@compiled
def is_summable(clients: Clients, found: Outcomes, n: int, limit: float) -> bool:
    """Whether a task stayed in numbers, and its update leaves a sum finite."""
    losses = found.loss_before[n] + found.loss_after[n]
    return math.isfinite(losses) and clients.weight[n] * math.sqrt(found.squared_norm[n]) <= limit


@compiled
def add_update(net: Network, used: int, weight: float, total: int) -> None:
    """Add the update in the local buffers to a sum, in wire order."""
    for row in range(used):
        place = int(get_id(net.used, row)) * net.width
        add_on_grid(total + 8 * place, net.table + 4 * net.width * row, weight, net.width)
    if net.first == BAG:
        place = net.layers[0, 7] - net.width
        add_on_grid(total + 8 * place, net.local + 4 * net.bag_bias, weight, net.width)
    for at in range(net.top):
        layer = net.layers[at]
        wire, local = total + 8 * layer[7], net.local + 4 * layer[0]
        for _ in range(layer[4]):
            add_on_grid(wire, local, weight, layer[5])
            wire += 8 * layer[5]
            local += 4 * layer[3]
        add_on_grid(wire, net.local + 4 * layer[1], weight, layer[5])


@compiled
def _add_change(net: Network, used: int, weight: float, total: int) -> None:
    """Add how the local buffers differ from the base to a sum, in wire order."""
    row_bytes = 4 * net.width
    for row in range(used):
        place = int(get_id(net.used, row))
        add_change_on_grid(
            total + 2 * place * row_bytes, net.table + row * row_bytes,
            net.base_table + place * row_bytes, weight, net.width,
        )  # fmt: skip
    if net.first == BAG:
        place, bias = net.layers[0, 7] - net.width, 4 * net.bag_bias
        add_change_on_grid(total + 8 * place, net.local + bias, net.base + bias, weight, net.width)
    for at in range(net.top):
        layer = net.layers[at]
        wire, row = total + 8 * layer[7], 4 * layer[0]
        for _ in range(layer[4]):
            add_change_on_grid(wire, net.local + row, net.base + row, weight, layer[5])
            wire += 8 * layer[5]
            row += 4 * layer[3]
        bias = 4 * layer[1]
        add_change_on_grid(wire, net.local + bias, net.base + bias, weight, layer[5])
