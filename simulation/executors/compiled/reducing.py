"""What an executor asks of the kernel: train the tasks of an arrangement, and sum their updates."""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.arranging import (
    GROUPS,
    UNITS,
    USED_ROWS,
    columns_of,
    weigh_groups,
)
from simulation.executors.compiled.clients import Outcomes, Plan, train_alone
from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.loops import fill_doubles, round_doubles
from simulation.executors.compiled.memory import get_index, put_index
from simulation.executors.compiled.network import network_of, parameters_of
from simulation.executors.compiled.sample_space import (
    Waiting,
    add_rows_on_grid,
    samples_of,
    train_lane,
)


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
    is_added: bool,
    rounded: NDArray[np.float32],
) -> int:
    """Train all units of an arrangement and sum each group's finite updates.

    Args:
        fixed: The first fields of `Network`, then those of `Plan`.
        space: See `sample_space.samples_of`, as ``rooms``.
        versions: See `network.network_of`, one a row.
        block: See `arranging.arrange`, as ``capacity``.
        weight: Of the tasks as they came.
        num_examples: This and what follows: see `Outcomes`.
        sums: Of each group, the address of room for its sum, float64, in wire order; 0 for none.
        is_added: Whether there are sums there to add to; else they are written.
        rounded: Where sums are put, rounded once, shape ``(groups, parameters)``; or no rows.

    Returns:
        Number of updates that are not finite, hence in no sum; or -1 minus the position of a task
        whose records have an id beyond the table.
    """
    plan = Plan(
        fixed[19], fixed[20], fixed[21], fixed[22], fixed[23], fixed[24], fixed[25], fixed[26],
        proximal_mu, limit,
    )  # fmt: skip
    samples = samples_of(space, rooms)
    tasks = columns_of(block, capacity)
    found = Outcomes(
        num_examples, train_loss, is_finite, diverged_step, norm, loss_before, loss_after
    )
    groups, units = get_index(block, GROUPS), get_index(block, UNITS)
    to, begin, unit = rounded.ctypes.data, 0, 0
    for group in range(groups):
        net = network_of(
            fixed, layers, levels, versions, _row_of(versions, get_index(tasks.version, group))
        )
        total, parameters, waiting = sums[group], parameters_of(net), Waiting(0, 0, is_added)
        while unit < units and get_index(tasks.unit_group, unit) == group:
            end = get_index(tasks.unit_end, unit)
            if get_index(tasks.sampled, begin):
                waiting = train_lane(net, samples, plan, tasks, begin, end, waiting, total, found)
            else:
                if total != 0 and not waiting.is_summed:
                    fill_doubles(total, 0.0, parameters)
                    waiting = Waiting(0, 0, True)
                used = train_alone(net, plan, tasks, begin, total, found)
                put_index(block, USED_ROWS, used)
                if used < 0:
                    return -1 - int(get_index(tasks.place, begin))
            begin, unit = end, unit + 1
        if waiting.rows > 0:
            add_rows_on_grid(net, samples, waiting.segments, total, waiting.is_summed)
        if len(rounded) > 0:
            round_doubles(to + 4 * group * parameters, total, parameters)
    weigh_groups(tasks, groups, weight, is_finite)
    not_finite = 0
    for place in range(len(is_finite)):
        not_finite += not is_finite[place]
    return not_finite


@compiled
def _row_of(versions: NDArray[np.int64], number: int) -> int:
    """Row of a version."""
    row = 0
    while versions[row, 0] != number:
        row += 1
    return row
