"""A version's weights, as they come, put where the kernel reads them."""

import math

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.compiling import entry
from simulation.executors.compiled.loops import squares
from simulation.executors.compiled.memory import move, put_double


@entry
def pack(weights: int, packed: int, norms: int, layers: NDArray[np.int64]) -> None:
    """Copy dense parameters into padded rows, and note how large they are.

    Args:
        weights: Address of all parameters in wire order, float32.
        packed: Address of `Layout.padded` floats; padding is left as it is.
        norms: Address of L2 norms, float64: of the table, a bag's bias with it, and of each layer.
        layers: Fields of `Layer`, ``(layers, 8)``.
    """
    put_double(norms, 0, math.sqrt(squares(weights, layers[0, 7])))
    for at in range(len(layers)):
        layer = layers[at]
        inputs, outputs = layer[4], layer[5]
        source, row_bytes = weights + 4 * layer[7], 4 * outputs
        put_double(norms, at + 1, math.sqrt(squares(source, (inputs + 1) * outputs)))
        to = packed + 4 * layer[0]
        for _ in range(inputs):
            move(to, source, row_bytes)
            to += 4 * layer[3]
            source += row_bytes
        move(packed + 4 * layer[1], source, row_bytes)
