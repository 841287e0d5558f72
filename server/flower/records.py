"""Flower messages made from, and taken apart into, plain values. Part of the pinned adapter."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SType
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from device_runtime.flower_records import SECURE
from server.flower.node_messages import NodeArray, NodeReply, NodeTask

MAX_REPLY_OBJECTS = 16_384

_MAX_HEADER_BYTES = 10_000
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class UnreadableReply(ValueError):
    """A reply's objects contradict themselves or Flower's format."""


def task_messages(tasks: Iterable[NodeTask]) -> list[Message]:
    """Train messages; tasks that share a base version share its (serialised) record."""
    arrays: dict[int, ArrayRecord] = {}
    messages = []
    for task in tasks:
        record = arrays.get(id(task.parameters))
        if record is None:
            record = ArrayRecord({name: Array(array) for name, array in task.parameters.items()})
            arrays[id(task.parameters)] = record
        config = ConfigRecord(dict(task.config))
        content = RecordDict({task.arrays_name: record, task.config_name: config})
        if task.secure is not None:
            content[SECURE] = ConfigRecord(dict(task.secure))
        messages.append(
            Message(content, task.node_id, "train", ttl=task.ttl_s, group_id=task.group_id)
        )
    return messages


def object_ids(tree: ObjectTree) -> Iterator[str]:
    """Ids in an object tree, children first, each once."""
    seen: set[str] = set()
    stack = [(tree, False)]
    while stack:
        node, expanded = stack.pop()
        if node.object_id in seen:
            continue
        if expanded:
            seen.add(node.object_id)
            yield node.object_id
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in node.children)


def read_reply(
    message_id: str, root_id: str, contents: Mapping[str, bytes], max_reply_bytes: int
) -> NodeReply:
    """Take a reply apart. Whatever a node sends, this returns and allocates within the limit.

    Args:
        message_id: Of the task that is answered.
        root_id: Object id of the reply message; ``contents`` holds it and all below it.
    """
    received = sum(len(content) for content in contents.values())
    try:
        # One small chunk may be named a million times over, so this is asked before inflating.
        if _inflated_bytes(contents) > max_reply_bytes:
            return NodeReply(message_id, too_large=True, reply_bytes=received)
        message = inflate_object_from_contents(root_id, dict(contents))
        if not isinstance(message, Message):
            raise UnreadableReply("the reply is not a message")  # noqa: TRY301
    except Exception as error:
        return _malformed(message_id, error, received)
    return read_message(message_id, message, received)


def read_message(message_id: str, message: Message, reply_bytes: int) -> NodeReply:
    """Take a reply apart that is a message already. Whatever it holds, this returns.

    Args:
        message_id: Of the task that is answered.
    """
    try:
        if message.has_error():
            error = message.error
            return NodeReply(message_id, error.code, error.reason or "", reply_bytes=reply_bytes)
        return _read_records(message_id, message.content, reply_bytes)
    except Exception as error:
        return _malformed(message_id, error, reply_bytes)


def _malformed(message_id: str, error: Exception, reply_bytes: int) -> NodeReply:
    return NodeReply(
        message_id, malformed=f"{type(error).__name__}: {error}"[:200], reply_bytes=reply_bytes
    )


def _read_records(message_id: str, content: RecordDict, reply_bytes: int) -> NodeReply:
    arrays: dict[str, list[NodeArray]] = {}
    values: dict[str, Mapping[str, object]] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays[name] = [_read_array(key, array) for key, array in record.items()]
        elif isinstance(record, MetricRecord | ConfigRecord):
            values[name] = dict(record)
    return NodeReply(
        message_id,
        arrays=arrays,
        values=values,
        metric_names=tuple(content.metric_records),
        reply_bytes=reply_bytes,
    )


def _inflated_bytes(contents: Mapping[str, bytes]) -> int:
    total = 0
    for content in contents.values():
        kind, children, _ = get_object_head_values_from_object_content(content)
        total += len(content)
        if kind == Array.__qualname__:
            chunks = json.loads(get_object_body(content, Array))["arraychunk_ids"]
            total += sum(len(contents[children[index]]) for index in chunks)
    return total


def _read_array(name: str, array: Array) -> NodeArray:
    """Read a ``.npy`` without trusting it: its header, not Flower's metadata, rules the bytes."""
    if array.stype != SType.NUMPY:
        raise UnreadableReply(f"array {name} is serialised as {array.stype}")
    stream = io.BytesIO(array.data)
    version = np.lib.format.read_magic(stream)
    read_header: Any = _NPY_HEADERS.get(version)
    if read_header is None:
        raise UnreadableReply(f"array {name} has .npy version {version}")
    shape, fortran_order, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    data = array.data[stream.tell() :]
    if dtype.hasobject or min(shape, default=0) < 0:
        raise UnreadableReply(f"array {name} is of dtype {dtype} and shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnreadableReply(f"array {name} of shape {shape} carries {len(data)} bytes")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    little = np.ascontiguousarray(values, dtype.newbyteorder("<"))
    return NodeArray(name, dtype.name, tuple(int(d) for d in shape), little.tobytes())
