"""What every `Fleet` of Flower nodes does: gives out tasks, hears of them, folds what is good.

Weights that come back become deltas against the base version the task was sent with, pass the same
content gate as a device's update, and are summed by an aggregator of this process. So when the
coordinator dies, so do its nodes' uncommitted updates; their tasks are simply given out again.
"""

import logging
import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from device_runtime.update_codec import sha256_of
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Aggregator, Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.events import Event, TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release
from server.flower.node_messages import NodeReply, Nodes, RunEnded, SuperLinkBusy
from server.flower.node_slots import NodeSlots
from server.flower.node_tasks import Parameters, RunningTask
from server.flower.node_update import NodeUpdate, outcome_of_error
from server.job import Selection
from server.secure_aggregation.release_rules import ReleaseRefused
from server.update_gate.rejections import Rejection

_DEADLINE_GRACE_S = 10.0
"""SuperLink itself answers for a node that is late; after this long we do."""
_REPLY_MARGIN_BYTES = 2**20


class NodeFleet(ABC):
    """Tasks of one job on the nodes of one Flower run, safe to use from two threads.

    A subclass says what a task looks like as a message and how its reply is read, and has somebody
    call `_turn`. Talking to SuperLink is slow (about a hundred requests a second in all), so it is
    asked seldom.

    Args:
        poll_s: Between two looks for replies, while tasks run.
        membership_s: Between two looks for nodes.
        log: Where refused and failed replies are noted.
        aggregator: Sums updates; None for one in this process.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        poll_s: float,
        membership_s: float,
        log: logging.Logger,
        aggregator: Aggregator | None = None,
    ) -> None:
        self._nodes = nodes
        self._poll_s = poll_s
        self._membership_s = membership_s
        self._log = log
        self._aggregator: Aggregator = aggregator or MeanAggregator()
        self._events: queue.Queue[Event] = queue.Queue()
        self._lock = threading.RLock()
        self._version: int | None = None
        self._oldest_live = 0
        self._bases: dict[int, Parameters] = {}
        self._slots = NodeSlots(Selection(), 0)
        self._late_grants: set[str] = set()
        self._sending: list[RunningTask] = []
        self._running: dict[str, RunningTask] = {}
        self._next_membership_s = 0.0
        self._next_pull_s = 0.0

    # -- what a subclass says --------------------------------------------------------------------

    @abstractmethod
    def _send(self, tasks: Sequence[RunningTask]) -> Sequence[str | None]:
        """Send tasks; returns a message id each, None for a node that is gone."""

    @abstractmethod
    def _read(self, task: RunningTask, reply: NodeReply) -> NodeUpdate | Rejection:
        """The update in a reply that carries records."""

    @abstractmethod
    def _task_bytes(self) -> int:
        """Bytes a node is sent with a task."""

    @abstractmethod
    def _parameter_bytes(self) -> int:
        """Bytes of a model's arrays, as nodes send them."""

    # -- Fleet -----------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Wall clock, monotonic."""
        return time.monotonic()

    def grant(self, grant: Grant) -> None:
        """Start ``grant.count`` tasks on idle nodes, now or as they become idle."""
        with self._lock:
            self._slots.add(grant)

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back the slots not started; with ``running_too`` late answers are over-committed."""
        with self._lock:
            self._slots.cancel(grant_id)
            started = (*self._running.values(), *self._sending)
            if running_too and any(task.grant.grant_id == grant_id for task in started):
                self._late_grants.add(grant_id)

    def release(self, release: Release) -> Released:
        """Freeze whole buckets and return their sums."""
        with self._lock:  # no reply is half folded
            asked = replace(release, version=self._version or 0)
            try:
                return Released((release.release_id,), tuple(self._aggregator.reduce(asked)))
            except ReleaseRefused as refused:
                self._log.info("release %s: %s", release.release_id, refused)
                return Released((), (), (str(refused),))

    def commit(self, release_id: str) -> None:
        """The release is part of a stored version."""
        with self._lock:
            self._aggregator.commit(release_id)

    def drop(self, base_version: int, outcome: Outcome, reason: str) -> None:  # noqa: ARG002
        """Forget a bucket; the coordinator has ended its tasks, and nodes keep nothing."""
        with self._lock:
            self._aggregator.drop(base_version)

    def _open(self, job: OpenJob) -> None:
        """Start or resume a job; under the lock."""
        self._slots = NodeSlots(job.job.selection, job.job.seed)
        # Only an aggregator of this process takes the arrays of somebody else's app.
        self._aggregator.open(job.job_id, job.job, cast("ModelSpec", job.model))
        for release_id in self._aggregator.frozen():
            if release_id in job.committed_releases:
                self._aggregator.commit(release_id)
            else:
                self._aggregator.thaw(release_id)
        for reference in self._aggregator.held():
            self._events.put(TaskCompleted(self.now_s(), reference))

    def _use_version(self, version: int, parameters: Parameters, oldest_live_version: int) -> None:
        """The newest version, and how old a base version may be; under the lock."""
        self._version, self._oldest_live = version, oldest_live_version
        self._bases[version] = parameters
        for base_version in [b for b in self._bases if b < oldest_live_version]:
            del self._bases[base_version]
            # What was folded after the last release is late; the coordinator has ended it.
            self._aggregator.drop(base_version)

    # -- talking to SuperLink --------------------------------------------------------------------

    def _turn(self) -> float:
        """Everything there is to do now; returns the seconds until the next turn.

        Raises:
            RunEnded, SuperLinkBusy: See there.
        """
        if self.now_s() >= self._next_membership_s:
            members = self._nodes.online_nodes()
            with self._lock:
                self._slots.note_members(members)
            self._next_membership_s = self.now_s() + self._membership_s
        self._start_tasks()
        if self._running and self.now_s() >= self._next_pull_s:
            limit = 2 * self._parameter_bytes() + _REPLY_MARGIN_BYTES
            self._take_in(self._nodes.pull(list(self._running), max_reply_bytes=limit))
            self._next_pull_s = self.now_s() + self._poll_s
            self._end_overdue()
            self._start_tasks()
        next_s = self._next_membership_s
        if self._running:
            next_s = min(next_s, self._next_pull_s)
        return max(0.0, next_s - self.now_s())

    def _start_tasks(self) -> None:
        chosen = self._choose()
        if not chosen:
            return
        try:
            message_ids = self._send(chosen)
        except (SuperLinkBusy, RunEnded):
            with self._lock:
                self._sending = []
                for task in chosen:
                    self._slots.free_node(task.node_id)
                    self._slots.return_slot(task.grant)
            raise
        now_s = self.now_s()
        with self._lock:
            self._sending = []
            if not self._running:
                self._next_pull_s = now_s + self._poll_s
            for task, message_id in zip(chosen, message_ids, strict=True):
                if message_id is None:  # gone since it was last seen
                    self._slots.lose_node(task.node_id)
                    self._slots.return_slot(task.grant)
                    continue
                self._running[message_id] = task
                self._events.put(
                    TaskStarted(
                        now_s,
                        task.task_id,
                        task.grant.grant_id,
                        task.client_id,
                        task.base_version,
                    )
                )

    def _choose(self) -> list[RunningTask]:
        """Pair open slots with idle nodes; both are taken at once."""
        with self._lock:
            if self._version is None:
                return []
            chosen = []
            for grant, node_id in self._slots.take():
                pinned = grant.base_version
                base_version = self._version if pinned is None else pinned
                parameters = self._bases.get(base_version)
                if parameters is None:  # its round is over, and its cancellation on the way
                    self._slots.free_node(node_id)
                    continue
                chosen.append(
                    RunningTask(
                        f"node-task-{secrets.token_hex(12)}",
                        grant,
                        node_id,
                        base_version,
                        parameters,
                        self.now_s() + grant.task_timeout_s,
                        self._task_bytes(),
                    )
                )
            self._sending = chosen
            return chosen

    # -- replies ---------------------------------------------------------------------------------

    def _take_in(self, replies: Sequence[NodeReply]) -> None:
        """Replies that have arrived together."""
        for reply in replies:
            self._on_reply(reply)

    def _on_reply(self, reply: NodeReply) -> None:
        with self._lock:
            task = self._running.pop(reply.message_id, None)
            if task is None:
                return
            self._judge(task, reply)
            self._forget_late_grants()

    def _judge(self, task: RunningTask, reply: NodeReply) -> None:
        """Fold a reply or end its task; under the lock, so that no round closes in between."""
        is_late = task.grant.grant_id in self._late_grants
        is_stale = task.base_version < self._oldest_live
        if reply.error_code is not None:
            outcome, reason = outcome_of_error(reply.error_code, reply.error_reason)
            said = f"Flower error {reply.error_code} ({reply.error_reason[:200]!r})"
            self._log.info("%s: %s", task.client_id, said)
            self._end(task, outcome, reason, said, bytes_up=reply.reply_bytes)
        elif is_late:
            self._end(task, Outcome.OVER_COMMITTED, "round_closed", bytes_up=reply.reply_bytes)
        elif is_stale:
            self._end(task, Outcome.STALE, "base_version", bytes_up=reply.reply_bytes)
        else:
            self._fold(task, reply)

    def _fold(self, task: RunningTask, reply: NodeReply) -> None:
        update = self._read(task, reply)
        if isinstance(update, Rejection):
            self._reject(task, update, b"", reply.reply_bytes)
            return
        payload_sha256 = sha256_of(update.payload)
        envelope = Envelope(
            task.task_id,
            task.client_id,
            task.base_version,
            payload_sha256,
            update.train_s,
            task.bytes_down,
            reply.reply_bytes,
        )
        folded = self._aggregator.fold(envelope, update.payload)
        if isinstance(folded, Rejection):
            self._reject(task, folded, payload_sha256, reply.reply_bytes)
        else:
            self._events.put(TaskCompleted(self.now_s(), folded))
            self._after(task, Outcome.SUCCEEDED, "")

    def _reject(
        self, task: RunningTask, rejection: Rejection, payload_sha256: bytes, bytes_up: int
    ) -> None:
        self._log.info(
            "%s: update refused, %s [FLN-%d]", task.client_id, rejection.detail, rejection.reason
        )
        self._end(
            task,
            Outcome.REJECTED,
            rejection.reason.name.lower(),
            rejection.detail,
            reason_code=int(rejection.reason),
            payload_sha256=payload_sha256,
            bytes_up=bytes_up,
        )

    def _end(
        self,
        task: RunningTask,
        outcome: Outcome,
        reason: str,
        detail: str = "",
        *,
        reason_code: int = 0,
        payload_sha256: bytes = b"",
        bytes_up: int = 0,
    ) -> None:
        self._events.put(
            TaskEnded(
                self.now_s(),
                task.task_id,
                task.client_id,
                task.base_version,
                outcome,
                reason,
                reason_code,
                payload_sha256,
                bytes_down=task.bytes_down,
                bytes_up=bytes_up,
            )
        )
        self._after(task, outcome, detail)

    def _after(self, task: RunningTask, outcome: Outcome, detail: str) -> None:  # noqa: ARG002
        """A task is over, and its node may take another.

        Args:
            outcome: As far as this fleet knows: what was folded has succeeded.
            detail: What was wrong, for people.
        """
        self._slots.free_node(task.node_id)

    def _end_overdue(self) -> None:
        """Tasks for which SuperLink should have answered long ago."""
        limit_s = self.now_s() - _DEADLINE_GRACE_S
        with self._lock:
            overdue = {m: task for m, task in self._running.items() if task.deadline_s < limit_s}
            for message_id, task in overdue.items():
                del self._running[message_id]
                self._end(task, Outcome.INTERRUPTED, "deadline")
            self._forget_late_grants()

    def _end_all(self, reason: str) -> None:
        with self._lock:
            ended, self._running = list(self._running.values()), {}
            for task in ended:
                self._end(task, Outcome.INTERRUPTED, reason)
            self._slots.lose_all_nodes()

    def _forget_late_grants(self) -> None:
        self._late_grants &= {task.grant.grant_id for task in self._running.values()}
