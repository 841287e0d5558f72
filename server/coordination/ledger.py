"""The ledger of one job's tasks: every task started ends in exactly one outcome."""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from server.coordination.events import TaskCompleted, TaskEnded, TaskStarted
from server.coordination.tasks import Outcome, TaskResult, UpdateReference

_REMEMBERED_ENDS = 100_000


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a client started and that has not ended."""

    task_id: str
    grant_id: str
    client_id: str
    base_version: int


class RecentTasks:
    """The last so many tasks and some before, by the 64-bit hashes of their ids: 16 bytes a task.

    As text in a dictionary they took ten times as much, which a coordinator grew by for hours.
    Hashes of text are keyed anew in every process; of a thousand million tasks one is mistaken for
    another with a probability of 1e-5.
    """

    def __init__(self, least: int, tasks: Iterable[str] = (), *, block: int = 2048) -> None:
        """Begin with some, oldest first.

        Args:
            least: So many are remembered at least.
            block: Up to so many more; they are sorted in once there are as many.
        """
        self._least = least
        self._block = block
        self._newest: dict[int, None] = {}
        self._in_order = array("q")
        self._sorted = array("q")
        for task_id in tasks:
            self.add(task_id)

    def __contains__(self, task_id: str) -> bool:
        """Whether it is among them."""
        hashed = hash(task_id)
        if hashed in self._newest:
            return True
        place = bisect_left(self._sorted, hashed)
        return place < len(self._sorted) and self._sorted[place] == hashed

    def __len__(self) -> int:
        """How many there are."""
        return len(self._newest) + len(self._in_order)

    def add(self, task_id: str) -> None:
        """Remember one; nothing new if it is remembered already."""
        if task_id in self:
            return
        self._newest[hash(task_id)] = None
        if len(self._newest) == self._block:
            self._in_order.extend(self._newest)
            del self._in_order[: -self._least]
            self._sorted = array("q", np.sort(self._in_order).tobytes())
            self._newest.clear()


class TaskLedger:
    """Who is running, whose update is held, and how everything else ended.

    Events may be repeated (a gateway sends again what was not acknowledged, and a snapshot after
    every break), so each method says whether the event was news.
    """

    def __init__(
        self,
        outcomes: Mapping[str, int],
        reasons: Mapping[str, int],
        ended: Iterable[str] = (),
    ) -> None:
        """Begin with what an earlier coordinator stored.

        Args:
            ended: Tasks that are in the counts, oldest first.
        """
        self.running: dict[str, RunningTask] = {}
        self.held: dict[str, UpdateReference] = {}
        self.outcomes: Counter[str] = Counter(outcomes)
        self.reasons: Counter[str] = Counter(reasons)
        self.lost: dict[str, RunningTask] = {}
        self._ended = RecentTasks(_REMEMBERED_ENDS, ended)
        self._unsaved: list[TaskResult] = []

    def state(self) -> dict[str, Any]:
        """Plain values for a dry-run's checkpoint; a virtual fleet loses no task."""
        return {
            "running": [list(asdict(task).values()) for task in self.running.values()],
            "held": [asdict(reference) for reference in self.held.values()],
            "outcomes": dict(self.outcomes),
            "reasons": dict(self.reasons),
            "unsaved": [asdict(result) for result in self._unsaved],
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """A ledger from what `state` returned.

        Tasks that had ended are not remembered: a virtual fleet says nothing twice.
        """
        ledger = cls(state["outcomes"], state["reasons"])
        for values in state["running"]:
            task = RunningTask(*values)
            ledger.running[task.task_id] = task
        for values in state["held"]:
            reference = UpdateReference(**values)
            ledger.held[reference.task_id] = reference
        ledger._unsaved = [
            TaskResult(**{**values, "outcome": Outcome(values["outcome"])})
            for values in state["unsaved"]
        ]
        return ledger

    def start(self, event: TaskStarted) -> bool:
        """Note that a client took a task; False if that was known."""
        task_id = event.task_id
        if task_id in self.running or task_id in self.held or task_id in self._ended:
            return False
        self.lost.pop(task_id, None)
        self.running[task_id] = RunningTask(
            task_id, event.grant_id, event.client_id, event.base_version
        )
        return True

    def complete(self, event: TaskCompleted) -> bool:
        """Note that an update was folded; False if that was known or the task has ended."""
        task_id = event.reference.task_id
        if task_id in self.held or task_id in self._ended:
            return False
        self.running.pop(task_id, None)
        self.lost.pop(task_id, None)
        self.held[task_id] = event.reference
        return True

    def end(self, event: TaskEnded) -> bool:
        """Note that a task ended without counting; False if it had ended."""
        if event.task_id in self._ended:
            return False
        self._close(
            TaskResult(
                event.task_id,
                event.client_id,
                event.base_version,
                event.outcome,
                event.reason,
                event.reason_code,
                event.payload_sha256,
            )
        )
        return True

    def succeed(self, task_id: str, version: int) -> UpdateReference | None:
        """A held update became part of ``version``; returns its reference where it is known.

        A task counted before its event arrived has no reference yet: its sum names it, so it
        counts, and the event is then no news.
        """
        reference = self.held.get(task_id)
        running = self.running.get(task_id)
        client_id, base_version, digest = "", version - 1, b""
        if reference is not None:
            client_id, base_version = reference.client_id, reference.base_version
            digest = reference.payload_sha256
        elif running is not None:
            client_id, base_version = running.client_id, running.base_version
        self._close(
            TaskResult(
                task_id,
                client_id,
                base_version,
                Outcome.SUCCEEDED,
                "aggregated",
                payload_sha256=digest,
                version=version,
            )
        )
        return reference

    def lose(self, task_ids: Iterable[str]) -> None:
        """A gateway died: its tasks are neither running nor held until they are heard of again."""
        for task_id in task_ids:
            running = self.running.pop(task_id, None)
            reference = self.held.pop(task_id, None)
            if reference is not None:
                running = RunningTask(task_id, "", reference.client_id, reference.base_version)
            if running is not None:
                self.lost[task_id] = running

    def expire(self, oldest_live_version: int, outcome: Outcome, reason: str) -> set[int]:
        """End held updates and lost tasks of base versions that are no longer live.

        Returns:
            Base versions of the held updates that ended: their buckets are to be dropped.
        """
        dropped = set()
        for reference in list(self.held.values()):
            if reference.base_version < oldest_live_version:
                dropped.add(reference.base_version)
                self._close_reference(reference, outcome, reason)
        for lost in list(self.lost.values()):
            if lost.base_version < oldest_live_version:
                self._close_running(lost, Outcome.FAILED, "gateway_lost")
        return dropped

    def end_running(self, outcome: Outcome, reason: str) -> None:
        """End every running task."""
        for running in list(self.running.values()):
            self._close_running(running, outcome, reason)

    def end_held(self, outcome: Outcome, reason: str) -> None:
        """End every held update."""
        for reference in list(self.held.values()):
            self._close_reference(reference, outcome, reason)

    def end_lost(self) -> None:
        """End every task that was lost with its gateway and not heard of again."""
        for lost in list(self.lost.values()):
            self._close_running(lost, Outcome.FAILED, "gateway_lost")

    def refuse(self, reason: str, count: int) -> None:
        """Count uploads that belong to no task."""
        self.outcomes["refused"] += count
        self.reasons[reason] += count

    def take_unsaved(self) -> list[TaskResult]:
        """Results since the last call; the caller stores them."""
        unsaved, self._unsaved = self._unsaved, []
        return unsaved

    def _close_running(self, task: RunningTask, outcome: Outcome, reason: str) -> None:
        self._close(TaskResult(task.task_id, task.client_id, task.base_version, outcome, reason))

    def _close_reference(self, reference: UpdateReference, outcome: Outcome, reason: str) -> None:
        self._close(
            TaskResult(
                reference.task_id,
                reference.client_id,
                reference.base_version,
                outcome,
                reason,
                payload_sha256=reference.payload_sha256,
            )
        )

    def _close(self, result: TaskResult) -> None:
        self.running.pop(result.task_id, None)
        self.held.pop(result.task_id, None)
        self.lost.pop(result.task_id, None)
        self._ended.add(result.task_id)
        self.outcomes[result.outcome] += 1
        if result.outcome is not Outcome.SUCCEEDED:
            self.reasons[result.reason] += 1
        self._unsaved.append(result)
