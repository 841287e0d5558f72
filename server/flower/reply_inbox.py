"""Replies of one Flower run as they arrive, object by object. Part of the pinned adapter.

Flower's own `Grid.pull_messages` waits for a node that is still uploading, reads whatever size is
announced, and raises for all replies of a call when one cannot be read; here each stands alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.runtime import RuntimeHttpClient

from server.flower.control import call
from server.flower.node_messages import NodeReply
from server.flower.records import MAX_REPLY_OBJECTS, object_ids, read_reply


@dataclass(slots=True)
class _Incoming:
    """A reply whose objects are still being fetched."""

    message_id: str
    root_id: str
    wanted: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    received_bytes: int = 0


class ReplyInbox:
    """What came back for messages sent under one task's token.

    Args:
        client: Of Flower's Runtime API, with that token.
    """

    def __init__(self, client: RuntimeHttpClient, run_id: int) -> None:
        self._client = client
        self._run_id = run_id
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._incoming: dict[str, _Incoming] = {}

    def pull(self, message_ids: Sequence[str], max_reply_bytes: int) -> list[NodeReply]:
        """Replies that are complete by now, each given once. Never waits for a node.

        Args:
            message_ids: Messages still waiting for a reply.
            max_reply_bytes: Larger replies are not read to their end.

        Raises:
            RunEnded, SuperLinkBusy: See there.
        """
        fetching = {incoming.message_id for incoming in self._incoming.values()}
        waiting = [message_id for message_id in message_ids if message_id not in fetching]
        if waiting:
            self._announce(waiting)
        replies = []
        for incoming in list(self._incoming.values()):
            reply = self._fetch(incoming, max_reply_bytes)
            if reply is not None:
                del self._incoming[incoming.root_id]
                replies.append(reply)
        return replies

    def _announce(self, message_ids: Sequence[str]) -> None:
        request = PullAppMessagesRequest(message_ids=message_ids)
        answer = call(self._client.PullMessages, request)
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            root_id = proto.metadata.message_id
            wanted = list(islice(object_ids(tree), MAX_REPLY_OBJECTS + 1))
            self._incoming[root_id] = _Incoming(proto.metadata.reply_to_message_id, root_id, wanted)

    def _fetch(self, incoming: _Incoming, max_reply_bytes: int) -> NodeReply | None:
        """Fetch what is there; None while the node is still uploading."""
        if len(incoming.wanted) > MAX_REPLY_OBJECTS:
            self._confirm(incoming)
            return NodeReply(incoming.message_id, too_large=True)
        while incoming.wanted:
            object_id = incoming.wanted[-1]
            request = PullObjectRequest(node=self._node, run_id=self._run_id, object_id=object_id)
            answer = call(self._client.PullObject, request)
            if not answer.object_found:
                # Its upload was broken off, and SuperLink has given it up.
                return NodeReply(
                    incoming.message_id, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "upload broken off"
                )
            if not answer.object_available:
                return None
            incoming.wanted.pop()
            incoming.contents[object_id] = answer.object_content
            incoming.received_bytes += len(answer.object_content)
            if incoming.received_bytes > max_reply_bytes:
                self._confirm(incoming)
                return NodeReply(
                    incoming.message_id, too_large=True, reply_bytes=incoming.received_bytes
                )
        self._confirm(incoming)
        return read_reply(incoming.message_id, incoming.root_id, incoming.contents, max_reply_bytes)

    def _confirm(self, incoming: _Incoming) -> None:
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=self._run_id, message_object_id=incoming.root_id
        )
        call(self._client.ConfirmMessageReceived, request)
