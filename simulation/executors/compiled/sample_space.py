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

from simulation.executors.compiled.arranging import Arrangement
from simulation.executors.compiled.clients import (
    Outcomes,
    Plan,
    is_summable,
    is_surely_summable,
    labels_at,
    note_moves,
    order_of,
    records_at,
)
from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.loops import (
    add_number,
    cut_off_negative,
    gather,
    logit_gradient,
    loss,
    mask,
    multiply,
)
from simulation.executors.compiled.memory import (
    get_double,
    get_index,
    move,
    put_double,
    put_index,
)
from simulation.executors.compiled.network import Network
from simulation.executors.compiled.products import add_product, affine, multiply_transposed
from simulation.executors.compiled.sample_rows import (
    Samples,
    Waiting,
    add_rows_on_grid,
    clear_rows,
    row_at,
    squared_norm,
    write_update,
)


@compiled
def train_lane(
    net: Network, space: Samples, plan: Plan, tasks: Arrangement, first: int, last: int,
    waiting: Waiting, total: int, found: Outcomes,
) -> Waiting:  # fmt: skip
    """Train the tasks of a lane; their updates, but for those that are not finite, wait in rows.

    The rows are cut into segments, wherever they are trained in the same way, and each segment's
    sum is rounded to the grid by itself.

    Args:
        first: Task of the lane, in training order; those of one step come first.
        last: The one after its last.
        total: See `clients.train_alone`.
    """
    filled, segments, is_summed = waiting
    begin, n = filled, first
    while n < last:
        end = n
        if plan.losses == 0 and plan.norms == 0:
            end = _end_of_block(plan, tasks, n, last, space.segment - (filled - begin))
        rows = _train_block(net, space, plan, tasks, n, end, filled, found)
        if rows == 0:
            end = max(end, n + 1)
            rows = _train_each(net, space, plan, tasks, n, end, filled, total, found)
        n = end
        if total == 0:
            continue
        filled += rows
        if filled - begin >= space.segment or n == last:
            if filled > begin:
                put_index(space.ends, segments, filled)
                segments += 1
            if filled >= space.capacity:
                add_rows_on_grid(net, space, segments, total, is_summed)
                filled, segments, is_summed = 0, 0, True
            begin = filled
    return Waiting(filled, segments, is_summed)


@compiled
def _end_of_block(plan: Plan, tasks: Arrangement, n: int, last: int, room: int) -> int:
    """End of the clients from ``n`` that take one step each and are of one segment."""
    end, rows = n, 0
    while end < last and plan.epochs == 1 and rows < room:
        records = get_index(tasks.records, end)
        if records > plan.batch:
            break
        rows += records
        end += 1
    return end


@compiled
def _train_block(
    net: Network, space: Samples, plan: Plan, tasks: Arrangement, n: int, end: int, begin: int,
    found: Outcomes,
) -> int:  # fmt: skip
    """Train clients of one step as one batch, into the rows from ``begin``.

    Returns:
        How many rows they have; 0 if there are none, or one of them may have left the numbers.
    """
    top, rows = net.top, 0
    lightest = 0.0
    for client in range(n, end):
        count, row = get_index(tasks.records, client), begin + rows
        row_bytes = 4 * net.levels[0, 3]
        for i in range(count):
            into = space.inputs[0] + 4 * (row + i) * net.levels[0, 1]
            move(into, records_at(plan, tasks, client) + row_bytes * i, row_bytes)
        labels = space.labels + 4 * rows * net.tasks
        move(labels, labels_at(plan, tasks, client), 4 * count * net.tasks)
        rows += count
        weight = get_double(tasks.weight, client)
        lightest = weight if client == n else min(lightest, weight)
    if rows == 0 or not lightest > 0.0:
        return 0
    for at in range(top):
        _at_base_parameters(
            net, at, row_at(net, space.inputs, at + 1, begin), row_at(net, space.inputs, at, begin),
            rows,
        )  # fmt: skip
        if net.layers[at, 6]:
            cut_off_negative(row_at(net, space.inputs, at + 1, begin), rows * net.levels[at + 1, 1])
    row = 0
    for client in range(n, end):
        place, count = get_index(tasks.place, client), get_index(tasks.records, client)
        of_client = logit_gradient(
            row_at(net, space.gradients, top, begin + row),
            row_at(net, space.inputs, top, begin + row), net.levels[top, 1],
            space.labels + 4 * row * net.tasks, net.tasks, count,
            get_double(tasks.weight, client) * get_double(tasks.rate, client) / count,
        )  # fmt: skip
        found.train_loss[place], found.num_examples[place] = of_client / count, count
        found.diverged_step[place], found.is_finite[place] = 0, True
        row += count
    for at in range(top - 1, 0, -1):
        _gradient_at_base(net, space, at, begin, rows)
        if net.levels[at, 2]:
            mask(
                row_at(net, space.gradients, at, begin), row_at(net, space.inputs, at, begin),
                rows * net.levels[at, 1],
            )  # fmt: skip
    for at in range(top + 2):
        put_double(net.moved, at, 0.0)
    _note_moves(net, space, begin, rows)
    if is_surely_summable(net, 0.0, 1.0, lightest, plan.limit):
        return rows
    clear_rows(net, space, begin, rows)
    return 0


@compiled
def _train_each(
    net: Network, space: Samples, plan: Plan, tasks: Arrangement, n: int, end: int, begin: int,
    total: int, found: Outcomes,
) -> int:  # fmt: skip
    """Train clients one by one, into the rows from ``begin``; returns how many are to be summed."""
    filled = begin
    for client in range(n, end):
        place, weight = get_index(tasks.place, client), get_double(tasks.weight, client)
        rows = _train_in_samples(net, space, plan, tasks, client, filled, plan.losses, found)
        pull = get_double(tasks.rate, client) * plan.proximal_mu
        is_surely = is_surely_summable(net, pull, weight, 1.0, plan.limit)
        if not is_surely and plan.losses == 0:
            # As its device, which looks at losses before and after.
            _train_in_samples(net, space, plan, tasks, client, filled, 1, found)
        if plan.norms or not is_surely or total == 0:
            found.norm[place] = math.sqrt(squared_norm(net, space, filled, rows))
        is_in = is_surely or is_summable(found, place, weight, plan.limit)
        found.is_finite[place] = is_in
        if total == 0:
            write_update(net, space, rows)
        if total != 0 and is_in:
            for at in range(1, net.top + 1):
                multiply(row_at(net, space.gradients, at, filled), weight, rows * net.levels[at, 1])
            filled += rows
        else:
            clear_rows(net, space, filled, rows)
    return filled - begin


@compiled
def _train_in_samples(
    net: Network, space: Samples, plan: Plan, tasks: Arrangement, n: int, begin: int, losses: int,
    found: Outcomes,
) -> int:  # fmt: skip
    """Train task ``n`` into the rows from ``begin``; returns how many it has.

    Its update is then ``inputs.T @ gradients`` of these rows.
    """
    place, count = get_index(tasks.place, n), get_index(tasks.records, n)
    rate = get_double(tasks.rate, n)
    keep = 1.0 - rate * plan.proximal_mu if plan.proximal_mu > 0.0 else 1.0
    found.diverged_step[place], found.num_examples[place] = 0, count
    for at in range(net.top + 2):
        put_double(net.moved, at, 0.0)
    before = _values_at_base(net, space, plan, tasks, n, losses)
    past, step, training = 0, 0, 0.0
    for epoch in range(plan.epochs):
        order_of(net, plan, tasks, n, epoch)
        for first in range(0, count, plan.batch):
            size = min(plan.batch, count - first)
            step += 1
            order = net.order + 8 * first
            of_step = _step(net, space, order, begin, past, size, rate / size)
            training += of_step
            if not math.isfinite(of_step) and found.diverged_step[place] == 0:
                found.diverged_step[place] = step
            _note_moves(net, space, begin + past, size)
            if keep != 1.0:
                for at in range(1, net.top + 1):
                    rows = row_at(net, space.gradients, at, begin)
                    multiply(rows, keep, past * net.levels[at, 1])
            past += size
    found.train_loss[place] = training / past
    found.loss_before[place] = before / count if losses else math.nan
    found.loss_after[place] = math.nan
    if losses:
        found.loss_after[place] = _loss_after(net, space, begin, past, count) / count
    return past


@compiled
def _note_moves(net: Network, space: Samples, begin: int, rows: int) -> None:
    """See `clients.note_moves`."""
    for at in range(net.top + 1):
        note_moves(
            net, at, row_at(net, space.inputs, max(at - 1, 0), begin),
            row_at(net, space.gradients, at, begin), rows,
        )  # fmt: skip


@compiled
def _values_at_base(
    net: Network, space: Samples, plan: Plan, tasks: Arrangement, n: int, losses: int
) -> float:
    """First sums of a client's records at the base version; if asked, the sum of their losses."""
    count, width = get_index(tasks.records, n), net.levels[0, 3]
    for i in range(count):
        into = space.at_base[0] + 4 * i * net.levels[0, 1]
        move(into, records_at(plan, tasks, n) + 4 * width * i, 4 * width)
    move(space.labels, labels_at(plan, tasks, n), 4 * count * net.tasks)
    _at_base_parameters(net, 0, space.base_sums, space.at_base[0], count)
    if losses == 0:
        return math.nan
    for at in range(net.top):
        columns, outputs = net.levels[at + 1, 1], space.at_base[at + 1]
        if at == 0:
            move(outputs, space.base_sums, 4 * count * columns)
        else:
            _at_base_parameters(net, at, outputs, space.at_base[at], count)
        if net.layers[at, 6]:
            cut_off_negative(outputs, count * columns)
    columns = net.levels[net.top, 1]
    return loss(space.at_base[net.top], columns, space.labels, net.tasks, count)


@compiled
def _step(
    net: Network, space: Samples, order: int, begin: int, past: int, size: int, rate: float
) -> float:
    """One step on ``size`` records of the order, into the rows after ``past``.

    Returns:
        Sum of its losses, not finite if a logit is not.
    """
    top, row = net.top, begin + past
    gather(space.step_labels, space.labels, 4 * net.tasks, order, size)
    inputs = row_at(net, space.inputs, 0, row)
    gather(inputs, space.at_base[0], 4 * net.levels[0, 1], order, size)
    for at in range(top):
        columns = net.levels[at + 1, 1]
        inputs = row_at(net, space.inputs, at, row)
        outputs = row_at(net, space.inputs, at + 1, row)
        if at == 0:
            gather(outputs, space.base_sums, 4 * columns, order, size)
        else:
            _at_base_parameters(net, at, outputs, inputs, size)
        if past > 0:
            _add_moved(net, space, at, outputs, inputs, begin, past, size)
        if net.layers[at, 6]:
            cut_off_negative(outputs, size * columns)
    of_step = logit_gradient(
        row_at(net, space.gradients, top, row), row_at(net, space.inputs, top, row),
        net.levels[top, 1], space.step_labels, net.tasks, size, rate,
    )  # fmt: skip
    for at in range(top - 1, 0, -1):
        columns, below_columns = net.levels[at + 1, 1], net.levels[at, 1]
        _gradient_at_base(net, space, at, row, size)
        below = row_at(net, space.gradients, at, row)
        if past > 0:
            gradient = row_at(net, space.gradients, at + 1, row)
            moved = row_at(net, space.gradients, at + 1, begin)
            multiply_transposed(space.alike, space.square, gradient, columns, moved, past, size)
            history = row_at(net, space.inputs, at, begin)
            add_product(below, below_columns, space.alike, space.square, history, past, size)
        if net.levels[at, 2]:
            mask(below, row_at(net, space.inputs, at, row), size * below_columns)
    return of_step


@compiled
def _gradient_at_base(net: Network, space: Samples, at: int, row: int, count: int) -> None:
    """Gradients of a level from those of the one above, by the base version's kernel."""
    multiply_transposed(
        row_at(net, space.gradients, at, row), net.levels[at, 1],
        row_at(net, space.gradients, at + 1, row), net.levels[at + 1, 1],
        net.base + 4 * net.layers[at, 0], net.layers[at, 4], count,
    )  # fmt: skip


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
def _loss_after(net: Network, space: Samples, begin: int, rows: int, count: int) -> float:
    """Sum of the records' losses at the local parameters."""
    for at in range(net.top):
        columns, outputs = net.levels[at + 1, 1], space.at_base[at + 1]
        if at == 0:
            # In the order of the last epoch, as the rows are that then are their inputs.
            gather(outputs, space.base_sums, 4 * columns, net.order, count)
            inputs = row_at(net, space.inputs, 0, begin + rows - count)
        else:
            inputs = space.at_base[at]
            _at_base_parameters(net, at, outputs, inputs, count)
        _add_moved(net, space, at, outputs, inputs, begin, rows, count)
        if net.layers[at, 6]:
            cut_off_negative(outputs, count * columns)
    gather(space.step_labels, space.labels, 4 * net.tasks, net.order, count)
    columns = net.levels[net.top, 1]
    return loss(space.at_base[net.top], columns, space.step_labels, net.tasks, count)
