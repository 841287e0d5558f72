"""A `Grid` without a SuperLink: nodes are functions, and replies come after so many looks."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Answer = Callable[[Message], Message | None]

NODE_UNAVAILABLE = 5


@dataclass
class Node:
    """A node and its ClientApp.

    Attributes:
        looks: At which look for replies its reply is there; the first is 1.
        online: Whether it can be sent messages.
    """

    answer: Answer
    looks: int = 1
    online: bool = True
    received: list[Message] = field(default_factory=list)


@dataclass
class _Pending:
    message: Message
    looks_left: int


class InProcessGrid(Grid):
    """Node ids are 10, 11, ... in the order given."""

    def __init__(self, nodes: Iterable[Node | Answer]) -> None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
        made = [node if isinstance(node, Node) else Node(node) for node in nodes]
        self.nodes = dict(zip(itertools.count(10), made, strict=False))
        self.pending: dict[str, _Pending] = {}
        self.sent: list[Message] = []
        self.before_pull: Callable[[], None] = lambda: None

    run = None

    def set_run(self, run):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def get_node_ids(self):
        return [node_id for node_id, node in self.nodes.items() if node.online]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            node = self.nodes.get(message.metadata.dst_node_id)
            if node is None or not node.online:
                ids.append("")
                continue
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
            node.received.append(message)
            ids.append(message.metadata.message_id)
            self.pending[ids[-1]] = _Pending(message, node.looks)
        return ids

    def pull_messages(self, message_ids):
        self.before_pull()
        replies = []
        for message_id in list(message_ids):
            pending = self.pending[message_id]
            pending.looks_left -= 1
            if pending.looks_left > 0:
                continue
            node = self.nodes[pending.message.metadata.dst_node_id]
            reply = node.answer(pending.message) if node.online else gone(pending.message)
            if reply is not None:
                del self.pending[message_id]
                replies.append(reply)
        return replies

    def send_and_receive(self, messages, *, timeout=None):
        waiting, replies = [i for i in self.push_messages(messages) if i], []
        for _ in range(1000):
            came = self.pull_messages(waiting)
            replies += came
            waiting = [i for i in waiting if i in self.pending]
            if not waiting:
                break
        return replies


def gone(message: Message) -> Message:
    return Message(Error(NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)


def raising(message: Message) -> Message:
    return Message(Error(2, "<class 'ValueError'>:<'no data'>"), reply_to=message)


def silent(message: Message) -> None:
    return None


def base_of(message: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in arrays_in(message).items()}


def arrays_in(message: Message) -> ArrayRecord:
    (arrays,) = message.content.array_records.values()
    return arrays


def reply(
    message: Message, arrays: dict[str, np.ndarray], metrics: dict[str, object] | None = None
) -> Message:
    """A train reply as a Flower ClientApp makes it."""
    records = {
        "arrays": ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()}),
        "metrics": MetricRecord({"num-examples": 20} if metrics is None else metrics),
    }
    return Message(RecordDict(records), reply_to=message)


def evaluated(message: Message, **metrics: object) -> Message:
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def stepping(step: float, *, examples: int = 20) -> Answer:
    """A client that adds ``step`` to every array; it evaluates to its first value."""

    def answer(message: Message) -> Message:
        base = base_of(message)
        if message.metadata.message_type == "evaluate":
            value = float(next(iter(base.values())).ravel()[0])
            return evaluated(message, **{"num-examples": examples, "value": value})
        arrays = {name: array + array.dtype.type(step) for name, array in base.items()}
        return reply(message, arrays, {"num-examples": examples, "loss": step})

    return answer


def shrinking(client: int) -> Answer:
    """One gradient step towards the client's own point, with an example count of its own."""

    def answer(message: Message) -> Message:
        generator = np.random.default_rng(client)
        base = base_of(message)
        goals = {name: generator.standard_normal(a.shape) for name, a in base.items()}
        arrays = {n: (a - 0.3 * (a - goals[n])).astype(a.dtype) for n, a in base.items()}
        return reply(message, arrays, {"num-examples": 5 + 3 * client, "loss": float(client)})

    return answer
