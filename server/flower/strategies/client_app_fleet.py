"""The `Fleet` behind somebody's own ServerApp: their nodes, running their own ClientApp.

No thread: waiting for an event is what talks to SuperLink, in the ServerApp's own thread and by
``time.sleep``, so that a dry-run may put both on a virtual clock.
"""

import heapq
import logging
import math
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence

from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from server.coordination.events import Event
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Outcome
from server.flower.node_fleet import NodeFleet
from server.flower.node_messages import NodeReply, SuperLinkBusy
from server.flower.node_tasks import RunningTask
from server.flower.node_update import NodeUpdate
from server.flower.strategies.array_layout import ArrayLayout
from server.flower.strategies.array_versions import ArrayVersions
from server.flower.strategies.client_app_update import read_client_app_update
from server.flower.strategies.errors import EveryNodeFails
from server.flower.strategies.failing_nodes import FailingNodes
from server.flower.strategies.grid_nodes import GridNodes
from server.update_gate.rejections import Rejection

log = logging.getLogger("flwr")

_BUSY_S = 2.0
_BUSY_PATIENCE_S = 60.0
_AWAIT_NODES_S = 1.0
_NOTE_WAITING_S = 10.0

_FAILURES = (Outcome.FAILED, Outcome.REJECTED)

Compose = Callable[[int, ArrayRecord], RecordDict]
"""What a task trains on: given base version and its arrays, the content of its message."""


class ClientAppFleet(NodeFleet):
    """Nodes with a ClientApp that trains as Flower's own strategies ask it to.

    In a round no node trains twice: one that has answered is idle again when the round is over. A
    node that failed, or whose update was refused, rests before it is asked again.

    Args:
        versions: Where the arrays of the newest version are.
        compose: Asked once a version.
        weighted_by_key: Metric of a reply that holds the example count.
        poll_s: Between two looks for replies, while tasks run.
        membership_s: Between two looks for nodes.
    """

    def __init__(
        self,
        nodes: GridNodes,
        layout: ArrayLayout,
        versions: ArrayVersions,
        compose: Compose,
        weighted_by_key: str,
        *,
        poll_s: float = 0.5,
        membership_s: float = 5.0,
    ) -> None:
        super().__init__(nodes, poll_s=poll_s, membership_s=membership_s, log=log)
        self._sender = nodes
        self._layout = layout
        self._versions = versions
        self._compose = compose
        self._weighted_by_key = weighted_by_key
        self._contents: dict[int, RecordDict] = {}
        self._arrived: deque[NodeReply] = deque()
        self._failing = FailingNodes()
        self._rests_until_s: dict[int, float] = {}
        self._resting: list[tuple[float, int]] = []
        self._done_in: dict[str, list[int]] = {}
        self._busy_since_s: float | None = None

    # -- Fleet -----------------------------------------------------------------------------------

    def await_nodes(self, count: int) -> None:
        """Wait until so many nodes are online, as Flower's strategies do."""
        noted_s = -math.inf
        while (online := len(self._nodes.online_nodes())) < count:
            if self.now_s() - noted_s >= _NOTE_WAITING_S:
                log.info(
                    "Waiting for nodes to connect: %d connected (minimum required: %d).",
                    online,
                    count,
                )
                noted_s = self.now_s()
            time.sleep(_AWAIT_NODES_S)

    def busy_nodes(self) -> frozenset[int]:
        """Nodes with a task under way."""
        return frozenset(task.node_id for task in self._running.values())

    def open(self, job: OpenJob) -> None:
        """Start a job."""
        with self._lock:
            self._open(job)

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:  # noqa: ARG002
        """Send the newest version from now on; versions before the oldest live are forgotten."""
        with self._lock:
            self._contents[version] = self._compose(version, self._versions.record)
            self._use_version(version, self._versions.arrays, oldest_live_version)
            self._contents = {v: c for v, c in self._contents.items() if v in self._bases}

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back the slots not started; the nodes that answered under the grant are idle."""
        super().cancel(grant_id, running_too=running_too)
        with self._lock:
            for node_id in self._done_in.pop(grant_id, ()):
                self._free(node_id)

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Wait for the next event; what waits already needs no look at SuperLink.

        Raises:
            EveryNodeFails: If no update can be hoped for.
        """
        event = self._waiting_event()
        if event is not None or timeout_s == 0:
            return event
        until_s = math.inf if timeout_s is None else self.now_s() + timeout_s
        event = self._fold_next()
        while event is None:
            wait_s = self._turn_or_wait()
            event = self._waiting_event() or self._fold_next()
            if event is None:
                left_s = until_s - self.now_s()
                if left_s <= 0:
                    return None
                time.sleep(min(wait_s, left_s))
        return event

    def close(self, reason: str) -> None:
        """End the job; what nodes still send is nobody's any more."""

    def _waiting_event(self) -> Event | None:
        try:
            return self._events.get_nowait()
        except queue.Empty:
            return None

    def _fold_next(self) -> Event | None:
        """What one reply that has arrived gives."""
        event = None
        while event is None and self._arrived:
            self._on_reply(self._arrived.popleft())
            event = self._waiting_event()
        return event

    def _turn_or_wait(self) -> float:
        now_s = self.now_s()
        while self._resting and self._resting[0][0] <= now_s:
            self._slots.free_node(heapq.heappop(self._resting)[1])
        try:
            wait_s = self._turn()
        except SuperLinkBusy as busy:
            self._note_busy(busy)
            self._end_overdue()
            return _BUSY_S
        self._busy_since_s = None
        if self._resting:
            wait_s = min(wait_s, max(0.0, self._resting[0][0] - self.now_s()))
        return wait_s

    def _note_busy(self, busy: SuperLinkBusy) -> None:
        """Bear it for a minute: Flower's own calls already wait for a SuperLink that is away."""
        log.info("SuperLink refused (%s); asking again", busy)
        if self._busy_since_s is None:
            self._busy_since_s = self.now_s()
        elif self.now_s() - self._busy_since_s > _BUSY_PATIENCE_S:
            raise busy

    def _take_in(self, replies: Sequence[NodeReply]) -> None:
        """Keep them: each is folded only when the coordinator has dealt with the one before."""
        self._arrived.extend(replies)

    # -- what travels ----------------------------------------------------------------------------

    def _send(self, tasks: Sequence[RunningTask]) -> Sequence[str | None]:
        return self._sender.send(
            [
                Message(
                    self._contents[task.base_version],
                    task.node_id,
                    MessageType.TRAIN,
                    ttl=task.grant.task_timeout_s,
                    group_id=str(task.base_version + 1),
                )
                for task in tasks
            ]
        )

    def _read(self, task: RunningTask, reply: NodeReply) -> NodeUpdate | Rejection:
        update = read_client_app_update(reply, task.parameters, self._weighted_by_key)
        if isinstance(update, NodeUpdate):
            (name,) = reply.metric_names
            metrics = MetricRecord(dict(reply.values[name]))  # type: ignore[arg-type]
            self._versions.note_metrics(task.task_id, RecordDict({name: metrics}))
        return update

    def _task_bytes(self) -> int:
        return self._layout.array_bytes

    def _parameter_bytes(self) -> int:
        return self._layout.array_bytes

    # -- whose turn it is ------------------------------------------------------------------------

    def _after(self, task: RunningTask, outcome: Outcome, detail: str) -> None:
        node_id, grant = task.node_id, task.grant
        if outcome is Outcome.SUCCEEDED:
            self._failing.note_update(node_id)
        elif outcome in _FAILURES:
            rest_s = self._failing.note_failure(node_id, detail)
            self._rests_until_s[node_id] = self.now_s() + rest_s
            self._give_up_if_hopeless()
        if grant.base_version is not None and grant.grant_id not in self._late_grants:
            self._done_in.setdefault(grant.grant_id, []).append(node_id)
        else:
            self._free(node_id)

    def _free(self, node_id: int) -> None:
        """A node may take another task, once it has rested."""
        until_s = self._rests_until_s.pop(node_id, 0.0)
        if until_s > self.now_s():
            heapq.heappush(self._resting, (until_s, node_id))
        else:
            self._slots.free_node(node_id)

    def _give_up_if_hopeless(self) -> None:
        last = self._failing.hopeless(self._slots.online())
        if last is not None:
            raise EveryNodeFails(
                "no update has come, and every node that is online has failed again and again; "
                f"the last was {last}; mend the ClientApp, or what it is asked to do, and run again"
            )
