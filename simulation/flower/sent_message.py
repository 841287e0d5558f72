"""A message on its way through a virtual SuperLink, and its reply."""

import hashlib
import math
from dataclasses import dataclass

from flwr.app import Message
from flwr.app.message_type import MessageType
from flwr.common.constant import MESSAGE_TTL_TOLERANCE

from simulation.durations import TaskCourse, TaskDuration, TaskWork
from simulation.flower.virtual_time import EPOCH_S


@dataclass(slots=True)
class SentMessage:
    """A message on its way.

    Attributes:
        message: As pushed; its content is shared by the messages of one push.
        base_version: Version the server had when it sent it.
        task: Number in the task log, once a node has taken it.
        upcoming: Its reply, before it has arrived.
        reply: Once it has arrived.
        is_over: Answered or given up: the server will not hear of it again.
        is_ended: Its device is done with it.
        is_decided: Its task's outcome is known.
    """

    number: int
    message: Message
    client: int
    bytes_down: int
    base_version: int
    expires_s: float
    task: int | None = None
    started_s: float = math.inf
    dropout_s: float = math.inf
    duration: TaskDuration[float] | None = None
    work: TaskWork | None = None
    course: TaskCourse | None = None
    upcoming: Message | None = None
    reply: Message | None = None
    is_over: bool = False
    is_ended: bool = False
    is_decided: bool = False


def is_training(message: Message) -> bool:
    """Whether a message, or the one it replies to, asks for training."""
    category: str = message.metadata.message_type.partition(".")[0]
    return category == MessageType.TRAIN


def server_round(message: Message) -> int | None:
    """Round a message is for, as strategies write it into its config; None if it does not say."""
    found = (config.get("server-round") for config in message.content.config_records.values())
    return next((number for number in found if isinstance(number, int)), None)


def made_at(reply: Message, sent: SentMessage, at_s: float) -> Message:
    """A reply as if made at a moment: it was made before its duration was known."""
    metadata, asked = reply.metadata, sent.message.metadata
    made_at, metadata.created_at = metadata.created_at, EPOCH_S + at_s
    expires_at = asked.created_at + asked.ttl
    if metadata.ttl >= expires_at - made_at - MESSAGE_TTL_TOLERANCE:  # the app asked for no less
        metadata.ttl = expires_at - metadata.created_at
    digest = hashlib.sha256(f"{asked.message_id}|reply".encode()).hexdigest()
    metadata.__dict__["_message_id"] = digest
    return reply
