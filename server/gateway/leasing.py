"""What a device is told when it checks in: a task, or when to come back."""

from collections.abc import Callable, Collection

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.session_shape import REFUSED, UNHEARD
from server.coordination.selection import takes_task
from server.coordination.tasks import Outcome
from server.gateway.answers import Answer
from server.gateway.decisions import CheckInAnswer
from server.gateway.grants import GrantBook, OpenGrant
from server.gateway.leases import Lease
from server.gateway.live_models import LiveModels
from server.gateway.opened_job import OpenedJob
from server.gateway.population import Population
from server.gateway.setbacks import Setbacks
from server.gateway.task_book import FREE, TaskBook, TaskCost
from server.gateway.tokens import TaskClaims, TokenMint


class Leasing:
    """Hands granted slots to the devices that check in.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(
        self,
        boot_id: str,
        capacity: int,
        mint: TokenMint,
        tasks: TaskBook,
        population: Population,
        setbacks: Setbacks,
        new_task_id: Callable[[], str],
    ) -> None:
        self.grants = GrantBook()
        self.models = LiveModels()
        self.population = population
        self._boot_id = boot_id
        self._capacity = capacity
        self._mint = mint
        self._tasks = tasks
        self._setbacks = setbacks
        self._new_task_id = new_task_id

    def open_slots(self) -> int:
        """Tasks that may be leased now."""
        if not self.models:
            return 0
        return min(self.grants.open_slots(), self._capacity - len(self._tasks.leases))

    def check_in(
        self,
        job: OpenedJob | None,
        device_id: str,
        satisfied_policy_sha256: bytes,
        pending_task_ids: Collection[str],
        now_s: float,
        codecs: Collection[str],
        *,
        may_lease: bool,
    ) -> CheckInAnswer:
        """See `GatewayState.check_in`."""
        slots = self.open_slots()
        seed = 0 if job is None else job.job.seed
        ordinal = self.population.see(device_id, now_s, slots)
        later_s = self.population.come_back_after_s(device_id, ordinal, seed, slots)
        if job is None:
            return CheckInAnswer(later_s)
        if satisfied_policy_sha256 != job.policy.policy_sha256:
            return CheckInAnswer(later_s, policy=job.policy)
        back_off = self._setbacks.back_off(device_id, now_s)
        if back_off is not None:
            return CheckInAnswer(max(later_s, back_off.wait_s), held_back=back_off)
        lease = self._live_lease(device_id)
        if lease is not None:
            return CheckInAnswer(later_s, task=self._once_more(lease, pending_task_ids))
        grant = self._offer(job, device_id, slots, ordinal, now_s) if may_lease else None
        if grant is None:
            return CheckInAnswer(later_s)
        return CheckInAnswer(later_s, task=self._lease(job, grant, device_id, now_s, codecs))

    def end_if_late(
        self, lease: Lease, payload_sha256: bytes = b"", cost: TaskCost = FREE
    ) -> Answer | None:
        """End a task that cannot count any more, whether its update is there or not."""
        if self.grants.is_cancelled(lease.claims.grant_id):
            outcome, reason = Outcome.OVER_COMMITTED, "round_closed"
        elif lease.claims.base_version < self.models.oldest:
            outcome, reason = Outcome.STALE, "base_version"
        else:
            return None
        answer = Answer(outcome, reason, payload_sha256=payload_sha256)
        ending = REFUSED if payload_sha256 else UNHEARD
        self._tasks.end(lease, answer, reason, cost, session_end=ending)
        return answer

    def _live_lease(self, device_id: str) -> Lease | None:
        lease = self._tasks.leases.of_device(device_id)
        if lease is None or lease.uploading:
            return lease
        return lease if self.end_if_late(lease) is None else None

    def _once_more(self, lease: Lease, pending_task_ids: Collection[str]) -> device_pb.Task | None:
        """The device's task again, unless it has only to upload its update."""
        if lease.uploading or lease.claims.task_id in pending_task_ids:
            return None
        self._setbacks.note(lease.claims.device_id)
        return lease.task

    def _offer(
        self, job: OpenedJob, device_id: str, slots: int, ordinal: int, now_s: float
    ) -> OpenGrant | None:
        """A grant this device may take a slot of, if it is its turn."""
        eligible = self.population.see_eligible(device_id, now_s)
        grant = self.grants.offer(device_id) if slots > 0 else None
        if grant is None or not takes_task(
            job.job.selection,
            open_slots=slots,
            eligible_devices=eligible,
            seed=job.job.seed,
            device_id=device_id,
            check_in=ordinal,
        ):
            return None
        return grant

    def _lease(
        self,
        job: OpenedJob,
        grant: OpenGrant,
        device_id: str,
        now_s: float,
        codecs: Collection[str],
    ) -> device_pb.Task | None:
        base_version = self.models.newest if grant.base_version is None else grant.base_version
        parameters_sha256 = self.models.digest(base_version)
        if parameters_sha256 is None:
            return None
        self.grants.take(grant, device_id)
        deadline_s = now_s + grant.task_timeout_s
        claims = TaskClaims(
            self._new_task_id(),
            job.job_id,
            grant.grant_id,
            base_version,
            device_id,
            self._boot_id,
            int(deadline_s * 1000),
            job.blobs(parameters_sha256),
        )
        task = job.task(claims, self._mint.task_token(claims), parameters_sha256, codecs)
        self._tasks.lease(Lease(claims, deadline_s, task))
        return task
