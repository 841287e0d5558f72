"""A batch's way into the dense layers: features copied, or rows of a table looked up.

Of a table only the rows that a client's records use are copied, trained and summed.
"""

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import compiled
from simulation.executors.compiled.layout import BAG, EMBEDDING, FEATURES
from simulation.executors.compiled.network import (
    Network,
    Vector,
    cut_off_negative,
    level,
    pull_back,
)


@intrinsic
def pointer(_context: Any, address: Any) -> Any:  # noqa: ANN401
    """An address as Numba wants one."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.inttoptr(arguments[0], _.get_value_type(signature.return_type))

    return types.voidptr(types.int64), generate


@compiled
def number_rows(net: Network, x: int, count: int) -> int:
    """Copy the table rows that a client's records use; returns how many there are.

    Args:
        x: Address of its ids, int32, ``(count, slots)``.
    """
    ids = carray(pointer(x), (count, net.slots), dtype=np.int32)
    used = 0
    for i in range(count):
        for slot in range(net.slots):
            identity = ids[i, slot]
            if identity < 0:
                net.rows[i, slot] = -1
                continue
            row = net.row_of_id[identity]
            if row < 0:
                row = used
                net.row_of_id[identity] = row
                net.used[row] = identity
                for j in range(net.base_table.shape[1]):
                    net.table[row, j] = net.base_table[identity, j]
                used += 1
            net.rows[i, slot] = row
    for row in range(used):
        net.row_of_id[net.used[row]] = -1
    return used


@compiled
def take(
    net: Network, weights: Vector, x: int, y: int, order: NDArray[np.int64], count: int
) -> None:
    """Write inputs of the first dense layer, and labels, of the records in ``order``.

    Args:
        weights: Whose bias a bag has.
        x: Address of the client's first record; of ids only where it has a table.
        y: Address of its first label, float32.
    """
    tasks = net.labels.shape[1]
    for i in range(count):
        label = carray(pointer(y + 4 * tasks * order[i]), (tasks,), dtype=np.float32)
        for task in range(tasks):
            net.labels[i, task] = label[task]
    inputs = level(net, net.values, 0, count)
    width = net.levels[0, 2]
    if net.first == FEATURES:
        for i in range(count):
            record = carray(pointer(x + 4 * width * order[i]), (width,), dtype=np.float32)
            for j in range(width):
                inputs[i, j] = record[j]
    elif net.first == BAG:
        bias = weights[net.bag_bias : net.bag_bias + width]
        for i in range(count):
            for j in range(width):
                inputs[i, j] = bias[j]
            share = _slot_weight(net, order[i])
            for slot in range(net.slots):
                row = net.rows[order[i], slot]
                if row >= 0:
                    for j in range(width):
                        inputs[i, j] += share * net.table[row, j]
        cut_off_negative(inputs)
    else:
        across = net.table.shape[1]
        for i in range(count):
            for slot in range(net.slots):
                row = net.rows[order[i], slot]
                place = inputs[i, slot * across : (slot + 1) * across]
                for j in range(across):
                    place[j] = net.table[row, j] if row >= 0 else np.float32(0.0)


@compiled
def step_table(
    net: Network,
    source: Vector,
    target: Vector,
    order: NDArray[np.int64],
    count: int,
    used: int,
    pull: float,
) -> None:
    """The step of the layer below the dense ones; see `network.backward`."""
    if net.first == FEATURES:
        return
    if pull != 0.0:
        for row in range(used):
            identity = net.used[row]
            base = net.base_table[identity : identity + 1]
            pull_back(net.table[row : row + 1], base, pull)
    gradient = level(net, net.gradients, 0, count)
    width = net.levels[0, 2]
    if net.first == BAG:
        bias = net.bag_bias
        if pull != 0.0:
            of_base = net.base[bias : bias + width].reshape((1, width))
            pull_back(source[bias : bias + width].reshape((1, width)), of_base, pull)
        for j in range(width):
            target[bias + j] = source[bias + j]
        for i in range(count):
            for j in range(width):
                target[bias + j] += gradient[i, j]
            share = _slot_weight(net, order[i])
            for slot in range(net.slots):
                row = net.rows[order[i], slot]
                if row >= 0:
                    for j in range(width):
                        net.table[row, j] += share * gradient[i, j]
    elif net.first == EMBEDDING:
        across = net.table.shape[1]
        for i in range(count):
            for slot in range(net.slots):
                row = net.rows[order[i], slot]
                if row >= 0:
                    place = gradient[i, slot * across : (slot + 1) * across]
                    for j in range(across):
                        net.table[row, j] += place[j]


@compiled
def _slot_weight(net: Network, record: int) -> np.float32:
    """One over the square root of a record's used slots."""
    used = 0
    for slot in range(net.slots):
        used += net.rows[record, slot] >= 0
    return np.float32(1.0) / np.sqrt(np.float32(max(used, 1)))
