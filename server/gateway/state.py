"""What a gateway knows and decides: a state machine without sockets, arrays or a clock."""

import secrets
import threading
from collections.abc import Callable, Collection, Iterable

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.session_shape import ERROR, INTERRUPTED, REFUSED, UNHEARD
from server.coordination.selection import takes_task
from server.coordination.tasks import Grant, Outcome, UpdateReference
from server.fleet_protocol import fleet_pb2 as fleet_pb
from server.gateway.answers import Answer
from server.gateway.decisions import Admitted, CheckInAnswer, Counts, Held, TryLater
from server.gateway.grants import GrantBook, OpenGrant
from server.gateway.leases import Lease
from server.gateway.opened_job import OpenedJob
from server.gateway.outbox import Outbox, SequencedProgress
from server.gateway.pace import PaceSteering
from server.gateway.population import Population
from server.gateway.task_book import (
    FREE,
    JOB_ENDED,
    CountSession,
    CountTasks,
    TaskBook,
    TaskCost,
)
from server.gateway.tokens import TaskClaims, TokenMint
from server.update_gate.envelope import check_other_digest
from server.update_gate.rejections import Rejection, RejectionReason

CAPACITY = 50_000
"""Tasks one gateway is willing to have leased at once; a lease takes about 2 KB."""

_KEEP_UNDECIDED_S = 24 * 3600.0


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
        self._mint = mint
        self._new_task_id = new_task_id
        self._count_tasks = count_tasks
        self._tasks = TaskBook(self.outbox, count_tasks, count_session)
        self._grants = GrantBook()
        self._population = Population(pace)
        self._job: OpenedJob | None = None
        self._closed_job_id = ""
        self._models: dict[int, bytes] = {}
        self._oldest_live = 0
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
            self._models[version] = parameters_sha256
            self._oldest_live = max(self._oldest_live, oldest_live)
            for old in [v for v in self._models if v < self._oldest_live]:
                del self._models[old]
            self._grants.forget_before(self._oldest_live)
            return self._tasks.held_before(self._oldest_live)

    def grant(self, granted: Grant) -> None:
        """Tasks may be leased."""
        with self._lock:
            self._grants.add(granted)

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Slots are taken back."""
        with self._lock:
            self._grants.cancel(grant_id, running_too=running_too)

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
        """
        with self._lock:
            self._check_ins += 1
            self._tasks.expire(now_s)
            job, slots = self._job, self._open_slots()
            seed = 0 if job is None else job.job.seed
            ordinal = self._population.see(device_id, now_s, slots)
            later_s = self._population.come_back_after_s(device_id, ordinal, seed, slots)
            if job is None:
                return CheckInAnswer(later_s)
            if satisfied_policy_sha256 != job.policy.policy_sha256:
                return CheckInAnswer(later_s, policy=job.policy)
            lease = self._live_lease(device_id)
            if lease is not None:
                done = lease.uploading or lease.claims.task_id in pending_task_ids
                return CheckInAnswer(later_s, task=None if done else lease.task)
            eligible = self._population.see_eligible(device_id, now_s)
            grant = self._grants.offer(device_id) if slots > 0 else None
            if grant is None or not takes_task(
                job.job.selection,
                open_slots=slots,
                eligible_devices=eligible,
                seed=seed,
                device_id=device_id,
                check_in=ordinal,
            ):
                return CheckInAnswer(later_s)
            return CheckInAnswer(later_s, task=self._lease(job, grant, device_id, now_s, codecs))

    def come_back_after_s(self, device_id: str) -> float:
        """When a device that has just ended a task should check in."""
        with self._lock:
            slots = self._open_slots() + 1  # its own task has just made room for another
            seed = 0 if self._job is None else self._job.job.seed
            ordinal = self._population.check_ins(device_id)
            return self._population.come_back_after_s(device_id, ordinal, seed, slots)

    # -- settlements ---------------------------------------------------------------------------

    def settle(self, claims: TaskClaims, payload_sha256: bytes) -> device_pb.Settlement | None:
        """What becomes of an update a device keeps; None when stored outcomes have to be asked."""
        with self._lock:
            task_id = claims.task_id
            folded = self._tasks.folded(task_id)
            if folded is not None:
                if folded != payload_sha256:
                    return _settlement(task_id, device_pb.Settlement.DROPPED, "other_digest")
                return _settlement(task_id, device_pb.Settlement.HELD)
            answer = self._tasks.answer(task_id)
            if answer is not None:
                return answer.settlement(task_id)
            lease = self._tasks.leases.of_task(task_id)
            if lease is None:
                return None
            late = None if lease.uploading else self._end_if_late(lease)
            if late is not None:
                return late.settlement(task_id)
            return _settlement(task_id, device_pb.Settlement.UPLOAD_AGAIN)

    def settle_unknown(
        self, claims: TaskClaims, stored: Answer | None, now_s: float
    ) -> device_pb.Settlement:
        """What becomes of an update this gateway knows nothing of, given its stored outcome."""
        with self._lock:
            task_id, state = claims.task_id, device_pb.Settlement
            if stored is not None:
                return stored.settlement(task_id)
            if self._job is None:
                # Its job may be opened any moment; but no device keeps an update for ever.
                overdue = now_s - claims.deadline_ms / 1000 > _KEEP_UNDECIDED_S
                if overdue or claims.job_id == self._closed_job_id:
                    return _settlement(task_id, state.DROPPED, JOB_ENDED)
                return _settlement(task_id, state.HELD)
            if claims.job_id != self._job.job_id:
                return _settlement(task_id, state.DROPPED, JOB_ENDED)
            if claims.boot_id == self.boot_id or not self._is_live(claims.base_version):
                return _settlement(task_id, state.DROPPED, "gateway_lost")
            return _settlement(task_id, state.UPLOAD_AGAIN)

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
            late = self._end_if_late(lease, payload_sha256, cost)
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
            version = max(self._models, default=0)
            return Counts(
                len(self._tasks.leases),
                self._tasks.held(),
                version,
                self._check_ins,
                max(0, self._open_slots()),
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
        self._oldest_live = 0
        self._job = None

    def _open_slots(self) -> int:
        if not self._models:
            return 0
        return min(self._grants.open_slots(), self.capacity - len(self._tasks.leases))

    def _is_live(self, base_version: int) -> bool:
        return bool(self._models) and base_version >= self._oldest_live

    def _live_lease(self, device_id: str) -> Lease | None:
        lease = self._tasks.leases.of_device(device_id)
        if lease is None or lease.uploading:
            return lease
        return lease if self._end_if_late(lease) is None else None

    def _end_if_late(
        self, lease: Lease, payload_sha256: bytes = b"", cost: TaskCost = FREE
    ) -> Answer | None:
        """End a task that cannot count any more, whether its update is there or not."""
        if self._grants.is_cancelled(lease.claims.grant_id):
            outcome, reason = Outcome.OVER_COMMITTED, "round_closed"
        elif lease.claims.base_version < self._oldest_live:
            outcome, reason = Outcome.STALE, "base_version"
        else:
            return None
        answer = Answer(outcome, reason, payload_sha256=payload_sha256)
        ending = REFUSED if payload_sha256 else UNHEARD
        self._tasks.end(lease, answer, reason, cost, session_end=ending)
        return answer

    def _lease(
        self,
        job: OpenedJob,
        grant: OpenGrant,
        device_id: str,
        now_s: float,
        codecs: Collection[str],
    ) -> device_pb.Task | None:
        base_version = max(self._models) if grant.base_version is None else grant.base_version
        parameters_sha256 = self._models.get(base_version)
        if parameters_sha256 is None:
            return None
        self._grants.take(grant, device_id)
        deadline_s = now_s + grant.task_timeout_s
        claims = TaskClaims(
            self._new_task_id(),
            job.job_id,
            grant.grant_id,
            base_version,
            device_id,
            self.boot_id,
            int(deadline_s * 1000),
            job.blobs(parameters_sha256),
        )
        task = job.task(claims, self._mint.task_token(claims), parameters_sha256, codecs)
        self._tasks.lease(Lease(claims, deadline_s, task))
        return task

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
        if not self._is_live(claims.base_version):
            # The coordinator has ended it as gateway_lost; there is nothing to report.
            return Answer(Outcome.STALE, "gateway_lost")
        return Lease(claims, claims.deadline_ms / 1000, task=None)


def _addressed(job: OpenedJob | None, message: SequencedProgress) -> fleet_pb.GatewayMessage:
    addressed = fleet_pb.GatewayMessage(sequence=message.sequence, progress=message.progress)
    if job is not None:
        addressed.job_id, addressed.epoch = job.job_id, job.epoch
    return addressed


def _settlement(
    task_id: str, state: device_pb.Settlement.State, reason: str = ""
) -> device_pb.Settlement:
    return device_pb.Settlement(task_id=task_id, state=state, reason=reason)
