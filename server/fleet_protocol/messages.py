"""flint.fleet.v1 messages to and from the coordinator's own types."""

import numpy as np

from modeling.spec import ModelSpec
from server.aggregation.aggregator import PartialSum
from server.coordination.events import TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Grant, Outcome, UpdateReference
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol.release_book import ReleaseBook

MAX_MESSAGE_BYTES = 1 << 30
"""A partial is as large as a model times its base versions; both ends are ours."""


def open_message(opened: OpenJob, releases: ReleaseBook) -> pb.Open:
    """Everything a gateway needs to start or resume a job.

    Raises:
        TypeError: If the model is none that devices can be given.
    """
    if not isinstance(opened.model, ModelSpec):
        raise TypeError(f"devices train a ModelSpec, not a {type(opened.model).__name__}")
    return pb.Open(
        job_json=opened.job.to_json(),
        model_spec_json=opened.model.to_json(),
        artifact_sha256=opened.artifact_sha256,
        manifest_sha256=opened.manifest_sha256,
        contract_sha256=opened.contract_sha256,
        committed_releases=releases.committed,
        undecided_releases=releases.undecided,
        feature_hash_seed=opened.feature_hash_seed,
    )


def grant_message(grant: Grant, count: int) -> pb.Grant:
    """A gateway's share of a grant."""
    return pb.Grant(
        grant_id=grant.grant_id,
        count=count,
        pinned=grant.base_version is not None,
        base_version=grant.base_version or 0,
        task_timeout_s=grant.task_timeout_s,
    )


def granted(message: pb.Grant) -> Grant:
    """A gateway's share of a grant, as it was granted."""
    pinned = message.base_version if message.pinned else None
    return Grant(message.grant_id, message.count, pinned, message.task_timeout_s)


def started_event(message: pb.Leased, at_s: float) -> TaskStarted:
    """A lease, as the coordinator sees it."""
    return TaskStarted(
        at_s, message.task_id, message.grant_id, message.client_id, message.base_version
    )


def completed_event(message: pb.Completed, at_s: float) -> TaskCompleted:
    """A folded update, as the coordinator sees it."""
    return TaskCompleted(
        at_s,
        UpdateReference(
            message.task_id,
            message.client_id,
            message.base_version,
            message.num_examples,
            message.weight,
            message.update_norm,
            message.loss_before,
            message.loss_after,
            message.train_s,
            message.bytes_down,
            message.bytes_up,
            message.payload_sha256,
        ),
    )


def ended_event(message: pb.Ended, at_s: float) -> TaskEnded:
    """A task that ended without counting, as the coordinator sees it."""
    return TaskEnded(
        at_s,
        message.task_id,
        message.client_id,
        message.base_version,
        Outcome(message.outcome),
        message.reason,
        message.reason_code,
        message.payload_sha256,
        message.train_s,
        message.bytes_down,
        message.bytes_up,
    )


def partial_sums(message: pb.Partial) -> tuple[PartialSum, ...]:
    """The sums of a release."""
    return tuple(
        PartialSum(
            bucket.base_version,
            np.frombuffer(bucket.sum, dtype="<f4"),
            bucket.weight,
            tuple(bucket.task_ids),
        )
        for bucket in message.buckets
    )
