"""A `DeviceRunner` under imposed conditions: slower than its host, and away outside its windows.

Only `DeviceHost.open_device` makes one, and only where conditions are given. Waiting costs nothing:
`step` says when it is due next, and other identities of the process go on meanwhile.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from device_runtime.conditioned_task import ConditionedTask, ImposedTime, moved
from device_runtime.device_store import PendingUpdate
from device_runtime.imposed_conditions import Epoch, ImposedConditions
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.runner import DeviceRunner

_Outcome = pb.ReportOutcomeRequest
_WINDOW = "window"
_LOOK_EVERY_S = 5.0
"""While it waits, a device looks at its state and the user's settings so often."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    """A trained update on its way; until ``trained_s`` its training goes on, as imposed.

    Attributes:
        update: What is uploaded.
        size_bytes: Of its bytes.
        bytes_down: That came for it; 0 for an update uploaded again.
        policy: The job's, which holds for as long as training lasts.
        began_s: When the task was leased; of an update uploaded again, when that was asked for.
        deadline_s: Of the task's training.
        tried: The gateway was called; what it does not answer is sent again.
    """

    update: PendingUpdate
    size_bytes: int
    bytes_down: int
    policy: ParticipationPolicy | None
    began_s: float
    trained_s: float
    sent_s: float
    window_end_s: float
    deadline_s: float
    tried: bool = False


class ConditionedRunner(DeviceRunner):
    """The state machine of one identity under conditions.

    Outside its windows it does nothing, but for saying at a window's end that this interrupts its
    task. A task that needs its window to the last moment completes.
    """

    def __init__(
        self,
        *parts: Any,  # noqa: ANN401 - they are DeviceRunner's, and checked there
        conditions: ImposedConditions,
        epoch: Epoch,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        """Assemble; arguments beyond these are `DeviceRunner`'s.

        Args:
            conditions: What is imposed.
            epoch: When windows begin to count.
        """
        super().__init__(*parts, **settings)
        self._conditions = conditions
        self._epoch = epoch
        self._transfers: dict[str, _Transfer] = {}

    # Phases.

    def _check_in(self) -> float:
        closed_s = self._closed_for_s()
        if closed_s > 0:
            return closed_s
        self._transfers.clear()
        return super()._check_in()

    def _fetch(self) -> float:
        lease = self._conditioned_lease()
        if self._clock() >= lease.imposed.window_end_s:
            return self._leave_task(_Outcome.INTERRUPTED, _WINDOW)
        return super()._fetch()

    def _train(self) -> float:
        lease = self._conditioned_lease()
        if self._clock() >= lease.imposed.window_end_s:
            return self._leave_task(_Outcome.INTERRUPTED, _WINDOW)
        if self._clock() < lease.downloaded_s:
            if self._past_deadline(lease):
                return self._leave_task(_Outcome.INTERRUPTED, "deadline")
            decision = self._decide(lease.policy)
            if not decision.allowed:
                return self._leave_task(_Outcome.DECLINED, decision.reason_code)
            ends_s = min(lease.imposed.window_end_s, self._deadline_s(lease))
            return self._wait_s(lease.downloaded_s, ends_s)
        wait_s = super()._train()
        if lease.trained is not None:
            update, size_bytes = lease.trained
            self._transfers[update.task_id] = _Transfer(
                update,
                size_bytes,
                update.bytes_down,
                lease.policy,
                lease.began_s,
                lease.trained_s,
                lease.trained_s + self._conditions.upload_s(size_bytes),
                lease.imposed.window_end_s,
                self._deadline_s(lease),
            )
        return wait_s

    def _upload(self) -> float:
        update = self._unanswered()
        if update is None:
            return super()._upload()
        transfer = self._transfers.get(update.task_id)
        if transfer is None:
            closed_s = self._closed_for_s()
            if closed_s > 0:
                return closed_s
            transfer = self._transfers[update.task_id] = self._again(update)
        reason = self._cut_short_by(transfer)
        if reason:
            return self._break_off(transfer, reason)
        now_s = self._clock()
        if now_s < transfer.sent_s:
            ends_s = transfer.window_end_s
            if now_s < transfer.trained_s:
                ends_s = min(ends_s, transfer.deadline_s)
            return self._wait_s(transfer.sent_s, ends_s)
        self._transfers[update.task_id] = replace(transfer, tried=True)
        wait_s = super()._upload()
        following = self._unanswered()
        if following is None or following.task_id != update.task_id:
            del self._transfers[update.task_id]
            self._count_spent(transfer.began_s, transfer.bytes_down, transfer.size_bytes)
        return wait_s

    # What follows an answer.

    def _take(self, task: pb.Task, policy: ParticipationPolicy) -> ConditionedTask:
        imposed = ImposedTime(self._conditions, self._clock, self._window_end_s())
        return ConditionedTask(task, policy, self._shared, imposed)

    def _leave_task(self, outcome: pb.ReportOutcomeRequest.Outcome, reason: str) -> float:
        lease = self._conditioned_lease()
        self._count_spent(lease.began_s, lease.cost().bytes_down)
        return super()._leave_task(outcome, reason)

    def _break_off(self, transfer: _Transfer, reason: str) -> float:
        now_s, update = self._clock(), transfer.update
        self._counts["interrupted"] += 1
        bytes_up = moved(transfer.size_bytes, transfer.trained_s, now_s, transfer.sent_s)
        self._count_spent(transfer.began_s, transfer.bytes_down, bytes_up)
        untrained_s = max(0.0, transfer.trained_s - now_s)
        self._report = pb.ReportOutcomeRequest(
            task_token=update.task_token,
            outcome=_Outcome.INTERRUPTED,
            reason=reason,
            cost=pb.DeviceCost(
                train_s=max(0.0, update.train_s - untrained_s),
                cpu_s=update.cpu_s,
                peak_memory_bytes=update.peak_memory_bytes,
                bytes_down=update.bytes_down,
                bytes_up=bytes_up,
            ),
            session_course=self._courses.end(update.task_id),
        )
        del self._transfers[update.task_id]
        self._store.forget(update.task_id)
        self._phase = self._send_report
        return 0.0

    # Small questions.

    def _cut_short_by(self, transfer: _Transfer) -> str:
        """Why an update is not going to be sent; empty if it is."""
        now_s = self._clock()
        if now_s >= transfer.window_end_s and (transfer.tried or now_s < transfer.sent_s):
            return _WINDOW
        if now_s >= transfer.trained_s:
            return ""
        if now_s >= transfer.deadline_s:
            return "deadline"
        return self._decide(transfer.policy).reason_code

    def _again(self, update: PendingUpdate) -> _Transfer:
        """The transfer of an update trained before: by another process, or sent before."""
        now_s, size_bytes = self._clock(), len(self._store.payload(update) or b"")
        return _Transfer(
            update,
            size_bytes,
            0,
            None,
            now_s,
            now_s,
            now_s + self._conditions.upload_s(size_bytes),
            self._window_end_s(),
            math.inf,
        )

    def _closed_for_s(self) -> float:
        """Seconds until the next window opens; 0 or less while one is open."""
        epoch_s = self._epoch.unix_s()
        if epoch_s is None:
            return self._epoch.poll_s
        now_s = self._clock() - epoch_s
        return self._conditions.window(now_s)[0] - now_s

    def _window_end_s(self) -> float:
        """When the open window ends, on the device's clock; now if none is open."""
        epoch_s = self._epoch.unix_s()
        now_s = self._clock()
        if epoch_s is None:
            return now_s
        start_s, end_s = self._conditions.window(now_s - epoch_s)
        return epoch_s + end_s if start_s <= now_s - epoch_s else now_s

    def _deadline_s(self, lease: ConditionedTask) -> float:
        """When a task is past its deadline, on the device's clock."""
        deadline_ms = lease.task.deadline_ms
        if deadline_ms <= 0:
            return math.inf
        # Past it is after it, by whole milliseconds.
        return self._clock() + (deadline_ms + 2 - self._signer.server_time_ms()) / 1000

    def _wait_s(self, until_s: float, ends_s: float) -> float:
        now_s = self._clock()
        return max(0.0, min(until_s, ends_s, now_s + _LOOK_EVERY_S) - now_s)

    def _count_spent(self, began_s: float, bytes_down: int, bytes_up: int = 0) -> None:
        """Count what a task that is over has cost; what still runs counts when it is over."""
        self._counts["imposed_bytes_down"] += bytes_down
        self._counts["imposed_bytes_up"] += bytes_up
        self._counts["device_ms"] += round((self._clock() - began_s) * 1000)

    def _conditioned_lease(self) -> ConditionedTask:
        lease = self._held_lease()
        if not isinstance(lease, ConditionedTask):
            raise TypeError("a lease that was not taken under conditions")
        return lease
