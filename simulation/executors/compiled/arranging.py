"""In which order tasks are trained: by base version, then by what is summed together.

Tasks come in any order and from any versions. A *group* is those that start from one version; a
*unit* is what nobody may divide: a task with weights of its own, or all tasks of a group and lane
in sample space, as their sum is rounded as one. The arrangement names records by row and versions
by number, so it means the same in every process.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled, entry
from simulation.executors.compiled.memory import (
    get_byte,
    get_index,
    put_double,
    put_index,
)

LANES = 8
"""Clients trained in sample space are summed by the lane they are in, whatever executor has it."""

OWN_WEIGHTS, ONE_STEP, STEPS = 0, 1, 2
"""How a client is trained: with weights of its own; or in sample space, in one step or several."""

UNKNOWN_VERSION, UNKNOWN_CLIENT, WITHOUT_RECORDS = 1, 2, 3
"""Why tasks are refused."""


class Arrangement(NamedTuple):
    """Addresses of columns of 64-bit words, with room for as many rows as tasks.

    Attributes:
        place: Of each task in training order, its position among the tasks as they came.
        row: Its first record.
        records: How many it trains on, at least 1.
        rate: Learning rate, float64.
        seed: Of the order of its records, uint64.
        weight: Of its update in the sum, float64.
        sampled: 1 if its client is trained in sample space, else 0.
        unit_end: Of each unit, the task in training order after its last.
        unit_group: Of each unit.
        taker: Of each unit, the executor that has taken it; -1 for none yet.
        turn: Units in the order in which they are taken.
        version: Of each group, ascending.
        group_end: Of each group: where it ends in ``grouped``.
        grouped: Positions of tasks as they came, group by group.
        group_weight: Of each group's finite updates, float64.
    """

    place: int
    row: int
    records: int
    rate: int
    seed: int
    weight: int
    sampled: int
    unit_end: int
    unit_group: int
    taker: int
    turn: int
    version: int
    group_end: int
    grouped: int
    group_weight: int


COLUMNS = len(Arrangement._fields)
TASKS, GROUPS, UNITS, USED_ROWS, TURNS, NEXT = 0, 1, 2, 3, 4, 8
"""Words before the columns: how many there are of each, the last task's rows of the table, how many
units are to be taken, and whose turn it is: on a line of the cache of its own."""
HEADER = 16


class Index(NamedTuple):
    """Where clients' records are; addresses by data client.

    Attributes:
        clients: How many there are.
        first_row: int64.
        records: int64.
        kind: `OWN_WEIGHTS`, `ONE_STEP` or `STEPS`, a byte.
        most: A task trains on so many of the records, the last ones.
    """

    clients: int
    first_row: int
    records: int
    kind: int
    most: int


@compiled
def columns_of(block: int, capacity: int) -> Arrangement:
    """The columns of a block of `HEADER` and ``COLUMNS * capacity`` words."""
    at, size = block + 8 * HEADER, 8 * capacity
    return Arrangement(
        at, at + size, at + 2 * size, at + 3 * size, at + 4 * size, at + 5 * size, at + 6 * size,
        at + 7 * size, at + 8 * size, at + 9 * size, at + 10 * size, at + 11 * size,
        at + 12 * size, at + 13 * size, at + 14 * size,
    )  # fmt: skip


@entry
def arrange(
    index: NDArray[np.int64],
    data_client: NDArray[np.int64],
    base_version: NDArray[np.int64],
    weight: NDArray[np.float64],
    rate: NDArray[np.float64],
    seed: NDArray[np.uint64],
    versions: NDArray[np.int64],
    block: int,
    capacity: int,
) -> int:
    """Write the arrangement of some tasks.

    Args:
        index: `Index`.
        versions: Those that can be started from, one a row, its number first.
        block: Address of `HEADER` and ``COLUMNS * capacity`` words.

    Returns:
        Number of groups; or, below 0, minus ``4 * position + reason`` of a task that is refused.
    """
    clients = Index(index[0], index[1], index[2], index[3], index[4])
    to = columns_of(block, capacity)
    tasks = len(data_client)
    groups = _write_groups(to, base_version, versions)
    if groups < 0:
        return groups
    done, units, begin, before = 0, 0, 0, 0
    for group in range(groups):
        end = get_index(to.group_end, group)
        for sampled in (1, 0):  # a sum of many is written, then single updates are added
            first = done
            for n in range(begin, end):
                place = get_index(to.grouped, n)
                client = data_client[place]
                if client < 0 or client >= clients.clients:
                    return -int(4 * place + UNKNOWN_CLIENT)
                if min(get_byte(clients.kind, client), 1) == sampled:
                    put_index(to.place, done, place)
                    done += 1
            if sampled:
                _sort(clients, to.place + 8 * first, done - first, data_client, seed, rate, weight)
            for n in range(first, done):
                place = get_index(to.place, n)
                client = data_client[place]
                if sampled and n > first and client % LANES == before % LANES:
                    units -= 1
                put_index(to.unit_end, units, n + 1)
                put_index(to.unit_group, units, group)
                put_index(to.taker, units, -1)
                put_index(to.turn, units, units)
                units, before = units + 1, client
                held = get_index(clients.records, client)
                records = min(held, clients.most)
                if records < 1:
                    return -int(4 * place + WITHOUT_RECORDS)
                put_index(to.row, n, get_index(clients.first_row, client) + held - records)
                put_index(to.records, n, records)
                put_double(to.rate, n, rate[place])
                put_index(to.seed, n, np.int64(seed[place]))
                put_double(to.weight, n, weight[place])
                put_index(to.sampled, n, sampled)
        begin = end
    put_index(block, TASKS, tasks)
    put_index(block, GROUPS, groups)
    put_index(block, UNITS, units)
    put_index(block, TURNS, units)
    put_index(block, NEXT, 0)
    return groups


@compiled
def _write_groups(
    to: Arrangement, base_version: NDArray[np.int64], versions: NDArray[np.int64]
) -> int:
    """Write which task is in which group; returns how many there are, or see `arrange`."""
    groups, tasks = 0, len(base_version)
    for n in range(tasks):
        version = base_version[n]
        if n > 0 and version == base_version[n - 1]:
            continue
        at = _group_of(to, version, groups)
        if at < groups and get_index(to.version, at) == version:
            continue
        is_known = False
        for row in range(len(versions)):
            is_known = is_known or versions[row, 0] == version
        if not is_known:
            return -(4 * n + UNKNOWN_VERSION)
        for later in range(groups, at, -1):
            put_index(to.version, later, get_index(to.version, later - 1))
        put_index(to.version, at, version)
        groups += 1
    for group in range(groups):
        put_index(to.group_end, group, 0)
    for n in range(tasks):
        group = _group_of(to, base_version[n], groups)
        put_index(to.place, n, group)
        put_index(to.group_end, group, get_index(to.group_end, group) + 1)
    begin = 0
    for group in range(groups):  # until all are placed, its end is where its next task goes
        size = get_index(to.group_end, group)
        put_index(to.group_end, group, begin)
        begin += size
    for n in range(tasks):
        group = get_index(to.place, n)
        end = get_index(to.group_end, group)
        put_index(to.grouped, end, n)
        put_index(to.group_end, group, end + 1)
    return groups


@compiled
def _group_of(to: Arrangement, version: int, groups: int) -> int:
    """The first group whose version is not smaller."""
    low, high = 0, groups
    while low < high:
        middle = (low + high) // 2
        if get_index(to.version, middle) < version:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _sort(
    clients: Index,
    places: int,
    count: int,
    data_client: NDArray[np.int64],
    seed: NDArray[np.uint64],
    rate: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Order tasks by lane, those of one step first, then by client: a heap sort in place.

    A client's own tasks come by seed, rate and weight, so the order is of the tasks alone.
    """
    for step in range(count // 2 + count - 1):
        if step < count // 2:
            root, size = count // 2 - 1 - step, count
        else:  # the last of those not in place yet is the largest
            size = count - 1 - (step - count // 2)
            largest = get_index(places, 0)
            put_index(places, 0, get_index(places, size))
            put_index(places, size, largest)
            root = 0
        while 2 * root + 1 < size:
            child = 2 * root + 1
            left = get_index(places, child)
            if child + 1 < size:
                right = get_index(places, child + 1)
                if _is_before(clients, left, right, data_client, seed, rate, weight):
                    child, left = child + 1, right
            parent = get_index(places, root)
            if not _is_before(clients, parent, left, data_client, seed, rate, weight):
                break
            put_index(places, root, left)
            put_index(places, child, parent)
            root = child


@compiled
def _is_before(
    clients: Index,
    one: int,
    other: int,
    data_client: NDArray[np.int64],
    seed: NDArray[np.uint64],
    rate: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> bool:
    """Whether a task comes before another; see `_sort`."""
    a, b = data_client[one], data_client[other]
    if a == b:
        if seed[one] != seed[other]:
            return bool(seed[one] < seed[other])
        if rate[one] != rate[other]:
            return bool(rate[one] < rate[other])
        return bool(weight[one] < weight[other])
    if a % LANES != b % LANES:
        return bool(a % LANES < b % LANES)
    kind_a, kind_b = get_byte(clients.kind, a), get_byte(clients.kind, b)
    return bool(kind_a < kind_b) if kind_a != kind_b else bool(a < b)


@compiled
def weigh_groups(
    block: int, to: Arrangement, weight: NDArray[np.float64], is_finite: NDArray[np.bool_]
) -> int:
    """Add up the weights of each group's finite updates, one after the other as they came.

    Returns:
        How many are not finite.
    """
    begin, not_finite = 0, 0
    for group in range(get_index(block, GROUPS)):
        end, total = get_index(to.group_end, group), 0.0
        for n in range(begin, end):
            place = get_index(to.grouped, n)
            if is_finite[place]:
                total += weight[place]
            else:
                not_finite += 1
        put_double(to.group_weight, group, total)
        begin = end
    return not_finite
