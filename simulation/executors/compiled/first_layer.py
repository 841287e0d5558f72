"""A batch's way into the dense layers: features copied, or rows of a table looked up.

Of a table only the rows that a client's records use are copied, trained and summed.
"""

import math

import numpy as np

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.layout import BAG, FEATURES
from simulation.executors.compiled.loops import (
    add,
    add_rows,
    cut_off_negative,
    fill,
    pull_back,
)
from simulation.executors.compiled.memory import get_id, get_index, move, put_id
from simulation.executors.compiled.network import Network


@compiled
def number_rows(net: Network, x: int, count: int) -> int:
    """Copy the table rows that a client's records use; returns how many there are, or -1.

    -1 means that an id is beyond the table.

    Args:
        x: Address of its ids, int32, ``(count, slots)``.
    """
    row_bytes = 4 * net.width
    used, beyond = 0, False
    for i in range(count * net.slots):
        identity = int(get_id(x, i))
        if identity >= net.table_rows:
            beyond = True
            identity = -1
        row = -1
        if identity >= 0:
            row = int(get_id(net.row_of_id, identity))
            if row < 0:
                row = used
                put_id(net.row_of_id, identity, np.int32(row))
                put_id(net.used, row, np.int32(identity))
                move(net.table + row * row_bytes, net.base_table + identity * row_bytes, row_bytes)
                used += 1
        put_id(net.rows, i, np.int32(row))
    for row in range(used):
        put_id(net.row_of_id, int(get_id(net.used, row)), np.int32(-1))
    return -1 if beyond else used


@compiled
def take(net: Network, weights: int, x: int, y: int, begin: int, count: int) -> None:
    """Write labels, and inputs of the first dense layer, of ``count`` records of the order.

    Args:
        weights: Whose bias a bag has.
        x: Address of the client's first record; not read where it has a table.
        y: Address of its first label.
        begin: Place in the order of the first one.
    """
    inputs, columns, width = net.values + 4 * net.levels[0, 0], net.levels[0, 1], net.levels[0, 3]
    row_bytes = 4 * net.width
    for i in range(count):
        record = get_index(net.order, begin + i)
        move(net.labels + 4 * net.tasks * i, y + 4 * net.tasks * record, 4 * net.tasks)
        into = inputs + 4 * i * columns
        if net.first == FEATURES:
            move(into, x + 4 * width * record, 4 * width)
            continue
        rows = net.rows + 4 * net.slots * record
        if net.first == BAG:
            move(into, weights + 4 * net.bag_bias, row_bytes)
            share = _slot_weight(net, rows)
        for slot in range(net.slots):
            row = int(get_id(rows, slot))
            if net.first == BAG:
                if row >= 0:
                    add(into, net.table + row * row_bytes, share, net.width)
            elif row >= 0:
                move(into + slot * row_bytes, net.table + row * row_bytes, row_bytes)
            else:
                fill(into + slot * row_bytes, 0.0, net.width)
        if net.first == BAG:
            cut_off_negative(into, width)


@compiled
def step_table(
    net: Network, source: int, target: int, begin: int, count: int, used: int, pull: float
) -> None:
    """The step of the layer below the dense ones; see `network.backward`."""
    row_bytes = 4 * net.width
    gradient, columns = net.gradients + 4 * net.levels[0, 0], net.levels[0, 1]
    bias = 4 * net.bag_bias
    if pull != 0.0:
        for row in range(used):
            base = net.base_table + int(get_id(net.used, row)) * row_bytes
            pull_back(net.table + row * row_bytes, base, pull, net.width)
        pull_back(source + bias, net.base + bias, pull, columns)
    if net.first == BAG:
        if target != source:
            move(target + bias, source + bias, 4 * columns)
        add_rows(target + bias, gradient, columns, count)
    for i in range(count):
        of_record = gradient + 4 * i * columns
        rows = net.rows + 4 * net.slots * get_index(net.order, begin + i)
        share = 1.0
        if net.first == BAG:
            share = _slot_weight(net, rows)
        for slot in range(net.slots):
            row = int(get_id(rows, slot))
            if row >= 0:
                of_slot = of_record if net.first == BAG else of_record + slot * row_bytes
                add(net.table + row * row_bytes, of_slot, share, net.width)


@compiled
def _slot_weight(net: Network, rows: int) -> float:
    """One over the square root of a record's used slots."""
    used = 0
    for slot in range(net.slots):
        used += get_id(rows, slot) >= 0
    return 1.0 / math.sqrt(max(used, 1))
