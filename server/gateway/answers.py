"""What was answered to each task, so that the same upload gets the same answer again."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from server.coordination.tasks import Outcome

REMEMBERED_ANSWERS = 100_000

_VERDICTS = {
    Outcome.SUCCEEDED: pb.UploadResponse.COMMITTED,
    Outcome.REJECTED: pb.UploadResponse.REJECTED,
    Outcome.OVER_COMMITTED: pb.UploadResponse.OVER_COMMITTED,
    Outcome.STALE: pb.UploadResponse.STALE,
    # The task has ended already; to a device that comes with its update it is simply too late.
    Outcome.INTERRUPTED: pb.UploadResponse.STALE,
    Outcome.FAILED: pb.UploadResponse.STALE,
}


class OutcomesUnreachable(FlintError):
    """The database of task outcomes does not answer; the gateway tells devices to try later."""

    code = "FLN-1264"


@dataclass(frozen=True, slots=True)
class Answer:
    """How a task ended, as its device is told.

    Attributes:
        payload_sha256: Of the update it was given for; empty when the task ended without one.
        reason: Short code, or one sentence with a rejection.
        reason_code: Number of the rejection, 0 for other outcomes.
    """

    outcome: Outcome
    reason: str
    reason_code: int = 0
    payload_sha256: bytes = b""

    def response(self) -> pb.UploadResponse:
        """The answer to an upload, without a time to come back."""
        return pb.UploadResponse(
            verdict=_VERDICTS[self.outcome], reason_code=self.reason_code, reason=self.reason
        )

    def settlement(self, task_id: str) -> pb.Settlement:
        """What becomes of the update the device keeps."""
        if self.outcome is Outcome.SUCCEEDED:
            return pb.Settlement(task_id=task_id, state=pb.Settlement.COMMITTED)
        return pb.Settlement(task_id=task_id, state=pb.Settlement.DROPPED, reason=self.reason)


class OutcomeStore(Protocol):
    """Where answers outlive a gateway: the catalog's task outcomes."""

    def find(self, task_id: str) -> Answer | None:
        """How a task ended, or None if that is not stored.

        Raises:
            OutcomesUnreachable: If it cannot be told now.
        """
        ...


class AnswerBook:
    """The newest answers, in memory; older ones are in the `OutcomeStore`.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self, remembered: int = REMEMBERED_ANSWERS) -> None:
        self._remembered = remembered
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def put(self, task_id: str, answer: Answer) -> None:
        """Note how a task ended."""
        self._answers[task_id] = answer
        while len(self._answers) > self._remembered:
            self._answers.popitem(last=False)

    def find(self, task_id: str) -> Answer | None:
        """How a task ended, if that is remembered."""
        return self._answers.get(task_id)
