"""Messages as they cross a link: copied, measured in bytes, and Flower's answers for lost ones."""

import copy
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)

Value = TypeVar("Value")
_EXAMPLE_KEYS = ("num-examples", "num_examples")


def copied_content(content: RecordDict) -> RecordDict:
    """A copy that shares nothing that can be changed: all messages of a round share one content."""
    return RecordDict({name: _copied_record(record) for name, record in content.items()})


def _copied_record(
    record: ArrayRecord | MetricRecord | ConfigRecord,
) -> ArrayRecord | MetricRecord | ConfigRecord:
    if isinstance(record, ArrayRecord):
        return ArrayRecord(
            {
                name: Array(dtype=a.dtype, shape=tuple(a.shape), stype=a.stype, data=a.data)
                for name, a in record.items()
            }
        )
    if isinstance(record, MetricRecord):
        return MetricRecord({key: _copied(value) for key, value in record.items()})
    return ConfigRecord({key: _copied(value) for key, value in record.items()})


def _copied(value: Value) -> Value:
    return copy.copy(value) if isinstance(value, list) else value


def copied_message(message: Message, content: RecordDict | None = None) -> Message:
    """A copy of a message with metadata of its own.

    Args:
        content: Instead of a copy of the message's.
    """
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return make_message(metadata, error=Error(message.error.code, message.error.reason))
    return make_message(metadata, copied_content(message.content) if content is None else content)


def message_bytes(message: Message) -> int:
    """Bytes of a message on the wire: the objects of its tree, each once, as SuperNodes pull it."""
    with no_object_id_recompute():
        return sum(len(each.deflate()) for each in get_all_nested_objects(message).values())


def num_examples(reply: Message) -> int:
    """Examples a client says it used: the first ``num-examples`` of its metrics, else 1."""
    for record in reply.content.metric_records.values():
        for key in _EXAMPLE_KEYS:
            value = record.get(key)
            if isinstance(value, int | float) and value >= 0:
                return int(value)
    return 1


def message_unavailable(message_id: str, run_id: int) -> Message:
    """What a SuperLink answers for a message it does not know any more (code 3)."""
    return create_message_error_unavailable_ins_message(message_id, run_id)


def reply_unavailable(message: Message) -> Message:
    """What a SuperLink answers for a message whose reply has expired (code 4)."""
    return create_message_error_unavailable_res_message(message.metadata, "msg_unavail")


def node_unavailable(message: Message) -> Message:
    """What a SuperLink answers for a message to a node that is offline (code 5)."""
    return create_message_error_unavailable_res_message(message.metadata, "node_unavail")


def error_reply(message: Message, code: int, reason: str) -> Message:
    """A SuperNode's answer for a client that gave none."""
    return Message(Error(code, reason), reply_to=message)
