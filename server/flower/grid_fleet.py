"""The `Fleet` of plain SuperNodes: Flower's grid as the coordinator sees it.

A node runs `device_runtime.client_app` and answers with weights; here they become deltas against
the base version the task was sent with, pass the same content gate as a device's update, and are
summed by an aggregator of this process. So when the coordinator dies, so do its nodes' uncommitted
updates; their tasks are simply given out again.
"""

import logging
import queue
import secrets
import threading
import time

from device_runtime.participation import ParticipationPolicy
from device_runtime.update_codec import parameters_from_blob, sha256_of
from feature_catalog.blobs import BlobStore
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.events import Event, TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release
from server.flower.node_messages import NodeGrid, NodeReply, RunEnded, SuperLinkBusy
from server.flower.node_slots import NodeSlots
from server.flower.node_tasks import OpenedJob, Parameters, RunningTask, node_task
from server.flower.node_update import outcome_of_error, read_update
from server.job import Selection
from server.update_gate.rejections import Rejection

log = logging.getLogger(__name__)

_BUSY_S = 2.0
_DEADLINE_GRACE_S = 10.0
"""SuperLink itself answers for a node that is late; after this long we do."""
_REPLY_MARGIN_BYTES = 2**20


class GridFleet:
    """Plain SuperNodes behind the `Fleet` interface.

    A thread of its own talks to SuperLink, which is slow (about a hundred requests a second in
    all), so it asks seldom.

    Args:
        grid: The job's Flower run.
        blobs: Where artefacts and model versions are.
        poll_s: Between two looks for replies, while tasks run.
        membership_s: Between two looks for nodes.
    """

    def __init__(
        self,
        grid: NodeGrid,
        blobs: BlobStore,
        *,
        poll_s: float = 0.5,
        membership_s: float = 5.0,
    ) -> None:
        self._grid = grid
        self._blobs = blobs
        self._poll_s = poll_s
        self._membership_s = membership_s
        self._aggregator = MeanAggregator()
        self._events: queue.Queue[Event] = queue.Queue()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._job: OpenedJob | None = None
        self._version: int | None = None
        self._oldest_live = 0
        self._bases: dict[int, Parameters] = {}
        self._slots = NodeSlots(Selection(), 0)
        self._late_grants: set[str] = set()
        self._sending: list[RunningTask] = []
        self._running: dict[str, RunningTask] = {}
        self._next_membership_s = 0.0
        self._thread: threading.Thread | None = None

    # -- Fleet -----------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Wall clock, monotonic."""
        return time.monotonic()

    def open(self, job: OpenJob) -> None:
        """Start or resume a job, and begin to look for nodes."""
        takes_part = job.job.participation.policy() == ParticipationPolicy()
        if not takes_part:
            log.info(
                "the job asks for device states, which SuperNodes cannot tell; none takes part"
            )
        artifact = self._blobs.get(job.artifact_sha256)
        manifest = self._blobs.get(job.manifest_sha256).decode()
        with self._lock:
            self._job = OpenedJob(job, artifact, manifest)
            self._slots = NodeSlots(job.job.selection, job.job.seed)
            self._aggregator.open(job.job_id, job.job, job.model)
            for release_id in self._aggregator.frozen():
                if release_id in job.committed_releases:
                    self._aggregator.commit(release_id)
                else:
                    self._aggregator.thaw(release_id)
            for reference in self._aggregator.held():
                self._events.put(TaskCompleted(self.now_s(), reference))
        if takes_part and self._thread is None:
            self._thread = threading.Thread(target=self._talk, name="grid-fleet", daemon=True)
            self._thread.start()

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version; versions before the oldest live are forgotten."""
        with self._lock:
            opened = self._opened().opened
            arrays = parameters_from_blob(
                opened.model.parameters, self._blobs.get(parameters_sha256)
            )
            names = [parameter.name for parameter in opened.model.parameters]
            self._version, self._oldest_live = version, oldest_live_version
            self._bases[version] = dict(zip(names, arrays, strict=True))
            for base_version in [b for b in self._bases if b < oldest_live_version]:
                del self._bases[base_version]
                # What was folded after the last release is late; the coordinator has ended it.
                self._aggregator.drop(base_version)
        self._wake.set()

    def capacity(self) -> int:
        """Nodes that are online and have nothing to do, less the slots that wait for one."""
        with self._lock:
            return self._slots.capacity()

    def grant(self, grant: Grant) -> None:
        """Start ``grant.count`` tasks on idle nodes, now or as they become idle."""
        with self._lock:
            self._slots.add(grant)
        self._wake.set()

    def give_back_slots(self) -> dict[str, int]:
        """Take back the slots that no idle node is there for, by grant id.

        For whoever divides grants among fleets: nodes may have gone since `capacity` was asked.
        """
        with self._lock:
            return self._slots.give_back()

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back the slots not started; with ``running_too`` late answers are over-committed."""
        with self._lock:
            self._slots.cancel(grant_id)
            started = (*self._running.values(), *self._sending)
            if running_too and any(task.grant.grant_id == grant_id for task in started):
                self._late_grants.add(grant_id)

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Wait for the next event."""
        try:
            return self._events.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None

    def release(self, release: Release) -> Released:
        """Freeze whole buckets and return their sums."""
        return Released((release.release_id,), tuple(self._aggregator.reduce(release)))

    def commit(self, release_id: str) -> None:
        """The release is part of a stored version."""
        self._aggregator.commit(release_id)

    def drop(self, base_version: int, outcome: Outcome, reason: str) -> None:  # noqa: ARG002
        """Forget a bucket; the coordinator has ended its tasks, and nodes keep nothing."""
        self._aggregator.drop(base_version)

    def close(self, reason: str) -> None:  # noqa: ARG002
        """End the job: nothing more is sent or accepted."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # -- the thread that talks to SuperLink ------------------------------------------------------

    def _talk(self) -> None:
        try:
            while not self._closed.is_set():
                self._wake.wait(self._turn_or_wait())
                self._wake.clear()
        except RunEnded as ended:
            log.info("%s", ended)
        finally:  # whatever happened, no task of this fleet stays open for ever
            self._end_all("flower_run_over")

    def _turn_or_wait(self) -> float:
        try:
            return self._turn()
        except SuperLinkBusy as busy:
            log.info("SuperLink did not answer (%s); asking again", busy)
            self._end_overdue()
            return _BUSY_S

    def _turn(self) -> float:
        """Everything there is to do now; returns the seconds until the next turn."""
        now_s = self.now_s()
        if now_s >= self._next_membership_s:
            members = self._grid.online_nodes()
            with self._lock:
                self._slots.note_members(members)
            self._next_membership_s = now_s + self._membership_s
        self._start_tasks()
        if self._running:
            limit = 2 * self._parameter_bytes() + _REPLY_MARGIN_BYTES
            for reply in self._grid.pull(list(self._running), max_reply_bytes=limit):
                self._on_reply(reply)
            self._end_overdue()
            self._start_tasks()
        if self._running:
            return self._poll_s
        return max(0.0, self._next_membership_s - self.now_s())

    def _start_tasks(self) -> None:
        chosen = self._choose()
        if not chosen:
            return
        tasks = [node_task(self._opened(), task) for task in chosen]
        try:
            message_ids = self._grid.push(tasks)
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
            job = self._job
            if job is None or self._version is None:
                return []
            bytes_down = self._parameter_bytes() + len(job.artifact) + len(job.manifest)
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
                        bytes_down,
                    )
                )
            self._sending = chosen
            return chosen

    def _on_reply(self, reply: NodeReply) -> None:
        with self._lock:
            task = self._running.pop(reply.message_id, None)
            if task is None:
                return
            self._slots.free_node(task.node_id)
            self._judge(task, reply)
            self._forget_late_grants()

    def _judge(self, task: RunningTask, reply: NodeReply) -> None:
        """Fold a reply or end its task; under the lock, so that no round closes in between."""
        is_late = task.grant.grant_id in self._late_grants
        is_stale = task.base_version < self._oldest_live
        if reply.error_code is not None:
            outcome, reason = outcome_of_error(reply.error_code, reply.error_reason)
            log.info(
                "%s: Flower error %d (%.200r)",
                task.client_id,
                reply.error_code,
                reply.error_reason,
            )
            self._end(task, outcome, reason, bytes_up=reply.reply_bytes)
        elif is_late:
            self._end(task, Outcome.OVER_COMMITTED, "round_closed", bytes_up=reply.reply_bytes)
        elif is_stale:
            self._end(task, Outcome.STALE, "base_version", bytes_up=reply.reply_bytes)
        else:
            self._fold(task, reply)

    def _fold(self, task: RunningTask, reply: NodeReply) -> None:
        contract_sha256 = self._opened().opened.contract_sha256
        update = read_update(reply, task.parameters, task.base_version, contract_sha256)
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

    def _reject(
        self, task: RunningTask, rejection: Rejection, payload_sha256: bytes, bytes_up: int
    ) -> None:
        log.info("%s: update refused, %s", task.client_id, rejection.detail)
        self._events.put(
            TaskEnded(
                self.now_s(),
                task.task_id,
                task.client_id,
                task.base_version,
                Outcome.REJECTED,
                rejection.reason.name.lower(),
                int(rejection.reason),
                payload_sha256,
                bytes_down=task.bytes_down,
                bytes_up=bytes_up,
            )
        )

    def _end(self, task: RunningTask, outcome: Outcome, reason: str, bytes_up: int = 0) -> None:
        self._events.put(
            TaskEnded(
                self.now_s(),
                task.task_id,
                task.client_id,
                task.base_version,
                outcome,
                reason,
                bytes_down=task.bytes_down,
                bytes_up=bytes_up,
            )
        )

    def _end_overdue(self) -> None:
        """Tasks for which SuperLink should have answered long ago."""
        limit_s = self.now_s() - _DEADLINE_GRACE_S
        with self._lock:
            overdue = {m: task for m, task in self._running.items() if task.deadline_s < limit_s}
            for message_id, task in overdue.items():
                del self._running[message_id]
                self._slots.free_node(task.node_id)
            self._forget_late_grants()
        for task in overdue.values():
            self._end(task, Outcome.INTERRUPTED, "deadline")

    def _end_all(self, reason: str) -> None:
        with self._lock:
            ended, self._running = list(self._running.values()), {}
            self._slots.lose_all_nodes()
        for task in ended:
            self._end(task, Outcome.INTERRUPTED, reason)

    # -- small state changes, under the lock -----------------------------------------------------

    def _opened(self) -> OpenedJob:
        if self._job is None:
            raise ValueError("no job is open at this fleet")
        return self._job

    def _parameter_bytes(self) -> int:
        return 4 * self._opened().opened.model.parameter_count

    def _forget_late_grants(self) -> None:
        self._late_grants &= {task.grant.grant_id for task in self._running.values()}
