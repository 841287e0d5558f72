"""Tasks given to nodes, and the messages that carry them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from device_runtime.flower_records import ARRAYS, CONFIG, SecureKey, TaskKey
from device_runtime.protocol import device_pb2 as device_pb
from server.coordination.fleet import OpenJob
from server.coordination.selection import shuffle_seed
from server.coordination.tasks import Grant
from server.flower.node_messages import ConfigValue, NodeTask
from server.secure_aggregation.demands import secure_aggregation_message

Parameters = Mapping[str, NDArray[Any]]
"""Arrays of a version by name, in wire order; float32 but for somebody else's ClientApp."""


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """A job with what its tasks carry: artefact, and manifest as JSON."""

    opened: OpenJob
    artifact: bytes
    manifest: str


@dataclass(frozen=True, slots=True)
class RunningTask:
    """One task on one node.

    Attributes:
        parameters: Of the base version it was sent with, by name, in wire order.
        deadline_s: When an answer is late, on the fleet's clock.
        evidence: Of a secure job's enclave, for the nonce the node gave; empty before.
    """

    task_id: str
    grant: Grant
    node_id: int
    base_version: int
    parameters: Parameters
    deadline_s: float
    bytes_down: int
    evidence: bytes = b""

    @property
    def client_id(self) -> str:
        """The node as strategies and the catalog see it."""
        return f"node-{self.node_id}"


def node_task(job: OpenedJob, task: RunningTask) -> NodeTask:
    """The message by which a node is given a task."""
    client = job.opened.job.client
    config: dict[str, ConfigValue] = {
        TaskKey.MANIFEST: job.manifest,
        TaskKey.ARTIFACT: job.artifact,
        TaskKey.BASE_VERSION: task.base_version,
        TaskKey.CONTRACT_SHA256: job.opened.contract_sha256,
        TaskKey.LOCAL_EPOCHS: client.local_epochs,
        TaskKey.BATCH_SIZE: client.batch_size,
        TaskKey.MAX_RECORDS: client.max_records,
        TaskKey.LEARNING_RATE: client.optimizer.learning_rate_at(task.base_version),
        TaskKey.PROXIMAL_MU: client.proximal_mu,
        TaskKey.SHUFFLE_SEED: shuffle_seed(job.opened.job.seed, task.task_id),
    }
    return NodeTask(
        task.node_id,
        ARRAYS,
        CONFIG,
        task.parameters,
        {str(key): value for key, value in config.items()},
        task.grant.task_timeout_s,
        str(task.base_version),
        _secure(job, task),
    )


def challenge(job: OpenedJob, task: RunningTask) -> NodeTask:
    """The message that asks a node of a secure job for a nonce, before its task."""
    return NodeTask(
        task.node_id,
        ARRAYS,
        CONFIG,
        {},
        {},
        task.grant.task_timeout_s,
        str(task.base_version),
        {str(SecureKey.JOB_ID): job.opened.job_id},
    )


def _secure(job: OpenedJob, task: RunningTask) -> dict[str, ConfigValue] | None:
    if not task.evidence:
        return None
    opened = job.opened
    demands = secure_aggregation_message(opened.job)
    # Nodes send plain float32, whatever the job asks of devices.
    sealed_for = device_pb.SealedFor(
        task_id=task.task_id,
        job_id=opened.job_id,
        device_id=task.client_id,
        base_version=task.base_version,
    )
    values: dict[SecureKey, ConfigValue] = {
        SecureKey.JOB_ID: opened.job_id,
        SecureKey.DEMANDS: b"" if demands is None else demands.SerializeToString(),
        SecureKey.EVIDENCE: task.evidence,
        SecureKey.SEALED_FOR: sealed_for.SerializeToString(),
    }
    return {str(key): value for key, value in values.items()}
