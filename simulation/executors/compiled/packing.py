"""A version's weights, as they come, put where the kernel reads them."""

import math

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import entry
from simulation.executors.compiled.layout import BAG
from simulation.executors.compiled.loops import squares
from simulation.executors.compiled.memory import move, put_double


@entry
def pack(
    parameters: NDArray[np.float32],
    fixed: NDArray[np.int64],
    layers: NDArray[np.int64],
    version: NDArray[np.int64],
) -> None:
    """Copy parameters to where a version's are, and note how large they are.

    Args:
        parameters: In wire order, shape ``(parameters,)``.
        fixed: See `network.network_of`.
        layers: Fields of `Layer`, ``(layers, 8)``.
        version: See `network.network_of`. Dense parameters go into padded rows, whose padding is
            left as it is. Norms are of the table, a bag's bias with it, and of each layer.
    """
    weights = parameters.ctypes.data
    first, bag_bias, width, table_rows = fixed[0], fixed[5], fixed[6], fixed[7]
    packed, table, norms = version[1], version[2], version[3]
    move(table, weights, 4 * table_rows * width)
    if first == BAG:
        move(packed + 4 * bag_bias, weights + 4 * table_rows * width, 4 * width)
    put_double(norms, 0, math.sqrt(squares(weights, layers[0, 7])))
    for at in range(len(layers)):
        layer = layers[at]
        outputs, row_bytes = layer[5], 4 * layer[5]
        source, to, squared = weights + 4 * layer[7], packed + 4 * layer[0], 0.0
        for _ in range(layer[4]):
            squared += squares(source, outputs)
            move(to, source, row_bytes)
            to += 4 * layer[3]
            source += row_bytes
        squared += squares(source, outputs)
        move(packed + 4 * layer[1], source, row_bytes)
        put_double(norms, at + 1, math.sqrt(squared))
