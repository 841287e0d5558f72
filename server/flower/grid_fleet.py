"""The `Fleet` of plain SuperNodes: Flower's grid as the coordinator sees it.

A node runs `device_runtime.client_app`: it is sent a FLINT job with its artefact, and answers with
weights and an echo of what it was asked.
"""

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import replace

from device_runtime.errors import FlintError
from device_runtime.participation import ParticipationPolicy
from feature_catalog.blobs import BlobStore
from server.aggregation.process import AggregatorLost
from server.coordination.events import Event
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Grant, Outcome
from server.device_criteria import DeviceCriteria
from server.flower.node_fleet import NodeFleet
from server.flower.node_messages import NodeGrid, NodeReply, RunEnded, SuperLinkBusy
from server.flower.node_tasks import OpenedJob, RunningTask, challenge, node_task
from server.flower.node_update import NodeUpdate, read_nonce, read_sealed, read_update
from server.flower.stored_parameters import StoredParameters
from server.secure_aggregation.client import RemoteEnclave
from server.secure_aggregation.release_rules import ReleaseRefused
from server.update_gate.rejections import Rejection

log = logging.getLogger(__name__)

_ANY_DEVICE = DeviceCriteria()
_BUSY_S = 2.0


class GridFleet(NodeFleet):
    """Plain SuperNodes behind the `Fleet` interface; a thread of its own talks to SuperLink.

    Args:
        grid: The job's Flower run.
        blobs: Where artefacts and model versions are.
        enclave: Of a secure job, whose nodes seal what they learn to it.
        poll_s: Between two looks for replies, while tasks run.
        membership_s: Between two looks for nodes.
    """

    def __init__(
        self,
        grid: NodeGrid,
        blobs: BlobStore,
        *,
        enclave: RemoteEnclave | None = None,
        poll_s: float = 0.5,
        membership_s: float = 5.0,
    ) -> None:
        super().__init__(
            grid, poll_s=poll_s, membership_s=membership_s, log=log, aggregator=enclave
        )
        self._enclave = enclave
        self._loss: AggregatorLost | None = None
        self._grid = grid
        self._blobs = blobs
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._job: OpenedJob | None = None
        self._thread: threading.Thread | None = None

    # -- Fleet -----------------------------------------------------------------------------------

    def open(self, job: OpenJob) -> None:
        """Start or resume a job, and begin to look for nodes."""
        asked = job.job.participation
        asks_nothing = asked.policy() == ParticipationPolicy(), asked.device in (None, _ANY_DEVICE)
        takes_part = all(asks_nothing)
        if not takes_part:
            log.info(
                "the job asks for device models or states, which SuperNodes cannot tell; none "
                "takes part"
            )
        artifact = self._blobs.get(job.artifact_sha256)
        manifest = self._blobs.get(job.manifest_sha256).decode()
        with self._lock:
            self._job = OpenedJob(job, artifact, manifest)
            self._open(job)
        if takes_part and self._thread is None:
            self._thread = threading.Thread(target=self._talk, name="grid-fleet", daemon=True)
            self._thread.start()

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version; versions before the oldest live are forgotten."""
        with self._lock:
            model = self._opened().opened.model
            parameters = StoredParameters(self._blobs, parameters_sha256, model)
            self._use_version(version, parameters, oldest_live_version)
        self._wake.set()

    def capacity(self) -> int:
        """Nodes that are online and have nothing to do, less the slots that wait for one."""
        with self._lock:
            return self._slots.capacity()

    def grant(self, grant: Grant) -> None:
        """Start ``grant.count`` tasks on idle nodes, now or as they become idle."""
        super().grant(grant)
        self._wake.set()

    def give_back_slots(self) -> dict[str, int]:
        """Take back the slots that no idle node is there for, by grant id.

        For whoever divides grants among fleets: nodes may have gone since `capacity` was asked.
        """
        with self._lock:
            return self._slots.give_back()

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Wait for the next event.

        Raises:
            AggregatorLost: If the enclave's process has ended, and the nodes' updates with it.
        """
        if self._loss is not None:
            raise self._loss
        try:
            return self._events.get(block=timeout_s != 0, timeout=timeout_s)
        except queue.Empty:
            return None

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
        except AggregatorLost as error:
            self._loss = error
        finally:  # whatever happened, no task of this fleet stays open for ever
            self._end_all("flower_run_over")

    def _turn_or_wait(self) -> float:
        try:
            return self._turn()
        except SuperLinkBusy as busy:
            log.info("SuperLink did not answer (%s); asking again", busy)
            self._end_overdue()
            return _BUSY_S

    # -- what travels ----------------------------------------------------------------------------

    def _send(self, tasks: Sequence[RunningTask]) -> Sequence[str | None]:
        try:
            if self._enclave is not None:
                return self._grid.push([challenge(self._opened(), task) for task in tasks])
            return self._grid.push([node_task(self._opened(), task) for task in tasks])
        except FlintError as error:
            log.error("%s", error)
            raise SuperLinkBusy(f"the version to be sent cannot be read: {error}") from error

    def _fold(self, task: RunningTask, reply: NodeReply) -> None:
        if self._enclave is None or task.evidence:
            super()._fold(task, reply)
        else:
            self._send_with_evidence(self._enclave, task, reply)

    def _send_with_evidence(
        self, enclave: RemoteEnclave, task: RunningTask, reply: NodeReply
    ) -> None:
        """A node gave a nonce: now it gets its task, with evidence for that nonce."""
        nonce = read_nonce(reply)
        if isinstance(nonce, Rejection):
            self._reject(task, nonce, b"", reply.reply_bytes)
            return
        opened = self._opened()
        try:
            evidence = enclave.attest(opened.opened.job_id, nonce).SerializeToString()
            task = replace(task, evidence=evidence)
            (message_id,) = self._grid.push([node_task(opened, task)])
        except ReleaseRefused as refused:
            self._end(task, Outcome.INTERRUPTED, "attestation_unavailable", str(refused))
            return
        except (AggregatorLost, RunEnded):
            self._end(task, Outcome.INTERRUPTED, "flower_run_over")
            raise
        except (FlintError, SuperLinkBusy) as error:
            self._end(task, Outcome.INTERRUPTED, "superlink_busy", str(error))
            return
        if message_id is None:
            self._end(task, Outcome.INTERRUPTED, "node_gone")
        else:
            self._running[message_id] = task

    def _read(self, task: RunningTask, reply: NodeReply) -> NodeUpdate | Rejection:
        contract_sha256 = self._opened().opened.contract_sha256
        if self._enclave is not None:
            return read_sealed(reply, task.base_version, contract_sha256)
        return read_update(reply, task.parameters, task.base_version, contract_sha256)

    def _task_bytes(self) -> int:
        job = self._opened()
        return self._parameter_bytes() + len(job.artifact) + len(job.manifest)

    def _parameter_bytes(self) -> int:
        return 4 * self._opened().opened.model.parameter_count

    def _opened(self) -> OpenedJob:
        if self._job is None:
            raise ValueError("no job is open at this fleet")
        return self._job
