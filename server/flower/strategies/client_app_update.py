"""What the reply of somebody's own ClientApp means: whole weights become a delta.

As Flower's strategies ask of a train reply: one ArrayRecord with the names that were sent, and one
MetricRecord with the example count. Nothing here trusts it; what only the content gate can judge
is passed on to it, so that it is refused for the same numbered reasons as a device's update.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.protocol import device_pb2 as pb
from server.flower.node_messages import NodeArray, NodeReply
from server.flower.node_tasks import Parameters
from server.flower.node_update import NodeUpdate, example_count, in_wire_order
from server.flower.strategies.array_layout import is_real_number
from server.update_gate.rejections import Rejection, RejectionReason


def read_client_app_update(
    reply: NodeReply, base: Parameters, weighted_by_key: str
) -> NodeUpdate | Rejection:
    """The update in a reply that carries records.

    Args:
        base: Arrays the task was sent with, by name, in wire order.
        weighted_by_key: Metric that holds the example count.
    """
    if reply.too_large:
        return Rejection(RejectionReason.TOO_LARGE, "the reply is larger than any update can be")
    if reply.malformed is not None:
        return Rejection(RejectionReason.MALFORMED, reply.malformed)
    for found, kind in ((reply.arrays, "ArrayRecord"), (reply.metric_names, "MetricRecord")):
        if len(found) != 1:
            return Rejection(
                RejectionReason.MALFORMED, f"the reply has {len(found)} {kind}s; it must have one"
            )
    (arrays,) = reply.arrays.values()
    metrics = reply.values[reply.metric_names[0]]
    num_examples = example_count(metrics.get(weighted_by_key), weighted_by_key)
    if isinstance(num_examples, Rejection):
        return num_examples
    update = pb.Update(num_examples=num_examples, loss_before=math.nan, loss_after=math.nan)
    for array in in_wire_order(arrays, base):
        update.delta.tensors.append(_delta(array, base.get(array.name)))
    return NodeUpdate(update.SerializeToString(deterministic=True), 0.0)


def _delta(array: NodeArray, base: NDArray[Any] | None) -> pb.Tensor:
    """The difference from the base in float32; what is not of its shape goes on as it came."""
    dtype = _dtype(array.dtype)
    if dtype is None or not is_real_number(dtype):
        return pb.Tensor(name=array.name, dtype=array.dtype, shape=array.shape, data=array.data)
    values = np.frombuffer(array.data, dtype.newbyteorder("<")).reshape(array.shape)
    with np.errstate(over="ignore", invalid="ignore"):  # the gate says so, with a number
        if base is not None and array.shape == base.shape:
            if values.dtype == base.dtype == np.float32:
                values = values - base
            else:
                values = values.astype(np.float64) - base.astype(np.float64)
        data = np.ascontiguousarray(values, "<f4").tobytes()
    return pb.Tensor(name=array.name, dtype="float32", shape=array.shape, data=data)


def _dtype(name: str) -> np.dtype[Any] | None:
    try:
        return np.dtype(name)
    except TypeError:
        return None
