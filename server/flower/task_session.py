"""One ServerApp task of ours: Flower's Runtime API under its token. Part of the pinned adapter."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_to_proto
from flwr.proto.log_pb2 import PushLogsRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    GetNodesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from server.flower.control import FlowerRefused, ask, call, root_certificates
from server.flower.node_messages import NodeReply, NodeTask, RunEnded, SuperLinkBusy
from server.flower.records import task_messages
from server.flower.reply_inbox import ReplyInbox
from server.flower.superlink import dial_address, ensure_superexec_secret
from server.operations.settings import ServerSettings

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class TaskClaim:
    """A ServerApp task taken by us; kept in a file, so that a restart takes it up again."""

    run_id: int
    task_id: int
    token: str

    def save(self, settings: ServerSettings) -> None:
        """Remember it, readable by this user only."""
        path = settings.secrets / "flower-task.json"
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def load(cls, settings: ServerSettings, run_id: int) -> Self | None:
        """The remembered claim, if it is one of this run."""
        try:
            claim = cls(**json.loads((settings.secrets / "flower-task.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return claim if claim.run_id == run_id else None


def take_task(settings: ServerSettings, run: Run, patience_s: float) -> "TaskSession":
    """Take a pending run's task, by the digest of its app: other runs' tasks are left alone.

    Raises:
        SuperLinkUnreachable: If SuperLink does not answer for ``patience_s``.
        FlowerRefused: If the task is not to be had in that time (another process has it), or
            SuperLink ended before it was begun.
    """
    secret = SuperExecAuthHttpInterceptor(
        master_secret=ensure_superexec_secret(settings), protected_methods=[_ACQUIRE]
    )
    client = _runtime_client(settings, secret)
    request = AcquireTaskRequest(agentapp_fab_hashes=[run.fab_hash])
    deadline_s = time.monotonic() + patience_s
    try:
        while True:
            answer = ask(settings, client.AcquireTask, request, patience_s)
            if answer.token:
                break
            if time.monotonic() > deadline_s:
                raise FlowerRefused(
                    f"the ServerApp task of Flower run {run.run_id} is not to be had: another "
                    "process has taken it, or the run is over"
                )
            time.sleep(_RETRY_S)
    finally:
        client.close()
    claim = TaskClaim(answer.task.run_id, answer.task.task_id, answer.token)
    claim.save(settings)
    session = TaskSession(settings, claim)
    try:
        session.activate()
    except (RunEnded, SuperLinkBusy) as error:
        session.close()
        raise FlowerRefused(
            f"Flower run {run.run_id} was taken and did not begin: {error}"
        ) from error
    return session


class TaskSession:
    """Calls of Flower's Runtime API under one task's token."""

    def __init__(self, settings: ServerSettings, claim: TaskClaim) -> None:
        self.claim = claim
        self.run_id = claim.run_id
        self._client = _runtime_client(settings, RuntimeTokenHttpInterceptor(token=claim.token))
        self._node = Node(node_id=SUPERLINK_NODE_ID)
        self._sent: set[str] = set()
        self._inbox = ReplyInbox(self._client, claim.run_id)
        # What Flower's Message constructor reads; a process drives one run at a time.
        TaskIdentity.task_id, TaskIdentity.run_id = claim.task_id, claim.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def activate(self) -> None:
        """Move the task from starting to running."""
        call(self._client.PullTaskInput, PullTaskInputRequest())

    def heartbeat(self) -> None:
        """Keep the task alive.

        Raises:
            RunEnded: If the task is over.
        """
        answer = call(self._client.SendTaskHeartbeat, SendTaskHeartbeatRequest())
        if not answer.success:
            raise RunEnded(f"the task of Flower run {self.run_id} is over")

    def push_logs(self, lines: Sequence[str]) -> None:
        """Append lines to the run's log."""
        if lines:
            request = PushLogsRequest(node=self._node, run_id=self.run_id, logs=lines)
            call(self._client.PushLogs, request)

    def push_output(self, status: str, detail: str) -> None:
        """End the task, and with it the run."""
        request = PushTaskOutputRequest(sub_status=status, details=detail)
        call(self._client.PushTaskOutput, request)

    def close(self) -> None:
        """Close the connection; the task goes on."""
        self._client.close()

    def online_nodes(self) -> list[int]:
        """Ids of the nodes that are online."""
        answer = call(self._client.GetNodes, GetNodesRequest())
        return [node.node_id for node in answer.nodes]

    def push(self, tasks: Sequence[NodeTask]) -> list[str | None]:
        """Send tasks; returns a message id each, None for a node that is gone."""
        if not tasks:
            return []
        messages = task_messages(tasks)
        objects = {}
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                objects.update(get_all_nested_objects(message))
            request = PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(m)) for m in messages],
                message_object_trees=[get_object_tree(m) for m in messages],
            )
            answer = call(self._client.PushMessages, request)
            for object_id in answer.objects_to_push:
                self._push_object(object_id, objects[object_id].deflate(), answer.session_id)
        sent = [message_id or None for message_id in answer.message_ids]
        self._sent.update(message_id for message_id in sent if message_id)
        return sent

    def _push_object(self, object_id: str, content: bytes, session_id: str) -> None:
        request = PushObjectRequest(
            node=self._node,
            run_id=self.run_id,
            object_id=object_id,
            object_content=content,
            session_id=session_id,
        )
        call(self._client.PushObject, request)

    def pull(self, message_ids: Sequence[str], max_reply_bytes: int) -> list[NodeReply]:
        """Replies that are complete by now, each given once."""
        replies = [
            NodeReply(message_id, ErrorCode.MESSAGE_UNAVAILABLE, "its Flower run is over")
            for message_id in message_ids
            if message_id not in self._sent
        ]
        waiting = [message_id for message_id in message_ids if message_id in self._sent]
        for reply in self._inbox.pull(waiting, max_reply_bytes):
            self._sent.discard(reply.message_id)
            replies.append(reply)
        return replies


def _runtime_client(
    settings: ServerSettings,
    authentication: RuntimeTokenHttpInterceptor | SuperExecAuthHttpInterceptor,
) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        dial_address(settings),
        settings.insecure,
        root_certificates(settings),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"),
            authentication,
        ],
    )
