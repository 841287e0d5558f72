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
from numpy.typing import NDArray

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
    add_on_grid,
    add_rows,
    cut_off_negative,
    dot,
    fill,
    fill_doubles,
    gather,
    logit_gradient,
    loss,
    mask,
    multiply,
    put_sum,
)
from simulation.executors.compiled.memory import (
    get_double,
    get_index,
    move,
    put_double,
    put_index,
)
from simulation.executors.compiled.network import Network
from simulation.executors.compiled.products import (
    add_outer,
    add_product,
    affine,
    grid_tile,
    multiply_transposed,
)
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
            net, at, _row(net, space.inputs, at + 1, begin), _row(net, space.inputs, at, begin),
            rows,
        )  # fmt: skip
        if net.layers[at, 6]:
            cut_off_negative(_row(net, space.inputs, at + 1, begin), rows * net.levels[at + 1, 1])
    row = 0
    for client in range(n, end):
        place, count = get_index(tasks.place, client), get_index(tasks.records, client)
        of_client = logit_gradient(
            _row(net, space.gradients, top, begin + row),
            _row(net, space.inputs, top, begin + row), net.levels[top, 1],
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
                _row(net, space.gradients, at, begin), _row(net, space.inputs, at, begin),
                rows * net.levels[at, 1],
            )  # fmt: skip
    for at in range(top + 2):
        put_double(net.moved, at, 0.0)
    _note_moves(net, space, begin, rows)
    if is_surely_summable(net, 0.0, 1.0, lightest, plan.limit):
        return rows
    _clear(net, space, begin, rows)
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
            found.norm[place] = math.sqrt(_squared_norm(net, space, filled, rows))
        is_in = is_surely or is_summable(found, place, weight, plan.limit)
        found.is_finite[place] = is_in
        if total == 0:
            _write_update(net, space, rows)
        if total != 0 and is_in:
            for at in range(1, net.top + 1):
                multiply(_row(net, space.gradients, at, filled), weight, rows * net.levels[at, 1])
            filled += rows
        else:
            _clear(net, space, filled, rows)
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
                    multiply(_row(net, space.gradients, at, begin), keep, past * net.levels[at, 1])
            past += size
    found.train_loss[place] = training / past
    found.loss_before[place] = before / count if losses else math.nan
    found.loss_after[place] = math.nan
    if losses:
        found.loss_after[place] = _loss_after(net, space, begin, past, count) / count
    return past


@compiled
def _row(net: Network, levels: NDArray[np.int64], at: int, row: int) -> int:
    """Address of a level's row."""
    return int(levels[at] + 4 * row * net.levels[at, 1])


@compiled
def _note_moves(net: Network, space: Samples, begin: int, rows: int) -> None:
    """See `clients.note_moves`."""
    for at in range(net.top + 1):
        note_moves(
            net, at, _row(net, space.inputs, max(at - 1, 0), begin),
            _row(net, space.gradients, at, begin), rows,
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
    inputs = _row(net, space.inputs, 0, row)
    gather(inputs, space.at_base[0], 4 * net.levels[0, 1], order, size)
    for at in range(top):
        columns = net.levels[at + 1, 1]
        inputs, outputs = _row(net, space.inputs, at, row), _row(net, space.inputs, at + 1, row)
        if at == 0:
            gather(outputs, space.base_sums, 4 * columns, order, size)
        else:
            _at_base_parameters(net, at, outputs, inputs, size)
        if past > 0:
            _add_moved(net, space, at, outputs, inputs, begin, past, size)
        if net.layers[at, 6]:
            cut_off_negative(outputs, size * columns)
    of_step = logit_gradient(
        _row(net, space.gradients, top, row), _row(net, space.inputs, top, row),
        net.levels[top, 1], space.step_labels, net.tasks, size, rate,
    )  # fmt: skip
    for at in range(top - 1, 0, -1):
        columns, below_columns = net.levels[at + 1, 1], net.levels[at, 1]
        _gradient_at_base(net, space, at, row, size)
        below = _row(net, space.gradients, at, row)
        if past > 0:
            gradient = _row(net, space.gradients, at + 1, row)
            moved = _row(net, space.gradients, at + 1, begin)
            multiply_transposed(space.alike, space.square, gradient, columns, moved, past, size)
            history = _row(net, space.inputs, at, begin)
            add_product(below, below_columns, space.alike, space.square, history, past, size)
        if net.levels[at, 2]:
            mask(below, _row(net, space.inputs, at, row), size * below_columns)
    return of_step


@compiled
def _gradient_at_base(net: Network, space: Samples, at: int, row: int, count: int) -> None:
    """Gradients of a level from those of the one above, by the base version's kernel."""
    multiply_transposed(
        _row(net, space.gradients, at, row), net.levels[at, 1],
        _row(net, space.gradients, at + 1, row), net.levels[at + 1, 1],
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
            inputs = _row(net, space.inputs, 0, begin + rows - count)
        else:
            inputs = space.at_base[at]
            _at_base_parameters(net, at, outputs, inputs, count)
        _add_moved(net, space, at, outputs, inputs, begin, rows, count)
        if net.layers[at, 6]:
            cut_off_negative(outputs, count * columns)
    gather(space.step_labels, space.labels, 4 * net.tasks, net.order, count)
    columns = net.levels[net.top, 1]
    return loss(space.at_base[net.top], columns, space.step_labels, net.tasks, count)


@compiled
def _squared_norm(net: Network, space: Samples, begin: int, rows: int) -> float:
    """Of the update that some rows make: ``|A.T @ D|**2`` is the sum of ``(A @ A.T) (D @ D.T)``."""
    square, squared = space.square, 0.0
    for at in range(net.top):
        inputs = _row(net, space.inputs, at, begin)
        gradients = _row(net, space.gradients, at + 1, begin)
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
def _clear(net: Network, space: Samples, begin: int, rows: int) -> None:
    """Leave nothing of a client whose numbers may not be finite: padding must stay zero."""
    for at in range(1, net.top + 1):
        columns = net.levels[at, 1]
        fill(space.gradients[at] + 4 * begin * columns, 0.0, (rows + 4) * columns)


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
                add_rows(bias, _row(net, space.gradients, at + 1, row), layer[3], end - row)
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
            width, space.tile, start, _row(net, space.inputs, at, row) + 4 * i, below,
            _row(net, space.gradients, at + 1, row) + 4 * j, columns, end - row,
        )  # fmt: skip
        start = space.tile


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
