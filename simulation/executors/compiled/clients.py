"""Local training of clients, one after the other, and the sum of their updates."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.first_layer import number_rows, step_table, take
from simulation.executors.compiled.layout import BAG, FEATURES
from simulation.executors.compiled.loops import add_on_grid, logit_gradient, loss, subtract
from simulation.executors.compiled.memory import get_id, put_index
from simulation.executors.compiled.network import Network, backward, forward
from simulation.executors.compiled.shuffles import shuffled


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
        used = _train_client(net, plan, clients, n, found)
        if used < 0:
            return
        if total != 0 and is_summable(clients, found, n, limit):
            add_update(net, used, clients.weight[n], total)


@compiled
def _train_client(net: Network, plan: Plan, clients: Clients, n: int, found: Outcomes) -> int:
    """Train task ``n``; afterwards the local buffers hold its update.

    The first epoch's batches are seen by the base version from the last to the first: that gives
    the loss before, and leaves the values of the first step where the step needs them.

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
    batches = (count + plan.batch - 1) // plan.batch
    before, after = 0.0, 0.0
    # Passes over all batches: backwards for the losses before, then the epochs, then those after.
    for a_pass in range(plan.epochs + 2):
        trains = 0 < a_pass <= plan.epochs
        if trains or a_pass == 0:
            order_of(net, plan, clients, n, max(a_pass - 1, 0))
        for step in range(batches):
            batch = step if a_pass > 0 else batches - 1 - step
            begin = batch * plan.batch
            size = min(plan.batch, count - begin)
            is_first = a_pass == 1 and step == 0
            weights = net.base if a_pass == 0 or is_first else net.local
            if not is_first:
                take(net, weights, x, y, begin, size)
                forward(net, weights, size)
            if not trains:
                of_batch = loss(logits, columns, net.labels, net.tasks, size)
                before += of_batch if a_pass == 0 else 0.0
                after += of_batch if a_pass > 0 else 0.0
                continue
            is_finite = logit_gradient(
                gradient, logits, columns, net.labels, net.tasks, size, clients.rate[n] / size
            )
            if not is_finite and found.diverged[n] == 0:
                found.diverged[n] = (a_pass - 1) * batches + step + 1
            now = 0.0 if is_first else pull
            backward(net, weights, net.local, size, now)
            if net.first != FEATURES:
                step_table(net, weights, net.local, begin, size, used, now)
    found.loss_before[n] = before / count
    found.loss_after[n] = after / count
    squared = subtract(net.local, net.base, net.size)
    for row in range(used):
        base = net.base_table + 4 * net.width * int(get_id(net.used, row))
        squared += subtract(net.table + 4 * net.width * row, base, net.width)
    found.squared_norm[n] = squared
    return used


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
        outputs = layer[5]
        wire = total + 8 * layer[7]
        for i in range(layer[4]):
            add_on_grid(wire, net.local + 4 * (layer[0] + i * layer[3]), weight, outputs)
            wire += 8 * outputs
        add_on_grid(wire, net.local + 4 * layer[1], weight, outputs)
