"""The coordinator's orders, carried out on state and aggregator together."""

import logging
from collections.abc import Callable

import numpy as np

from feature_catalog.failpoints import failpoint
from server.aggregation.aggregator import Aggregator, PartialSum
from server.coordination.tasks import Outcome, Release
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol.messages import granted
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.known_gateways import KnownGateway, KnownGateways
from server.gateway.opened_job import OpenedJob
from server.gateway.state import GatewayState
from server.secure_aggregation.release_rules import ReleaseRefused

log = logging.getLogger(__name__)


class OrderDesk:
    """Carries out one message of the coordinator at a time, with no upload half done.

    Messages of an older epoch, of another job or out of order are ignored.
    """

    def __init__(
        self,
        state: GatewayState,
        aggregator: Aggregator,
        barrier: FoldBarrier,
        known: KnownGateways | None = None,
        count_kept: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Assemble.

        Args:
            state: Of this gateway.
            aggregator: Of this gateway.
            barrier: Keeps uploads off while an order is carried out.
            known: Is told of the deployment's gateways.
            count_kept: Told why an enclave keeps an aggregate.
        """
        self._state = state
        self._known = known or KnownGateways(state.boot_id)
        self._aggregator = aggregator
        self._barrier = barrier
        self._count_kept = count_kept
        self._last_sequence = 0

    def carry_out(self, message: pb.CoordinatorMessage) -> list[pb.GatewayMessage]:
        """Carry out one order; returns what to answer, in order.

        Raises:
            AggregatorLost: If the aggregator's process is gone.
        """
        if message.WhichOneof("body") == "acknowledge":
            self._state.outbox.acknowledge(message.acknowledge.progress_sequence)
            return []
        if message.WhichOneof("body") == "gateways":
            self._known.tell(
                KnownGateway(known.gateway_id, known.boot_id, known.attached)
                for known in message.gateways.known
            )
            self._state.share_devices(self._known.attached())
            return []
        with self._barrier.order():
            if message.WhichOneof("body") == "open":
                return self._open(message)
            job = self._state.job
            if job is None or (job.job_id, job.epoch) != (message.job_id, message.epoch):
                return []
            if 0 < message.sequence <= self._last_sequence:
                return []
            self._last_sequence = message.sequence
            return self._carry_out(message, job)

    def _carry_out(self, message: pb.CoordinatorMessage, job: OpenedJob) -> list[pb.GatewayMessage]:
        match message.WhichOneof("body"):
            case "set_model":
                self._set_model(message.set_model)
            case "grant":
                self._state.grant(granted(message.grant))
            case "cancel":
                self._state.cancel(message.cancel.grant_id, running_too=message.cancel.running_too)
            case "release":
                return self._release(message.release, job)
            case "commit":
                self._commit(message.commit.release_id)
            case "drop":
                drop = message.drop
                self._drop(drop.base_version, Outcome(drop.outcome), drop.reason)
            case "close":
                log.info("job %s closed: %s", job.job_id, message.close.reason)
                self._state.close()
            case unknown:
                log.warning("order %s is not known to this gateway and ignored", unknown)
        return []

    def _open(self, message: pb.CoordinatorMessage) -> list[pb.GatewayMessage]:
        before, epoch = self._state.job, message.epoch
        same_job = before is not None and before.job_id == message.job_id
        if same_job and before is not None and epoch < before.epoch:
            log.warning("an order of epoch %d came after epoch %d", epoch, before.epoch)
            return []
        job = OpenedJob.read(message.job_id, epoch, message.open)
        newer = before is None or not same_job or epoch > before.epoch
        if newer:
            self._last_sequence = 0
        self._last_sequence = max(self._last_sequence, message.sequence)
        try:
            self._aggregator.open(job.job_id, job.job, job.model)
        except ReleaseRefused as refused:
            # Only another boot of the enclave helps, so nothing is granted here meanwhile.
            log.error("job %s is not opened here: %s; restart the enclave", job.job_id, refused)
            return []
        self._state.open(job)
        committed = set(message.open.committed_releases)
        undecided = set(message.open.undecided_releases)
        for release_id in self._aggregator.frozen():
            if release_id in committed:
                self._commit(release_id)
            elif release_id not in undecided:
                # Nobody will commit it: its coordinator is gone, or went on without this gateway.
                self._aggregator.thaw(release_id)
                self._state.thaw(release_id)
        log.info("job %s opened (%s), epoch %d", job.job_id, job.job.name, epoch)
        return self._state.resume()

    def _set_model(self, message: pb.SetModel) -> None:
        too_old = self._state.set_model(
            message.version, message.parameters_sha256, message.oldest_live_version
        )
        for base_version in too_old:
            self._drop(base_version, Outcome.STALE, "base_version")

    def _release(self, message: pb.Release, job: OpenedJob) -> list[pb.GatewayMessage]:
        newest = self._state.counts().version
        release = Release(message.release_id, tuple(message.base_versions), newest)
        kept, partials = "", tuple[PartialSum, ...]()
        try:
            partials = tuple(self._aggregator.reduce(release))
        except ReleaseRefused as refused:
            kept = str(refused)
            self._count_kept(refused.refusal.name.lower())
        failpoint("aggregator_frozen")
        task_ids = [task_id for partial in partials for task_id in partial.task_ids]
        self._state.release(message.release_id, task_ids)
        # Every update in the sums is reported before them: the coordinator knows whom it counts.
        progress = self._state.take_progress()
        answer = pb.GatewayMessage(job_id=job.job_id, epoch=job.epoch)
        answer.partial.release_id = message.release_id
        answer.partial.kept = kept
        for partial in partials:
            _write(partial, answer.partial.buckets.add())
        return [answer] if progress is None else [progress, answer]

    def _commit(self, release_id: str) -> None:
        self._aggregator.commit(release_id)
        self._state.commit(release_id)

    def _drop(self, base_version: int, outcome: Outcome, reason: str) -> None:
        self._state.drop(self._aggregator.drop(base_version), outcome, reason)


def _write(partial: PartialSum, bucket: pb.Bucket) -> None:
    """Into its place: a message that is put into another is copied, and this one is a model."""
    bucket.base_version = partial.base_version
    bucket.sum = np.ascontiguousarray(partial.total, dtype="<f4").tobytes()
    bucket.weight = partial.weight
    bucket.task_ids.extend(partial.task_ids)
