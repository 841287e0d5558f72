"""A simulated update as a job's codec leaves it: what the server would decode."""

import math
from dataclasses import replace

import numpy as np

from device_runtime.compression import UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from modeling.spec import ModelSpec
from server.update_gate.content import sum_of_squares
from simulation.executors.training import LocalUpdate


def compressed(model: ModelSpec, update: LocalUpdate, codec: UpdateCodec, seed: int) -> LocalUpdate:
    """Encode and decode an update as its device and the server do.

    The values are those of the whole update, though a table comes without the rows that no record
    uses: they are 0, so half precision leaves them 0 and top-k leaves them out. Scales of int8 are
    of blocks of the whole table, which is then returned whole.

    Args:
        seed: Of the task; rounds int8.
    """
    if codec.name == "int8" and update.rows is not None:
        whole = update.dense(model.parameter_count)
        update = replace(update, delta=whole, rows=None, row_width=0)
    sizes = [parameter.size for parameter in model.parameters]
    if update.rows is not None:
        sizes[0] = update.rows.size * update.row_width
    arrays = np.split(update.delta, np.cumsum(sizes[:-1]))
    tensors = compress(arrays, codec, seed=seed, parameter_count=model.parameter_count)
    decoded = all_decoded(tensors)
    return replace(update, delta=decoded, norm=math.sqrt(sum_of_squares([decoded])))
