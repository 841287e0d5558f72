"""Whose turn it is: the order in which several executors take the units of an arrangement.

The longest come first, each taken by whoever is free: none is then busy much longer than another
(Graham, SIAM J. Appl. Math. 1969). Lanes in sample space come before all, as the rows of an
executor's lanes are summed together.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.arranging import (
    LANES,
    NEXT,
    TURNS,
    UNITS,
    Arrangement,
    columns_of,
)
from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.memory import get_index, put_index

SIZES = 128
"""Sizes of tasks that are told apart, four between powers of two."""


@entry
def order_turns(block: int, capacity: int, begins: NDArray[np.int64]) -> None:
    """Write the order of an arrangement's units.

    Args:
        block: See `arranging.arrange`, as ``capacity``.
        begins: Work space, shape ``(SIZES + 1,)``.
    """
    tasks, units, turns = columns_of(block, capacity), get_index(block, UNITS), 0
    begins[:] = 0
    for unit in range(units):
        begin = _begin_of(tasks, unit)
        if get_index(tasks.sampled, begin):
            _insert_lane(tasks, unit, turns)
            turns += 1
        else:
            begins[SIZES - _size(get_index(tasks.records, begin))] += 1
    for size in range(SIZES + 1):  # until it has its units, a size begins where its next one goes
        count, begins[size] = begins[size], turns
        turns += count
    for unit in range(units):
        begin = _begin_of(tasks, unit)
        if not get_index(tasks.sampled, begin):
            size = SIZES - _size(get_index(tasks.records, begin))
            put_index(tasks.turn, begins[size], unit)
            begins[size] += 1


@entry
def take_again(block: int, capacity: int, is_dead: NDArray[np.bool_]) -> int:
    """Give turns to units alone whose taker is dead, and to those of which it is not known.

    Args:
        is_dead: By executor.

    Returns:
        How many there are.
    """
    tasks, turns = columns_of(block, capacity), 0
    for unit in range(get_index(block, UNITS)):
        taker = get_index(tasks.taker, unit)
        if taker < 0 or is_dead[taker]:
            put_index(tasks.taker, unit, -1)
            put_index(tasks.turn, turns, unit)
            turns += 1
    put_index(block, TURNS, turns)
    put_index(block, NEXT, 0)
    return turns


@entry
def note_takers(block: int, capacity: int, has_taken: NDArray[np.bool_]) -> None:
    """Say which executor has taken units of which group.

    Args:
        has_taken: Changed to that, shape ``(groups, executors)``.
    """
    tasks = columns_of(block, capacity)
    has_taken[:] = False
    for unit in range(get_index(block, UNITS)):
        has_taken[get_index(tasks.unit_group, unit), get_index(tasks.taker, unit)] = True


@compiled
def _begin_of(tasks: Arrangement, unit: int) -> int:
    return get_index(tasks.unit_end, unit - 1) if unit > 0 else 0


@compiled
def _insert_lane(tasks: Arrangement, unit: int, turns: int) -> None:
    """Put a lane behind the longer ones of its group."""
    rows, at = _rows_of(tasks, unit), turns
    while at > max(0, turns - LANES):
        before = get_index(tasks.turn, at - 1)
        is_longer = _rows_of(tasks, before) >= rows
        if is_longer or get_index(tasks.unit_group, before) != get_index(tasks.unit_group, unit):
            break
        put_index(tasks.turn, at, before)
        at -= 1
    put_index(tasks.turn, at, unit)


@compiled
def _rows_of(tasks: Arrangement, unit: int) -> int:
    rows = 0
    for n in range(_begin_of(tasks, unit), get_index(tasks.unit_end, unit)):
        rows += get_index(tasks.records, n)
    return rows


@compiled
def _size(records: int) -> int:
    """A larger number for more records, at least 0 and less than `SIZES`."""
    power = 0
    while (records >> power) > 7:
        power += 1
    return min(4 * power + (records >> power), SIZES - 1)
