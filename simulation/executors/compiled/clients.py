"""Local training of a client with weights of its own, and its update added to a sum."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.arranging import Arrangement
from simulation.executors.compiled.compiling import compiled
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
from simulation.executors.compiled.memory import (
    get_double,
    get_id,
    get_index,
    put_double,
    put_index,
)
from simulation.executors.compiled.network import Network, backward, forward
from simulation.executors.compiled.shuffles import shuffled

_FAR_FROM_OVERFLOW = 1e30
"""Of float32, whose largest number is 3.4e38."""


class Outcomes(NamedTuple):
    """What came of each task, at its position among the tasks as they came.

    Attributes:
        num_examples: Records it trained on.
        train_loss: Mean over the records of all steps, at the weights each step started from.
        is_finite: Whether it stayed in numbers and can be in a sum.
        diverged_step: First step whose logits were not finite, from 1; 0 for none.
        norm: Of its update; NaN if not asked for.
        loss_before: Mean over its records at the base version; NaN if not asked for, as the next.
        loss_after: The same after the training.
    """

    num_examples: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    is_finite: NDArray[np.bool_]
    diverged_step: NDArray[np.int64]
    norm: NDArray[np.float64]
    loss_before: NDArray[np.float64]
    loss_after: NDArray[np.float64]


class Plan(NamedTuple):
    """What every task does, and on what; see `simulation.executors.training.LocalPlan`.

    Attributes:
        losses: Whether losses before and after are asked for, 1 or 0.
        norms: Whether norms are.
        x: Address of all records.
        x_bytes: Of one.
        y: Address of all labels.
        y_bytes: Of a record's.
        limit: Of a weight times a norm; beyond it an update is left out.
    """

    epochs: int
    batch: int
    losses: int
    norms: int
    x: int
    x_bytes: int
    y: int
    y_bytes: int
    proximal_mu: float
    limit: float


@compiled
def train_alone(
    net: Network, plan: Plan, tasks: Arrangement, n: int, total: int, found: Outcomes
) -> int:
    """Train a task with weights of its own and add its update up, if it is finite.

    Args:
        n: Of the task, in training order.
        total: Address of the sum, float64, in wire order; changed in place. 0 for none: then the
            update is left in the local buffers.

    Returns:
        Rows of the table that its records use; -1 if one is beyond the table.
    """
    place, weight = get_index(tasks.place, n), get_double(tasks.weight, n)
    used = _train_client(net, plan, tasks, n, plan.losses, found)
    if used < 0:
        return used
    pull = get_double(tasks.rate, n) * plan.proximal_mu
    is_surely = is_surely_summable(net, pull, weight, 1.0, plan.limit)
    if not is_surely and plan.losses == 0:
        # As its device, which looks at losses before and after.
        _train_client(net, plan, tasks, n, 1, found)
    if is_surely and total != 0 and plan.norms == 0:
        found.is_finite[place] = True
        _add_change(net, used, weight, total)
        return used
    found.norm[place] = math.sqrt(_subtract_base(net, used))
    found.is_finite[place] = is_surely or is_summable(found, place, weight, plan.limit)
    if total != 0 and found.is_finite[place]:
        _add_update(net, used, weight, total)
    return used


@compiled
def _train_client(
    net: Network, plan: Plan, tasks: Arrangement, n: int, losses: int, found: Outcomes
) -> int:
    """Train task ``n``; afterwards the local buffers hold its parameters.

    For the losses before, the first epoch's batches are seen by the base version from the last to
    the first, which leaves the values of the first step where the step needs them.

    Returns:
        Rows of the table that its records use; -1 if one is beyond the table.
    """
    place, count = get_index(tasks.place, n), get_index(tasks.records, n)
    x, y, rate = records_at(plan, tasks, n), labels_at(plan, tasks, n), get_double(tasks.rate, n)
    logits, columns = net.values + 4 * net.levels[net.top, 0], net.levels[net.top, 1]
    gradient = net.gradients + 4 * net.levels[net.top, 0]
    pull = rate * plan.proximal_mu if plan.proximal_mu > 0.0 else 0.0
    used = 0 if net.first == FEATURES else number_rows(net, x, count)
    found.diverged_step[place], found.num_examples[place] = 0, count
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
            order_of(net, plan, tasks, n, max(a_pass - 1, 0))
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
                gradient, logits, columns, net.labels, net.tasks, size, rate / size
            )
            training += of_step
            if not math.isfinite(of_step) and found.diverged_step[place] == 0:
                found.diverged_step[place] = (a_pass - 1) * batches + step + 1
            now = 0.0 if is_first else pull
            backward(net, weights, net.local, size, now)
            if net.first != FEATURES:
                step_table(net, weights, net.local, begin, size, used, now)
            for at in range(net.top + 1):
                below, level = net.levels[max(at - 1, 0)], net.levels[at]
                note_moves(net, at, net.values + 4 * below[0], net.gradients + 4 * level[0], size)
    found.train_loss[place] = training / (count * plan.epochs)
    found.loss_before[place] = before / count if losses else math.nan
    found.loss_after[place] = after / count if losses else math.nan
    return used


@compiled
def records_at(plan: Plan, tasks: Arrangement, n: int) -> int:
    """Address of a task's first record."""
    return int(plan.x + plan.x_bytes * get_index(tasks.row, n))


@compiled
def labels_at(plan: Plan, tasks: Arrangement, n: int) -> int:
    """Address of a task's first label."""
    return int(plan.y + plan.y_bytes * get_index(tasks.row, n))


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
def order_of(net: Network, plan: Plan, tasks: Arrangement, n: int, epoch: int) -> None:
    """Write the epoch's order; of a single batch it does not matter."""
    count = get_index(tasks.records, n)
    if count > plan.batch:
        shuffled(net.order, count, np.uint64(get_index(tasks.seed, n)), epoch, net.drawn)
    else:
        for i in range(count):
            put_index(net.order, i, i)


@compiled
def is_summable(found: Outcomes, place: int, weight: float, limit: float) -> bool:
    """Whether a task stayed in numbers, and its update leaves a sum finite."""
    losses = found.loss_before[place] + found.loss_after[place]
    return math.isfinite(losses) and weight * found.norm[place] <= limit


@compiled
def _add_update(net: Network, used: int, weight: float, total: int) -> None:
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
