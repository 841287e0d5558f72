"""The life of every task of the open job at this gateway: leased, folded, and how it ended."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from device_runtime.session_shape import TAKEN, UNHEARD
from server.coordination.tasks import Outcome, UpdateReference
from server.fleet_protocol import fleet_pb2 as pb
from server.gateway.answers import Answer, AnswerBook
from server.gateway.leases import Lease, LeaseBook
from server.gateway.outbox import Outbox
from server.gateway.setbacks import Setbacks

CountTasks = Callable[[str, str, int], None]
"""Told of tasks that ended: outcome, reason, how many."""

CountSession = Callable[[str], None]
"""Told of an attempt that ended: its shape, see `device_runtime.session_shape`."""

JOB_ENDED = "job_ended"


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a task cost its device, as claimed and made harmless."""

    train_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0


FREE = TaskCost()


class TaskBook:
    """Moves tasks along and tells the coordinator's outbox of every move.

    A task is in one place at a time: leased, folded (held or frozen in a release), or answered.
    Not safe for several threads; its owner holds a lock.
    """

    def __init__(
        self,
        outbox: Outbox,
        count_tasks: CountTasks,
        count_session: CountSession,
        setbacks: Setbacks,
    ) -> None:
        self.leases = LeaseBook()
        self._outbox = outbox
        self._count = count_tasks
        self._count_session = count_session
        self._setbacks = setbacks
        self._folded: dict[str, pb.Completed] = {}
        self._released: dict[str, tuple[str, ...]] = {}
        self._answers = AnswerBook()

    def lease(self, lease: Lease) -> None:
        """A device was handed a task."""
        self.leases.add(lease)
        self._outbox.leased(_leased(lease))

    def fold(self, lease: Lease, reference: UpdateReference) -> None:
        """A task's update was folded: it is counted."""
        self.leases.remove(lease)
        message = pb.Completed(
            task_id=reference.task_id,
            grant_id=lease.claims.grant_id,
            client_id=reference.client_id,
            base_version=reference.base_version,
            num_examples=reference.num_examples,
            weight=reference.weight,
            update_norm=reference.update_norm,
            loss_before=reference.loss_before,
            loss_after=reference.loss_after,
            train_s=reference.train_s,
            bytes_down=reference.bytes_down,
            bytes_up=reference.bytes_up,
            payload_sha256=reference.payload_sha256,
        )
        self._folded[reference.task_id] = message
        self._setbacks.clear(reference.client_id)
        # First, as a job may end with what follows, and then nothing more of it is told.
        self._end_session(lease, TAKEN)
        self._outbox.completed(message)

    def end(
        self,
        lease: Lease,
        answer: Answer,
        reason: str,
        cost: TaskCost = FREE,
        *,
        session_end: str = UNHEARD,
    ) -> None:
        """A task ended without counting.

        Args:
            lease: The task's.
            answer: What its device is told, now and at every repeat.
            reason: Short code under which it is counted.
            cost: Claimed by the device.
            session_end: How its device's attempt ended, see `device_runtime.session_shape`.
        """
        claims = lease.claims
        self.leases.remove(lease)
        self._answers.put(claims.task_id, answer)
        if answer.outcome in (Outcome.INTERRUPTED, Outcome.FAILED):
            self._setbacks.note(claims.device_id)
        self._end_session(lease, session_end)
        self._outbox.ended(
            [
                pb.Ended(
                    task_id=claims.task_id,
                    grant_id=claims.grant_id,
                    client_id=claims.device_id,
                    base_version=claims.base_version,
                    outcome=answer.outcome,
                    reason=reason,
                    reason_code=answer.reason_code,
                    payload_sha256=answer.payload_sha256,
                    train_s=cost.train_s,
                    bytes_down=cost.bytes_down,
                    bytes_up=cost.bytes_up,
                )
            ]
        )
        self._count(answer.outcome, reason, 1)

    def expire(self, now_s: float) -> None:
        """End every leased task whose deadline has passed."""
        for lease in self.leases.take_overdue(now_s):
            self.end(lease, Answer(Outcome.INTERRUPTED, "deadline"), "deadline")

    def folded(self, task_id: str) -> bytes | None:
        """Payload digest of an update that is folded and not committed."""
        message = self._folded.get(task_id)
        return None if message is None else message.payload_sha256

    def answer(self, task_id: str) -> Answer | None:
        """How a task ended, if it ended here and is remembered."""
        return self._answers.find(task_id)

    def held(self) -> int:
        """Updates folded and not committed."""
        return len(self._folded)

    def release(self, release_id: str, task_ids: Iterable[str]) -> None:
        """These updates are frozen in a release."""
        self._released[release_id] = tuple(task_ids)

    def thaw(self, release_id: str) -> None:
        """A release's updates are back in their buckets."""
        self._released.pop(release_id, None)

    def commit(self, release_id: str) -> None:
        """A release's updates are part of a stored version."""
        task_ids = self._released.pop(release_id, ())
        for task_id in task_ids:
            message = self._folded.pop(task_id)
            digest = message.payload_sha256
            self._answers.put(task_id, Answer(Outcome.SUCCEEDED, "", payload_sha256=digest))
        if task_ids:
            self._count(Outcome.SUCCEEDED, "aggregated", len(task_ids))

    def drop(self, task_ids: Iterable[str], outcome: Outcome, reason: str) -> None:
        """Updates were taken out of their bucket and will not be used."""
        ended = []
        for task_id in task_ids:
            folded = self._folded.pop(task_id)
            digest = folded.payload_sha256
            self._answers.put(task_id, Answer(outcome, reason, payload_sha256=digest))
            ended.append(
                pb.Ended(
                    task_id=task_id,
                    grant_id=folded.grant_id,
                    client_id=folded.client_id,
                    base_version=folded.base_version,
                    outcome=outcome,
                    reason=reason,
                    payload_sha256=digest,
                )
            )
        if ended:
            self._outbox.ended(ended)
            self._count(outcome, reason, len(ended))

    def held_before(self, oldest_live_version: int) -> list[int]:
        """Base versions older than the oldest live that have updates in buckets."""
        frozen = {task_id for task_ids in self._released.values() for task_id in task_ids}
        return sorted(
            {
                folded.base_version
                for task_id, folded in self._folded.items()
                if folded.base_version < oldest_live_version and task_id not in frozen
            }
        )

    def close(self) -> None:
        """The job is over: whatever is open has ended with it, and the coordinator knows.

        Folded updates are forgotten without an answer: whether they became part of a version is
        told by the stored outcomes.
        """
        leases = self.leases.all()
        for lease in leases:
            answer = Answer(Outcome.OVER_COMMITTED, JOB_ENDED)
            self._answers.put(lease.claims.task_id, answer)
        over = len(leases) + len(self._folded)
        if over:
            self._count(Outcome.OVER_COMMITTED, JOB_ENDED, over)
        self.leases.clear()
        self._folded.clear()
        self._released.clear()
        self._outbox.clear()

    def snapshot(self) -> pb.Progress:
        """All that is leased and all that is folded and not committed."""
        return pb.Progress(
            snapshot=True,
            leased=[_leased(lease) for lease in self.leases.all()],
            completed=self._folded.values(),
        )

    def _end_session(self, lease: Lease, ending: str) -> None:
        shape = lease.course + ending
        self._outbox.session(shape)
        self._count_session(shape)


def _leased(lease: Lease) -> pb.Leased:
    claims = lease.claims
    return pb.Leased(
        task_id=claims.task_id,
        grant_id=claims.grant_id,
        client_id=claims.device_id,
        base_version=claims.base_version,
    )
