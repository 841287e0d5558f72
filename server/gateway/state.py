"""What a gateway knows and decides: a state machine without sockets, arrays or a clock."""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.session_shape import ERROR, INTERRUPTED, REFUSED
from server.coordination.tasks import Grant, Outcome, UpdateReference
from server.fleet_protocol import fleet_pb2 as fleet_pb
from server.gateway.answers import Answer
from server.gateway.decisions import Admitted, CheckInAnswer, Counts, Held, TryLater
from server.gateway.held_back import HeldBack, HeldBackReason
from server.gateway.leases import Lease
from server.gateway.leasing import Leasing
from server.gateway.opened_job import OpenedJob
from server.gateway.outbox import Outbox, SequencedProgress
from server.gateway.pace import PaceSteering
from server.gateway.population import Population
from server.gateway.setbacks import Setbacks
from server.gateway.settling import settled, settled_by_job
from server.gateway.task_book import (
    JOB_ENDED,
    CountSession,
    CountTasks,
    TaskBook,
    TaskCost,
)
from server.gateway.tokens import TaskClaims, TokenMint
from server.update_gate.envelope import check_other_digest
from server.update_gate.rejections import Rejection, RejectionReason

_SEALS, _JOINS = 2, 3  # runtime_version in device.proto
_OLD_RUNTIME_WAIT_S = 3600.0

CAPACITY = 50_000
"""Tasks one gateway is willing to have leased at once; a lease takes about 2 KB."""


class GatewayState:
    """Open job, live models, grants, tasks, and what the coordinator has yet to be told.

    Every method takes the time it needs as an argument, holds the lock throughout and does no input
    or output. Every task leased ends in exactly one of: folded (and then committed or dropped),
    ended with an outcome, or over with its job.
    """

    def __init__(
        self,
        boot_id: str,
        mint: TokenMint,
        pace: PaceSteering,
        *,
        capacity: int = CAPACITY,
        count_tasks: CountTasks = lambda *_: None,
        count_session: CountSession = lambda _: None,
        new_task_id: Callable[[], str] = lambda: f"t-{secrets.token_hex(12)}",
    ) -> None:
        self.boot_id = boot_id
        self.capacity = capacity
        self.outbox = Outbox()
        self._lock = threading.Lock()
        self._count_tasks = count_tasks
        setbacks = Setbacks()
        self._tasks = TaskBook(self.outbox, count_tasks, count_session, setbacks)
        self._population = Population(pace)
        self._leasing = Leasing(
            boot_id, capacity, mint, self._tasks, self._population, setbacks, new_task_id
        )
        self._grants, self._models = self._leasing.grants, self._leasing.models
        self._job: OpenedJob | None = None
        self._closed_job_id = ""
        self._check_ins = 0

    # -- the coordinator's orders --------------------------------------------------------------

    @property
    def job(self) -> OpenedJob | None:
        """The open job."""
        return self._job

    def open(self, job: OpenedJob) -> None:
        """Start a job, or take it up again under a coordinator that came back.

        Slots not leased are void either way: the coordinator grants them again.
        """
        with self._lock:
            if self._job is None or self._job.job_id != job.job_id:
                self._close()
            elif self._job.epoch != job.epoch:
                self._grants.forget_open()  # the rounds they were for are gone with their epoch
            self._job = job
            if job.job_id == self._closed_job_id:
                self._closed_job_id = ""  # its coordinator died while it closed it
            self._grants.void_slots()

    def resume(self) -> list[fleet_pb.GatewayMessage]:
        """What to tell the coordinator after its `Open`: all unacknowledged, then a snapshot."""
        with self._lock:
            messages = self.outbox.resume(self._tasks.snapshot())
            return [_addressed(self._job, message) for message in messages]

    def take_progress(self) -> fleet_pb.GatewayMessage | None:
        """What the coordinator has not been told yet; None when that is nothing."""
        with self._lock:
            if self._job is None:
                return None
            taken = self.outbox.take()
            return None if taken is None else _addressed(self._job, taken)

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live: int) -> list[int]:
        """A version may be trained on; returns base versions whose buckets are too old now."""
        with self._lock:
            self._models.add(version, parameters_sha256, oldest_live)
            self._grants.forget_before(self._models.oldest)
            return self._tasks.held_before(self._models.oldest)

    def grant(self, granted: Grant) -> None:
        """Tasks may be leased."""
        with self._lock:
            self._grants.add(granted)

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Slots are taken back."""
        with self._lock:
            self._grants.cancel(grant_id, running_too=running_too)

    def share_devices(self, gateways: int) -> None:
        """So many gateways share the devices, and the rate of check-ins aimed at."""
        with self._lock:
            self._population.share(gateways)

    def detach(self) -> None:
        """The coordinator is away: lease nothing more; what runs may be handed in."""
        with self._lock:
            self._grants.void_slots()

    def release(self, release_id: str, task_ids: Iterable[str]) -> None:
        """The aggregator froze these updates."""
        with self._lock:
            self._tasks.release(release_id, task_ids)

    def thaw(self, release_id: str) -> None:
        """The aggregator returned a release to its buckets."""
        with self._lock:
            self._tasks.thaw(release_id)

    def commit(self, release_id: str) -> None:
        """A release is part of a stored version."""
        with self._lock:
            self._tasks.commit(release_id)

    def drop(self, task_ids: Iterable[str], outcome: Outcome, reason: str) -> None:
        """The aggregator forgot these updates."""
        with self._lock:
            self._tasks.drop(task_ids, outcome, reason)

    def close(self) -> None:
        """The job is over."""
        with self._lock:
            self._close()

    # -- check-in ------------------------------------------------------------------------------

    def check_in(
        self,
        device_id: str,
        satisfied_policy_sha256: bytes,
        pending_task_ids: Collection[str],
        now_s: float,
        codecs: Collection[str] = (),
        *,
        may_lease: bool = True,
    ) -> CheckInAnswer:
        """Lease a task to a device, or say when to come back.

        A device that holds a live lease is handed that same task again, with the same token: it
        lost the answer or its memory. If it reports the task's update as pending it has only to
        upload it, so it is handed nothing.

        Args:
            device_id: Who asks; already authenticated.
            satisfied_policy_sha256: Digest of the policy it satisfies now.
            pending_task_ids: Tasks whose updates it keeps.
            now_s: Server's clock.
            codecs: Update codecs it knows.
            may_lease: Whether it may be leased another task today.
        """
        with self._lock:
            self._check_ins += 1
            self._tasks.expire(now_s)
            return self._leasing.check_in(
                self._job,
                device_id,
                satisfied_policy_sha256,
                pending_task_ids,
                now_s,
                codecs,
                may_lease=may_lease,
            )

    def come_back_after_s(self, device_id: str) -> float:
        """When a device that has just ended a task should check in."""
        with self._lock:
            slots = self._leasing.open_slots() + 1  # its own task has just made room for another
            seed = 0 if self._job is None else self._job.job.seed
            ordinal = self._population.check_ins(device_id)
            return self._population.come_back_after_s(device_id, ordinal, seed, slots)

    # -- settlements ---------------------------------------------------------------------------

    def settle(self, claims: TaskClaims, payload_sha256: bytes) -> device_pb.Settlement | None:
        """What becomes of an update a device keeps; None when stored outcomes have to be asked."""
        with self._lock:
            return settled(self._tasks, self._leasing, claims.task_id, payload_sha256)

    def settle_unknown(
        self, claims: TaskClaims, stored: Answer | None, now_s: float
    ) -> device_pb.Settlement:
        """What becomes of an update this gateway knows nothing of, given its stored outcome."""
        with self._lock:
            if stored is not None:
                return stored.settlement(claims.task_id)
            return settled_by_job(
                claims,
                self._job,
                now_s,
                is_closed=claims.job_id == self._closed_job_id,
                may_count=claims.boot_id != self.boot_id
                and self._models.is_live(claims.base_version),
            )

    def refuses_runtime(self, runtime_version: int) -> HeldBack | None:
        """Why a device gets no task of the open job: its runtime would not seal, or not join."""
        with self._lock:
            job = self._job
        if job is None or runtime_version >= job.least_runtime(seals=_SEALS, joins=_JOINS):
            return None
        return HeldBack(HeldBackReason.RUNTIME_TOO_OLD, _OLD_RUNTIME_WAIT_S)

    # -- uploads -------------------------------------------------------------------------------

    def must_ask_store(self, claims: TaskClaims) -> bool:
        """Whether only the stored outcomes can tell if this task was answered before."""
        with self._lock:
            task_id = claims.task_id
            return (
                self._tasks.folded(task_id) is None
                and self._tasks.answer(task_id) is None
                and self._tasks.leases.of_task(task_id) is None
            )

    def admit(
        self,
        claims: TaskClaims,
        payload_sha256: bytes,
        stored: Answer | None,
        cost: TaskCost,
        now_s: float,
        course: str = "",
    ) -> Admitted | Held | Answer | Rejection | TryLater:
        """Decide on an upload whose token is genuine and the sender's own, its bytes unread.

        Args:
            claims: Of its token.
            payload_sha256: As the device signed it.
            stored: The task's stored outcome, asked for if `must_ask_store`.
            cost: As the device claims it.
            now_s: Server's clock.
            course: How far the device says the attempt came.

        Returns:
            `Admitted` to go on; `Held` or an `Answer` for a task that has its answer (the first
            one, to the same digest) or comes too late; a `Rejection` that leaves every task as it
            is.
        """
        with self._lock:
            self._tasks.expire(now_s)
            repeated = self._repeated(claims.task_id, payload_sha256, stored)
            if repeated is not None:
                return repeated
            lease = self._tasks.leases.of_task(claims.task_id) or self._taken_up(claims)
            if not isinstance(lease, Lease):
                return lease
            if lease.uploading:
                return TryLater.UPLOAD_RUNNING
            lease.course = course
            late = self._leasing.end_if_late(lease, payload_sha256, cost)
            if late is not None:
                return late
            if self._job is None:
                return TryLater.NO_JOB_OPEN
            lease.uploading = True
            if lease.task is None:
                self._tasks.leases.adopt(lease)
            return Admitted(lease, self._job)

    def record_folded(self, admitted: Admitted, reference: UpdateReference) -> None:
        """The aggregator folded an admitted update."""
        with self._lock:
            self._tasks.fold(admitted.lease, reference)

    def record_rejected(
        self, admitted: Admitted, rejection: Rejection, payload_sha256: bytes, cost: TaskCost
    ) -> Answer:
        """The gate refused an admitted update: its task has ended."""
        with self._lock:
            answer = Answer(
                Outcome.REJECTED, rejection.detail, int(rejection.reason), payload_sha256
            )
            reason = rejection.reason.name.lower()
            self._tasks.end(admitted.lease, answer, reason, cost, session_end=REFUSED)
            return answer

    def break_off(self, admitted: Admitted) -> None:
        """An admitted upload failed on our side: its task is as before."""
        with self._lock:
            self._tasks.leases.upload_broken_off(admitted.lease)

    def record_refusal(self, reason: RejectionReason) -> None:
        """An upload was refused that says nothing about any task."""
        with self._lock:
            self.outbox.refused(reason)
            self._count_tasks("refused", reason.name.lower(), 1)

    def end_task(
        self,
        claims: TaskClaims,
        outcome: Outcome,
        reason: str,
        cost: TaskCost,
        now_s: float,
        course: str = "",
    ) -> None:
        """A device ends its leased task without an update; repeats and late words are ignored."""
        with self._lock:
            self._tasks.expire(now_s)
            lease = self._tasks.leases.of_task(claims.task_id)
            if lease is not None and not lease.uploading:
                lease.course = course
                ending = ERROR if outcome is Outcome.FAILED else INTERRUPTED
                self._tasks.end(lease, Answer(outcome, reason), reason, cost, session_end=ending)

    # -- time and measures ---------------------------------------------------------------------

    def expire(self, now_s: float) -> float | None:
        """End overdue tasks; returns the next deadline."""
        with self._lock:
            self._tasks.expire(now_s)
            return self._tasks.leases.next_deadline_s()

    def counts(self) -> Counts:
        """How much is going on."""
        with self._lock:
            return Counts(
                len(self._tasks.leases),
                self._tasks.held(),
                self._models.newest,
                self._check_ins,
                max(0, self._leasing.open_slots()),
                len(self._population),
            )

    # -- under the lock ------------------------------------------------------------------------

    def _close(self) -> None:
        if self._job is not None:
            self._closed_job_id = self._job.job_id
        self._tasks.close()
        self._grants.clear()
        self._models.clear()
        self._population.forget_eligible()
        self._job = None

    def _repeated(
        self, task_id: str, payload_sha256: bytes, stored: Answer | None
    ) -> Held | Answer | Rejection | None:
        """The first answer again, if there was one and this is the update it was given for."""
        folded = self._tasks.folded(task_id)
        if folded is not None:
            return check_other_digest(folded, payload_sha256) or Held()
        answer = self._tasks.answer(task_id) or stored
        # One that ended without an update says the same to whatever comes: too late.
        if answer is None or not answer.payload_sha256:
            return answer
        return check_other_digest(answer.payload_sha256, payload_sha256) or answer

    def _taken_up(self, claims: TaskClaims) -> Lease | Answer | Rejection | TryLater:
        """A task that is not leased here: folded or leased by a lost gateway, if it may count."""
        job = self._job
        if claims.job_id == self._closed_job_id or (job and claims.job_id != job.job_id):
            return Answer(Outcome.OVER_COMMITTED, JOB_ENDED)
        if job is None or not self._models:
            return TryLater.NO_JOB_OPEN
        if claims.boot_id == self.boot_id:
            return Rejection(
                RejectionReason.UNKNOWN_TASK, "the task ended here and is no longer remembered"
            )
        if not self._models.is_live(claims.base_version):
            # The coordinator has ended it as gateway_lost; there is nothing to report.
            return Answer(Outcome.STALE, "gateway_lost")
        return Lease(claims, claims.deadline_ms / 1000, task=None)


def _addressed(job: OpenedJob | None, message: SequencedProgress) -> fleet_pb.GatewayMessage:
    addressed = fleet_pb.GatewayMessage(sequence=message.sequence, progress=message.progress)
    if job is not None:
        addressed.job_id, addressed.epoch = job.job_id, job.epoch
    return addressed
