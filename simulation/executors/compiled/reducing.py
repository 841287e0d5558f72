"""What an executor asks of the kernel: train the tasks of an arrangement, and sum their updates."""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.arranging import (
    NEXT,
    TURNS,
    USED_ROWS,
    columns_of,
    weigh_groups,
)
from simulation.executors.compiled.atomic import add_one
from simulation.executors.compiled.clients import Outcomes, Plan, train_alone
from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.loops import add_doubles, fill_doubles, round_doubles
from simulation.executors.compiled.memory import get_index, put_index
from simulation.executors.compiled.network import network_of, parameters_of
from simulation.executors.compiled.sample_rows import Waiting, add_rows_on_grid, samples_of
from simulation.executors.compiled.sample_space import train_lane

_AT_A_TIME = 2048
"""Parameters that are added in the nearest cache."""


@entry
def train_units(
    fixed: NDArray[np.int64],
    layers: NDArray[np.int64],
    levels: NDArray[np.int64],
    space: NDArray[np.int64],
    rooms: NDArray[np.int64],
    proximal_mu: float,
    limit: float,
    versions: NDArray[np.int64],
    block: int,
    capacity: int,
    weight: NDArray[np.float64],
    num_examples: NDArray[np.int64],
    train_loss: NDArray[np.float64],
    is_finite: NDArray[np.bool_],
    diverged_step: NDArray[np.int64],
    norm: NDArray[np.float64],
    loss_before: NDArray[np.float64],
    loss_after: NDArray[np.float64],
    sums: NDArray[np.int64],
    is_summed: NDArray[np.bool_],
    number: int,
    progress: int,
    rounded: NDArray[np.float32],
) -> int:
    """Train units of an arrangement as their turns come, and sum each group's finite updates.

    Several executors may do so at a time, each with sums of its own: a turn is had by one of them.

    Args:
        fixed: The first fields of `Network`, then those of `Plan`.
        space: See `sample_rows.samples_of`, as ``rooms``.
        versions: See `network.network_of`, one a row.
        block: See `arranging.arrange`, as ``capacity``.
        weight: Of the tasks as they came.
        num_examples: This and what follows: see `Outcomes`.
        sums: Of each group, the address of room for its sum, float64, in wire order; 0 for none.
        is_summed: Of each group, whether there is a sum there to add to; else it is written.
            Afterwards whether there is one.
        number: Of this executor.
        progress: Address of an int64 that is counted up with each task.
        rounded: Where sums are put, rounded once, shape ``(groups, parameters)``, if this is the
            only executor; or no rows.

    Returns:
        Number of updates that are not finite, hence in no sum, where sums are rounded; or -1 minus
        the position of a task whose records have an id beyond the table.
    """
    plan = Plan(
        fixed[19], fixed[20], fixed[21], fixed[22], fixed[23], fixed[24], fixed[25], fixed[26],
        proximal_mu, limit,
    )  # fmt: skip
    turns = get_index(block, TURNS)
    if turns == 0:
        return 0
    samples = samples_of(space, rooms)
    tasks = columns_of(block, capacity)
    found = Outcomes(
        num_examples, train_loss, is_finite, diverged_step, norm, loss_before, loss_after
    )
    net = network_of(fixed, layers, levels, versions, 0)
    parameters = parameters_of(net)
    group, total, used, waiting = -1, 0, 0, Waiting(0, 0, False)
    while True:
        turn = add_one(block + 8 * NEXT)
        if turn >= turns:
            break
        unit = get_index(tasks.turn, turn)
        put_index(tasks.taker, unit, number)
        begin = get_index(tasks.unit_end, unit - 1) if unit > 0 else 0
        end = get_index(tasks.unit_end, unit)
        is_sampled = get_index(tasks.sampled, begin) != 0
        is_next = get_index(tasks.unit_group, unit) != group
        if waiting.rows > 0 and (is_next or not is_sampled):
            add_rows_on_grid(net, samples, waiting.segments, total, waiting.is_summed)
            waiting, is_summed[group] = Waiting(0, 0, True), True
        if is_next:
            group = get_index(tasks.unit_group, unit)
            row = _row_of(versions, get_index(tasks.version, group))
            net = network_of(fixed, layers, levels, versions, row)
            total, waiting = sums[group], Waiting(0, 0, is_summed[group])
        if is_sampled:
            waiting = train_lane(net, samples, plan, tasks, begin, end, waiting, total, found)
        if total != 0 and waiting.rows == 0 and not waiting.is_summed:
            # Whoever has taken a unit of the group has a sum, though nothing finite may be in it.
            fill_doubles(total, 0.0, parameters)
            waiting = Waiting(0, 0, True)
        is_summed[group] = waiting.is_summed
        if not is_sampled:
            used = train_alone(net, plan, tasks, begin, total, found)
            if used < 0:
                return -1 - int(get_index(tasks.place, begin))
        put_index(progress, 0, get_index(progress, 0) + end - begin)
    if waiting.rows > 0:
        add_rows_on_grid(net, samples, waiting.segments, total, waiting.is_summed)
        is_summed[group] = True
    put_index(block, USED_ROWS, used)
    if len(rounded) == 0:
        return 0
    for of_group in range(len(rounded)):
        to = rounded.ctypes.data + 4 * of_group * parameters
        round_doubles(to, sums[of_group], parameters)
    return weigh_groups(block, tasks, weight, is_finite)


@entry
def add_sums(
    block: int,
    capacity: int,
    parts: NDArray[np.int64],
    weight: NDArray[np.float64],
    is_finite: NDArray[np.bool_],
    rounded: NDArray[np.float32],
) -> int:
    """Put together what several executors have summed of the groups of an arrangement.

    Args:
        block: See `arranging.arrange`, as ``capacity``.
        parts: Addresses of sums of each group, 0 for none; shape ``(groups, executors)``. The first
            one's memory is used.
        weight: See `train_units`, as ``is_finite``.
        rounded: Where sums are put, rounded once, shape ``(groups, parameters)``.

    Returns:
        Number of updates that are not finite, hence in no sum.
    """
    parameters = rounded.shape[1]
    for group in range(len(rounded)):
        to = rounded.ctypes.data + 4 * group * parameters
        for begin in range(0, parameters, _AT_A_TIME):
            count = min(_AT_A_TIME, parameters - begin)
            whole = 0
            for executor in range(parts.shape[1]):
                part = parts[group, executor] + 8 * begin
                if parts[group, executor] == 0:
                    continue
                if whole != 0:
                    add_doubles(whole, part, count)
                else:
                    whole = part
            if whole != 0:
                round_doubles(to + 4 * begin, whole, count)
    return weigh_groups(block, columns_of(block, capacity), weight, is_finite)


@compiled
def _row_of(versions: NDArray[np.int64], number: int) -> int:
    """Row of a version."""
    row = 0
    while versions[row, 0] != number:
        row += 1
    return row
