"""The way of an upload: token, envelope gate, aggregator, answer."""

import random
import time
from collections.abc import Callable

from device_runtime.protocol import device_pb2 as pb
from feature_catalog.failpoints import failpoint
from server.aggregation.aggregator import Aggregator, Envelope
from server.coordination.tasks import UpdateReference
from server.gateway.answers import OutcomeStore
from server.gateway.decisions import Admitted, Held, TryLater
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.held_back import HeldBackReason
from server.gateway.state import GatewayState
from server.gateway.task_book import TaskCost
from server.gateway.tokens import TaskClaims
from server.update_gate.envelope import UploadEnvelope, check_bytes, check_lessee
from server.update_gate.rejections import Rejection, RejectionReason


class UpdateIntake:
    """Takes uploads of authenticated devices, from many threads at once."""

    def __init__(
        self,
        state: GatewayState,
        aggregator: Aggregator,
        barrier: FoldBarrier,
        outcomes: OutcomeStore,
        *,
        observe_fold_s: Callable[[float], None],
        newest_released: Callable[[str], int] = lambda _: -1,
    ) -> None:
        """Assemble.

        Args:
            observe_fold_s: Told how long gate and sum took.
            newest_released: Gives the newest version that any enclave of a job has released an
                aggregate for. Raises `OutcomesUnreachable`.
        """
        self._state = state
        self._aggregator = aggregator
        self._barrier = barrier
        self._outcomes = outcomes
        self._observe_fold_s = observe_fold_s
        self._newest_released = newest_released

    def take(
        self,
        device_id: str,
        claims: TaskClaims | None,
        upload: UploadEnvelope,
        cost: TaskCost,
        now_s: float,
        course: str = "",
    ) -> pb.UploadResponse:
        """Answer one upload; the response lacks only a time to come back.

        Args:
            device_id: The sender; its signature has been checked.
            claims: Of the task token; None if it is not genuine.
            upload: What it sent.
            cost: What it says the task cost it.
            now_s: Server's clock.
            course: How far it says its attempt came.

        Raises:
            AggregatorLost: If the aggregator's process is gone; nothing was counted.
            OutcomesUnreachable: If it cannot be told whether the task was answered before.
        """
        checked = check_lessee(claims, device_id)
        if isinstance(checked, Rejection):
            return self.refuse(checked)
        claims = checked
        stored = None
        if self._state.must_ask_store(claims):
            stored = self._outcomes.find(claims.task_id)
        with self._barrier.upload():
            digest = upload.payload_sha256
            decision = self._state.admit(claims, digest, stored, cost, now_s, course)
            if isinstance(decision, Admitted):
                return self._gate_and_fold(decision, upload, cost)
        if isinstance(decision, Rejection):
            return self.refuse(decision)
        if isinstance(decision, Held):
            return _response(pb.UploadResponse.ACCEPTED)
        if isinstance(decision, TryLater):
            return retry_later()
        return decision.response()

    def refuse(self, rejection: Rejection) -> pb.UploadResponse:
        """Refuse an upload that says nothing about any task."""
        self._state.record_refusal(rejection.reason)
        return pb.UploadResponse(
            verdict=pb.UploadResponse.REJECTED,
            reason_code=int(rejection.reason),
            reason=rejection.detail,
        )

    def _gate_and_fold(
        self, admitted: Admitted, upload: UploadEnvelope, cost: TaskCost
    ) -> pb.UploadResponse:
        job = admitted.job
        try:
            result = check_bytes(
                upload, contract_sha256=job.contract_sha256, max_bytes=job.max_payload_bytes
            ) or self._fold(admitted.lease.claims, upload, cost)
        except BaseException:
            self._state.break_off(admitted)
            raise
        if isinstance(result, Rejection) and result.reason is RejectionReason.OTHER_ENCLAVE_KEY:
            released = self._release_that_may_hold(admitted)
            if released is None:
                # The enclave was started anew since: the device seals it once more.
                self._state.break_off(admitted)
                response = retry_later()
                response.reason_code = int(result.reason)
                return response
            result = released
        if isinstance(result, Rejection):
            return self._state.record_rejected(
                admitted, result, upload.payload_sha256, cost
            ).response()
        failpoint("update_folded")
        self._state.record_folded(admitted, result)
        failpoint("update_accepted")
        return _response(pb.UploadResponse.ACCEPTED)

    def _release_that_may_hold(self, admitted: Admitted) -> Rejection | None:
        """Why an update is not sealed to another enclave: one may have let it out already.

        Each enclave remembers what it has let out, and none what another has.
        """
        claims = admitted.lease.claims
        try:
            newest = self._newest_released(claims.job_id)
        except BaseException:
            self._state.break_off(admitted)
            raise
        if newest < claims.base_version:
            return None
        return Rejection(
            RejectionReason.VERSION_RELEASED,
            f"the update is of version {claims.base_version}, and of version {newest} an aggregate "
            "was released that may hold it",
        )

    def _fold(
        self, claims: TaskClaims, upload: UploadEnvelope, cost: TaskCost
    ) -> UpdateReference | Rejection:
        envelope = Envelope(
            claims.task_id,
            claims.device_id,
            claims.base_version,
            upload.payload_sha256,
            cost.train_s,
            cost.bytes_down,
            cost.bytes_up,
        )
        begun_s = time.perf_counter()
        result = self._aggregator.fold(envelope, upload.payload)
        self._observe_fold_s(time.perf_counter() - begun_s)
        return result


def retry_later(
    come_back_after_s: float = 0.0, reason: HeldBackReason | None = None
) -> pb.UploadResponse:
    """Nothing was counted; the device keeps its update.

    Args:
        come_back_after_s: When to try again, spread a little so that devices come apart; 0 leaves
            it to the caller.
        reason: Why, where it has a number.
    """
    return pb.UploadResponse(
        verdict=pb.UploadResponse.RETRY_LATER,
        reason="" if reason is None else reason.code,
        come_back_after_s=come_back_after_s * random.uniform(0.9, 1.3),  # noqa: S311
    )


def _response(verdict: pb.UploadResponse.Verdict) -> pb.UploadResponse:
    return pb.UploadResponse(verdict=verdict)
