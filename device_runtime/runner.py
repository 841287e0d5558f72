"""One device's work for a gateway, a phase at a time, so that many identities share a process.

enrol → check in → fetch → train (slices) → upload → check in → ...

A phase that fails is tried again later; a task that cannot be done is reported and left. What must
outlive the process is in the `DeviceStore`; a lease is not, for the gateway ends it at its
deadline.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import replace

from device_runtime.device_state import DeviceStateReader
from device_runtime.device_store import DeviceStore, PendingUpdate
from device_runtime.examples import ExampleSource
from device_runtime.feature_tasks import FeatureTasks
from device_runtime.gateway_client import GatewayBusy, GatewayRefused
from device_runtime.known_policy import KnownPolicy
from device_runtime.leased_task import LeasedTask, SharedParts
from device_runtime.pacing import Pacing
from device_runtime.participation import (
    Decision,
    InvalidParticipation,
    ParticipationPolicy,
    decide,
)
from device_runtime.protocol import device_pb2 as pb
from device_runtime.request_signer import DeviceDescription, EnrolmentRefused, RequestSigner
from device_runtime.secure_updates import VerifiedEnclave, seal_update, verify_enclave
from device_runtime.session_shape import DOWNLOADED, TRAINED, TRAINING, UPLOADING, SessionCourses
from device_runtime.steady_time import steady_time
from device_runtime.task_fault import TaskDeclined, TaskFault
from device_runtime.update_codec import MalformedPayload, sha256_of

_log = logging.getLogger(__name__)
_Outcome = pb.ReportOutcomeRequest
_Verdict = pb.UploadResponse

# Of what a job asks, only the network still matters once the training is done.
_HOLDS_BACK_UPLOAD = frozenset({"opted_out", "user_hours", "user_battery", "network"})
# An update too long or not finite may be so for what it carried: docs/errors/FLN-2105.md, -2106.md.
_RESIDUAL_TO_BLAME = frozenset({2105, 2106})
_OTHER_ENCLAVE_KEY = 2202  # docs/errors/FLN-2202.md: nothing is wrong with the update
_NOT_AUTHENTIC = 2007  # docs/errors/FLN-2007.md: says nothing about the update or its task
_FINAL_VERDICTS = {
    _Verdict.COMMITTED: "committed",
    _Verdict.STALE: "stale",
    _Verdict.OVER_COMMITTED: "over_committed",
    _Verdict.REJECTED: "rejected",
}


class DeviceRunner:
    """The state machine of one identity. `step` does one phase and says when the next is due.

    Attributes:
        finished_tasks: Uploads a gateway has answered, in this process.
    """

    def __init__(
        self,
        store: DeviceStore,
        examples: ExampleSource,
        state_reader: DeviceStateReader,
        shared: SharedParts,
        description: DeviceDescription,
        pacing: Pacing | None = None,
        *,
        clock: Callable[[], float] = steady_time,
        jitter: random.Random | None = None,
        features: Callable[[RequestSigner], FeatureTasks] | None = None,
    ) -> None:
        """Assemble; nothing is contacted before the first `step`.

        Args:
            store: The device's own, taken (`DeviceStore.take`).
            examples: Its local records.
            state_reader: Its condition.
            shared: Of this process.
            description: For enrolment.
            pacing: Waits and slices.
            clock: Seconds since the epoch on this device; one that is set ends tasks.
            jitter: Source of the waits' spread.
            features: Makes what joins features for tasks under a feature contract; None: such tasks
                are declined.
        """
        self.finished_tasks = 0
        self._store = store
        self._examples = examples
        self._state_reader = state_reader
        self._gateway = shared.gateway
        self._shared = shared
        self._counts = shared.counts
        self._pacing = pacing or Pacing()
        self._jitter = jitter or random.Random()  # noqa: S311 (spreads load; guards nothing)
        self._clock = clock
        self._signer = RequestSigner(store, description, clock)
        self._features = None if features is None else features(self._signer)
        self._known = KnownPolicy.stored(store.policy_json())
        self._lease: LeasedTask | None = None
        self._courses = SessionCourses()
        self._report: pb.ReportOutcomeRequest | None = None
        self._failures = 0
        self._task_failures = 0
        self._checked_in_twice = False
        self._credential_renewed = False
        self._phase = self._check_in if self._signer.is_enrolled else self._enrol

    @property
    def has_task(self) -> bool:
        """Whether it holds a lease, or an update no gateway has answered yet."""
        return self._phase in (self._fetch, self._train, self._upload)

    @property
    def is_enrolled(self) -> bool:
        """Whether a gateway knows it."""
        return self._signer.is_enrolled

    def step(self) -> float:
        """Do one phase.

        Returns:
            Seconds until the next call is due; 0 to go on at once.

        Raises:
            NotEnrolled: If the device has to enrol and has no token.
            EnrolmentRefused: If the gateway does not take its token.
            InvalidParticipation: If the user's settings cannot be read.
        """
        try:
            return self._phase()
        except GatewayBusy as error:
            _log.info("the gateway does not answer: %s", error)
            self._counts["busy"] += 1
            return self._back_off()
        except GatewayRefused as error:
            _log.warning("the gateway refuses: %s", error)
            self._counts["refused"] += 1
            return self._after_refusal(error)
        except TaskFault as fault:
            _log.warning("task left: %s", fault)
            self._task_failures += 1
            declined = isinstance(fault, TaskDeclined)
            outcome = _Outcome.DECLINED if declined else _Outcome.FAILED
            return self._leave_task(outcome, fault.reason)

    # Phases.

    def _enrol(self) -> float:
        self._signer.enrolled(self._gateway.enrol(self._signer.enrol_request()))
        self._failures = 0
        self._counts["enrolled"] += 1
        _log.info("enrolled; asking for work")
        self._phase = self._check_in
        return 0.0

    def _check_in(self) -> float:
        decision = self._decide(None)
        if not decision.allowed:
            return self._stay_away(decision)
        pending = self._store.pending()
        if not all(update.answered for update in pending):
            self._phase = self._upload
            return 0.0
        willing = self._has_examples()
        if not willing and not pending:
            self._counts["no_examples"] += 1
            _log.info("there are no records to train on; looking again later")
            return self._pacing.after_recheck(self._jitter)
        satisfied = self._known if willing and self._satisfies(self._known) else None
        response = self._gateway.check_in(
            self._signer.check_in_request(satisfied.sha256 if satisfied else b"", pending)
        )
        self._signer.heard_time(response.server_time_ms)
        self._failures = 0
        self._credential_renewed = False
        self._counts["check_ins"] += 1
        self._settle(response, pending)
        if response.held_back_code:
            self._counts[f"held_back_{response.held_back_code}"] += 1
            _log.info("no task for now: docs/errors/FLN-%d.md", response.held_back_code)
        if response.HasField("task"):
            return self._accept(response.task, satisfied)
        return self._after_check_in(response, satisfied, willing=willing)

    def _fetch(self) -> float:
        lease = self._held_lease()
        if self._past_deadline(lease):
            return self._leave_task(_Outcome.INTERRUPTED, "deadline")
        task = lease.task
        if task.HasField("secure_aggregation") and lease.enclave is None:
            lease.enclave = self._verified(task.token, task.job_id, task.secure_aggregation)
        lease.prepare(self._examples, self._features)
        self._courses.note(lease.task.task_id, DOWNLOADED)
        self._failures = 0
        self._phase = self._train
        return 0.0

    def _train(self) -> float:
        lease = self._held_lease()
        decision = self._decide(lease.policy)
        if not decision.allowed:
            outcome = _Outcome.INTERRUPTED if lease.started else _Outcome.DECLINED
            return self._leave_task(outcome, decision.reason_code)
        if self._past_deadline(lease):
            return self._leave_task(_Outcome.INTERRUPTED, "deadline")
        self._courses.note(lease.task.task_id, TRAINING)
        if lease.train(self._pacing.slice_s):
            if lease.feeds_back:
                lease.carried = self._store.residual(lease.task.job_id, lease.parameter_count)
            if lease.enclave is not None:
                # It may have been started anew since; what it is sent first, that boot takes.
                task = lease.task
                lease.enclave = self._verified(task.token, task.job_id, task.secure_aggregation)
            update, plain = lease.update()
            if lease.enclave is None:
                self._store.keep(update, plain, lease.unsent)
            else:
                self._keep_sealed(lease, lease.enclave, update, plain)
            self._courses.note(update.task_id, TRAINED)
            self._counts["trained"] += 1
            self._lease = None
            self._phase = self._upload
        return 0.0

    def _upload(self) -> float:
        decision = self._decide(self._known.policy if self._known else None)
        if decision.reason_code in _HOLDS_BACK_UPLOAD:
            return self._stay_away(decision)
        update = self._unanswered()
        if update is None:
            self._phase = self._next_phase()
            return 0.0
        payload = self._store.payload(update)
        if payload is None:
            _log.warning("the bytes of task %s are damaged; left", update.task_id)
            self._counts["damaged"] += 1
            self._store.forget(update.task_id)
            return 0.0
        course = self._courses.note(update.task_id, UPLOADING)
        response = self._gateway.upload(self._signer.upload_request(update, payload, course))
        self._counts["bytes_up"] += len(payload)
        return self._after_upload(update, response)

    def _send_report(self) -> float:
        if self._report is None:
            self._phase = self._next_phase()
            return 0.0
        response = self._gateway.report_outcome(self._report)
        self._report = None
        self._failures = 0
        self._phase = self._next_phase()
        return max(self._pacing.as_told(response.come_back_after_s), self._task_back_off())

    # What follows an answer.

    def _after_check_in(
        self, response: pb.CheckInResponse, satisfied: KnownPolicy | None, *, willing: bool
    ) -> float:
        self._phase = self._next_phase()
        if self._phase != self._check_in:
            return 0.0
        if response.HasField("policy") and not self._learn(response.policy):
            return self._pacing.after_refusal(self._jitter)
        unchanged = satisfied is not None and self._known == satisfied
        able = willing and (unchanged or self._satisfies(self._known))
        if able and not unchanged and not self._checked_in_twice:
            self._checked_in_twice = True
            return 0.0
        self._checked_in_twice = False
        come_back_s = self._pacing.as_told(response.come_back_after_s)
        if able or self._known is None:
            return come_back_s
        return max(come_back_s, self._pacing.after_recheck(self._jitter))

    def _accept(self, task: pb.Task, satisfied: KnownPolicy | None) -> float:
        self._checked_in_twice = False
        self._counts["leased"] += 1
        self._courses.begin(task.task_id)
        self._store.keep_residual_of(task.job_id)
        policy = satisfied.policy if satisfied else ParticipationPolicy()
        self._lease = self._take(task, policy)
        if satisfied is None:
            return self._leave_task(_Outcome.DECLINED, "policy_not_satisfied")
        self._phase = self._next_phase()
        return 0.0

    def _take(self, task: pb.Task, policy: ParticipationPolicy) -> LeasedTask:
        return LeasedTask(task, policy, self._shared)

    def _settle(self, response: pb.CheckInResponse, pending: list[PendingUpdate]) -> None:
        kept = {update.task_id: update for update in pending}
        for settlement in response.settlements:
            task_id = settlement.task_id
            if task_id not in kept:
                continue
            if settlement.state == pb.Settlement.UPLOAD_AGAIN:
                self._counts["upload_again"] += 1
                self._courses.begin(task_id)
                self._store.mark_answered(task_id, answered=False)
            elif settlement.state in (pb.Settlement.COMMITTED, pb.Settlement.DROPPED):
                committed = settlement.state == pb.Settlement.COMMITTED
                outcome = "committed" if committed else "dropped"
                self._counts[outcome] += 1
                self._store.settle(kept[task_id], counted=committed)
                self._record(task_id, kept[task_id].job_id, outcome)

    def _after_upload(self, update: PendingUpdate, response: pb.UploadResponse) -> float:
        come_back_s = self._pacing.as_told(response.come_back_after_s)
        if response.verdict in (_Verdict.RETRY_LATER, _Verdict.VERDICT_UNSPECIFIED):
            self._counts["retry_later"] += 1
            if response.reason_code == _OTHER_ENCLAVE_KEY and update.sealed_for:
                self._seal_again(update)
            return max(come_back_s, self._back_off())
        refused_unread = response.reason_code == _NOT_AUTHENTIC
        if refused_unread and self._signer.mends_clock(response.server_time_ms):
            return 0.0
        self._failures = self._task_failures = 0
        self._courses.end(update.task_id)
        outcome = _FINAL_VERDICTS.get(response.verdict)
        if outcome is None:
            # Accepted, or a verdict newer than this runtime: the next check-in settles it.
            outcome = "accepted"
            self._store.mark_answered(update.task_id, answered=True)
        else:
            self._store.settle(update, counted=response.verdict == _Verdict.COMMITTED)
        if response.reason_code in _RESIDUAL_TO_BLAME:
            self._store.forget_residual()
        if response.reason_code:
            self._counts[f"rejected_{response.reason_code}"] += 1
            _log.warning("update refused, %d: %s", response.reason_code, response.reason)
        self._counts[outcome] += 1
        self._record(update.task_id, update.job_id, outcome)
        self.finished_tasks += 1
        self._phase = self._next_phase()
        return come_back_s if self._phase == self._check_in else 0.0

    def _keep_sealed(
        self, lease: LeasedTask, enclave: VerifiedEnclave, update: PendingUpdate, plain: bytes
    ) -> None:
        sealed_for = lease.sealed_for(self._signer.device_id)
        payload = seal_update(enclave, sealed_for, self._signer.app_id, plain, never_sent=True)
        update = replace(
            update,
            payload_sha256=sha256_of(payload),
            sealed_for=sealed_for.SerializeToString(),
            secure_aggregation=lease.task.secure_aggregation.SerializeToString(),
        )
        self._store.keep(update, payload, lease.unsent, plain=plain)

    def _seal_again(self, update: PendingUpdate) -> None:
        """The enclave was started anew: verify that boot, and seal to its key."""
        plain = self._store.plain(update)
        if plain is None:
            _log.warning("the bytes of task %s are gone; left", update.task_id)
            self._counts["damaged"] += 1
            self._store.forget(update.task_id)
            return
        sealed_for = pb.SealedFor.FromString(update.sealed_for)
        demands = pb.SecureAggregation.FromString(update.secure_aggregation)
        try:
            enclave = self._verified(update.task_token, sealed_for.job_id, demands)
        except TaskFault as fault:
            _log.warning("update of task %s left: %s", update.task_id, fault)
            self._report = pb.ReportOutcomeRequest(
                task_token=update.task_token,
                outcome=_Outcome.FAILED,
                reason=fault.reason,
                session_course=self._courses.end(update.task_id),
            )
            self._store.forget(update.task_id)
            self._phase = self._send_report
            return
        try:
            payload = seal_update(enclave, sealed_for, self._signer.app_id, plain)
        except MalformedPayload as error:  # torn on disk
            _log.warning("the bytes of task %s are damaged (%s); left", update.task_id, error)
            self._counts["damaged"] += 1
            self._store.forget(update.task_id)
            return
        self._counts["sealed_again"] += 1
        update = replace(update, payload_sha256=sha256_of(payload))
        self._store.keep(update, payload, plain=plain)

    def _verified(
        self, task_token: bytes, job_id: str, demands: pb.SecureAggregation
    ) -> VerifiedEnclave:
        now_s = self._signer.server_time_ms() / 1000
        return verify_enclave(self._gateway, task_token, job_id, demands, self._shared.trust, now_s)

    def _after_refusal(self, error: GatewayRefused) -> float:
        if error.status == "UNAUTHENTICATED" and self._signer.mends_clock(error.server_time_ms):
            return 0.0
        if error.status == "UNAUTHENTICATED" and self._may_renew_credential():
            # A credential that went bad is mended by enrolling the same key again.
            self._credential_renewed = True
            self._phase = self._enrol
            return self._back_off()
        if self._phase == self._enrol and not self._signer.is_enrolled:
            # Asking again changes nothing: somebody has to bring another token.
            raise EnrolmentRefused(
                f"the gateway does not enrol this device ({error.detail}); make a new token with "
                "`flint device enrol-token` and give it to the device"
            ) from error
        if self._phase == self._fetch:
            self._lease = None
            self._task_failures += 1
        elif self._phase == self._upload:
            for update in self._store.pending():
                self._store.mark_answered(update.task_id, answered=True)
        elif self._phase == self._send_report:
            self._report = None
        else:
            return self._pacing.after_refusal(self._jitter)
        self._phase = self._next_phase()
        return max(self._back_off(), self._task_back_off())

    def _leave_task(self, outcome: pb.ReportOutcomeRequest.Outcome, reason: str) -> float:
        lease = self._held_lease()
        self._counts[_Outcome.Outcome.Name(outcome).lower()] += 1
        self._report = pb.ReportOutcomeRequest(
            task_token=lease.task.token,
            outcome=outcome,
            reason=reason,
            cost=lease.cost(),
            session_course=self._courses.end(lease.task.task_id),
        )
        self._lease = None
        self._phase = self._send_report
        return 0.0

    def _stay_away(self, decision: Decision) -> float:
        self._counts[f"held_back_{decision.reason_code}"] += 1
        if decision.reason_code == "opted_out":
            for update in self._store.pending():
                self._store.forget(update.task_id)
            self._store.forget_residual()
            self._lease = None
            self._phase = self._check_in
        return self._pacing.after_recheck(self._jitter)

    # Small questions.

    def _has_examples(self) -> bool:
        return self._examples.count() > 0 or (
            self._features is not None and self._features.count() > 0
        )

    def _next_phase(self) -> Callable[[], float]:
        if self._unanswered() is not None:
            return self._upload
        return self._check_in if self._lease is None else self._fetch

    def _unanswered(self) -> PendingUpdate | None:
        return next((update for update in self._store.pending() if not update.answered), None)

    def _decide(self, policy: ParticipationPolicy | None) -> Decision:
        state = replace(
            self._state_reader.read(), last_participation=self._store.last_participation()
        )
        return decide(policy, self._store.settings(), state)

    def _record(self, task_id: str, job_id: str, outcome: str) -> None:
        self._store.record_participation(task_id, job_id, outcome, finished_at_s=self._clock())

    def _satisfies(self, known: KnownPolicy | None) -> bool:
        return known is not None and self._decide(known.policy).allowed

    def _learn(self, message: pb.ParticipationPolicy) -> bool:
        try:
            known = KnownPolicy.parse(message.policy_json)
        except InvalidParticipation as error:
            _log.warning("%s", error)
            self._counts["policy_not_understood"] += 1
            self._known = None
            return False
        if known.sha256 != message.policy_sha256:
            _log.warning("the participation policy told is not the one its digest names")
            return False
        if known != self._known:
            self._known = known
            self._store.save_policy_json(message.policy_json)
        return True

    def _may_renew_credential(self) -> bool:
        enrolling = self._phase == self._enrol
        return self._signer.can_enrol and not enrolling and not self._credential_renewed

    def _held_lease(self) -> LeasedTask:
        if self._lease is None:
            raise RuntimeError("a task's phase without a lease")
        return self._lease

    def _past_deadline(self, lease: LeasedTask) -> bool:
        deadline_ms = lease.task.deadline_ms
        return deadline_ms > 0 and self._signer.server_time_ms() > deadline_ms

    def _back_off(self) -> float:
        self._failures += 1
        return self._pacing.after_failures(self._failures, self._jitter)

    def _task_back_off(self) -> float:
        if self._task_failures == 0:
            return 0.0
        return self._pacing.after_failures(self._task_failures, self._jitter)
