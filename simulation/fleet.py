"""The virtual fleet: the coordinator's `Fleet` on a virtual clock, with devices that pull.

Grants, selection and pace steering are the gateway's own code; what a gateway does with leases,
deadlines and late updates is done here in virtual time. Updates are references, trained when an
aggregate needs them: what is interrupted, stale or over-committed is never trained.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from server.aggregation.aggregator import PartialSum
from server.coordination.events import Event, TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release
from server.gateway.grants import GrantBook, OpenGrant
from server.gateway.pace import PaceSteering
from server.update_gate.content import ContentGate
from simulation.check_ins import CheckIns
from simulation.clock import Agenda, EventKind, Scheduled
from simulation.durations import TaskWork, moved_bytes
from simulation.patience import Patience, trace_ended
from simulation.task_log import TaskLog
from simulation.update_training import UpdateTraining
from simulation.virtual_clients import VirtualClients, next_tick
from simulation.virtual_task import VirtualTask


class VirtualFleet:
    """Clients on a virtual clock.

    Args:
        clients: Who they are.
        work: What each task does.
        training: Trains updates.
        pace: The gateway's.
        seed: Of selection and pace; the job's own in the first trial.
        log: Told every task's start and end.
        horizon_s: The clock stops there once, so that a job's last hour is its last.
    """

    def __init__(
        self,
        clients: VirtualClients,
        work: TaskWork,
        training: UpdateTraining,
        pace: PaceSteering,
        seed: int,
        log: TaskLog,
        *,
        horizon_s: float = math.inf,
    ) -> None:
        self._clients = clients
        self._work = work
        self._training = training
        self._log = log
        self._horizon_s = horizon_s
        self._now_s = 0.0
        self._agenda = Agenda()
        self._news: deque[Event] = deque()
        self._grants = GrantBook()
        self._check_ins = CheckIns(clients, pace, self._grants, seed)
        self._version = -1
        self._oldest_live = 0
        self._running: dict[int, VirtualTask] = {}
        self._held: dict[int, VirtualTask] = {}
        self._frozen: dict[str, Released] = {}
        self._tasks = np.zeros(len(clients), np.int64)
        self._patience = Patience()

    @property
    def in_flight(self) -> int:
        """Tasks running, also those too late to count or dropped out of without a word."""
        return len(self._running)

    @property
    def is_settled(self) -> bool:
        """Whether everything that happened has been told: a moment for a checkpoint."""
        return not self._news and not self._frozen

    # -- orders --------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Seconds since the run began."""
        return self._now_s

    def open(self, job: OpenJob) -> None:
        """See `Fleet.open`; clients' first check-ins are scheduled."""
        self._use(job)
        for client, at_s in enumerate(self._check_ins.first_s().tolist()):
            if at_s < math.inf:
                self._agenda.add(at_s, EventKind.ARRIVED, client)

    def set_model(
        self,
        version: int,
        parameters_sha256: bytes,  # noqa: ARG002 - weights reach the executors directly
        oldest_live_version: int,
    ) -> None:
        """See `Fleet.set_model`."""
        self._version, self._oldest_live = version, oldest_live_version
        self._grants.forget_before(oldest_live_version)
        self._training.forget_weights(oldest_live_version)

    def grant(self, grant: Grant) -> None:
        """See `Fleet.grant`."""
        self._grants.add(grant)

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """See `Fleet.cancel`. A device learns of it with its upload, and works until then."""
        self._grants.cancel(grant_id, running_too=running_too)

    def release(self, release: Release) -> Released:
        """See `Fleet.release`: trains what is held and not trained yet."""
        released = self._frozen.get(release.release_id)
        if released is None:
            # An end not told yet is of a task that the coordinator still counts on.
            sums = () if self._news else self._sums(release.base_versions)
            released = self._frozen[release.release_id] = Released((release.release_id,), sums)
        return released

    def _sums(self, base_versions: Sequence[int]) -> tuple[PartialSum, ...]:
        """Sums of what is held; none if nothing is, or an update has left the numbers.

        Had it been trained on arrival it would have failed then, and the strategy would wait for
        another: so its end is told now, and what else is held goes on waiting.
        """
        taken = [
            task
            for task in self._held.values()
            if not base_versions or task.base_version in base_versions
        ]
        if not taken:
            return ()
        reduced, diverged = self._training.reduce(taken)
        for task in diverged or taken:
            del self._held[task.number]
        for task in diverged:
            self._tell_end(task, Outcome.FAILED, "not_finite")
        if diverged:
            self._patience.lost(task.end_s for task in self._held.values())
            return ()
        self._patience.released(self._now_s)
        return reduced.sums

    def commit(self, release_id: str) -> None:
        """See `Fleet.commit`."""
        self._frozen.pop(release_id, None)

    def drop(
        self,
        base_version: int,
        outcome: Outcome,  # noqa: ARG002 - the coordinator has ended the tasks already
        reason: str,  # noqa: ARG002
    ) -> None:
        """See `Fleet.drop`."""
        dropped = [task for task in self._held.values() if task.base_version == base_version]
        for task in dropped:
            self._training.let_go(self._held.pop(task.number))
        self._patience.dropped(len(dropped), (task.end_s for task in self._held.values()))

    def close(self, reason: str) -> None:  # noqa: ARG002 - virtual devices do not ask
        """See `Fleet.close`; devices stop where they are."""
        for task in self._running.values():
            if not self._log.has_ended(task.number):
                moved = moved_bytes(task.duration, self._work, self._now_s - task.started_s)
                self._log.end(task.number, self._now_s, *moved)
        self._running.clear()
        self._held.clear()
        self._training.close()
        self._agenda.clear()
        self._news.clear()

    # -- events --------------------------------------------------------------------------------

    def next_event(self, timeout_s: float | None) -> Event | None:
        """See `Fleet.next_event`; the clock moves to the event, or by the timeout.

        Raises:
            FleetExhausted: If no client can ever bring another update.
        """
        until_s = math.inf if timeout_s is None else self._now_s + timeout_s
        if self._now_s < self._horizon_s:
            until_s = min(until_s, self._horizon_s)
        while not self._news:
            at_s = self._agenda.next_s()
            # With nothing to come, what is held may still make an aggregate at the deadline.
            if at_s == math.inf and not (self._held and timeout_s is not None):
                raise trace_ended(self._now_s, self._clients.hours)
            if at_s > until_s:
                self._now_s = until_s
                return None
            if self._patience.ends_before(at_s):
                raise self._patience.exhausted()
            scheduled = self._agenda.take()
            self._now_s = scheduled.at_s
            self._happen(scheduled)
        return self._news.popleft()

    def _happen(self, scheduled: Scheduled) -> None:
        match scheduled.kind:
            case EventKind.ARRIVED:
                self._check_in(scheduled.sequence)
            case EventKind.COMPLETED:
                self._complete(self._running.pop(scheduled.sequence))
            case EventKind.LEFT:
                self._leave(self._running[scheduled.sequence])
            case _:
                self._expire(self._running.pop(scheduled.sequence))

    def _check_in(self, client: int) -> None:
        slots = self._grants.open_slots() if self._version >= 0 else 0
        grant = self._check_ins.take(client, self._now_s, slots)
        if grant is not None:
            self._start(client, grant)
        else:
            self._come_back(client, slots, after_task=False)

    def _come_back(self, client: int, slots: int, *, after_task: bool) -> None:
        at_s = self._check_ins.next_s(client, self._now_s, slots, after_task=after_task)
        if at_s < math.inf:
            self._agenda.add(at_s, EventKind.ARRIVED, client)

    def _start(self, client: int, grant: OpenGrant) -> None:
        base_version = self._version if grant.base_version is None else grant.base_version
        ordinal, deadline_s = int(self._tasks[client]), self._now_s + grant.task_timeout_s
        self._tasks[client] += 1
        duration, course = self._clients.task(client, ordinal, self._now_s, self._work, deadline_s)
        examples = self._work.examples(int(self._clients.records[client]))
        number = self._log.start(client, base_version, self._now_s, duration, examples)
        task = VirtualTask(
            number=number,
            client=client,
            grant_id=grant.grant_id,
            base_version=base_version,
            started_s=self._now_s,
            examples=examples,
            duration=duration,
            end_s=next_tick(course.end_s),  # never shorter than its phases
            reason=course.reason,
            given_up_s=next_tick(deadline_s),
            bytes_down=course.bytes_down,
            bytes_up=course.bytes_up,
        )
        self._running[number] = task
        kinds = {"": EventKind.COMPLETED, "deadline": EventKind.EXPIRED}
        self._agenda.add(task.end_s, kinds.get(course.reason, EventKind.LEFT), number)
        self._news.append(
            TaskStarted(self._now_s, task.task_id, grant.grant_id, str(client), base_version)
        )

    def _complete(self, task: VirtualTask) -> None:
        self._log.end(task.number, self._now_s, task.bytes_down, task.bytes_up)
        self._check_ins.participated(task.client, self._now_s)
        self._free(task.client)
        if self._grants.is_cancelled(task.grant_id):
            self._training.let_go(task)  # it ended with its round; the device learns it only now
        elif task.base_version < self._oldest_live:
            self._end(task, Outcome.STALE, "base_version")
        else:
            refusal = None
            if self._training.at_completion:
                refusal = self._training.refusal(task, self._in_flight(), len(self._held))
            if refusal is not None:
                self._end(task, *refusal)
                return
            self._held[task.number] = task
            self._patience.arrived(self._now_s)
            self._news.append(TaskCompleted(self._now_s, self._training.reference(task)))

    def _leave(self, task: VirtualTask) -> None:
        """The device is gone: it could say so, or it drops out without a word."""
        self._log.end(task.number, self._now_s, task.bytes_down, task.bytes_up)
        if task.is_silent:
            self._agenda.add(max(task.given_up_s, self._now_s), EventKind.EXPIRED, task.number)
            return
        del self._running[task.number]
        self._free(task.client)
        self._interrupted(task)

    def _expire(self, task: VirtualTask) -> None:
        """The server waits no longer; a device that trains notices its deadline by itself."""
        if not task.is_silent:
            self._log.end(task.number, self._now_s, task.bytes_down, task.bytes_up)
        self._free(task.client)
        self._interrupted(task)

    def _interrupted(self, task: VirtualTask) -> None:
        if self._grants.is_cancelled(task.grant_id):
            self._training.let_go(task)
        else:
            self._end(task, Outcome.INTERRUPTED, task.reason)

    def _free(self, client: int) -> None:
        # Its own task has just made room for another, as at the gateway.
        self._come_back(client, self._grants.open_slots() + 1, after_task=True)

    def _in_flight(self) -> list[VirtualTask]:
        """Tasks whose updates will count, as things are."""
        return [
            task
            for task in self._running.values()
            if not task.reason
            and task.base_version >= self._oldest_live
            and not self._grants.is_cancelled(task.grant_id)
        ]

    def _end(self, task: VirtualTask, outcome: Outcome, reason: str, code: int = 0) -> None:
        self._training.let_go(task)
        self._tell_end(task, outcome, reason, code)

    def _tell_end(self, task: VirtualTask, outcome: Outcome, reason: str, code: int = 0) -> None:
        self._patience.ended(reason)
        self._news.append(
            TaskEnded(
                self._now_s,
                task.task_id,
                str(task.client),
                task.base_version,
                outcome,
                reason,
                code,
                train_s=task.end_s - task.started_s,
                bytes_down=task.bytes_down,
                bytes_up=task.bytes_up,
            )
        )

    # -- checkpoints ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that goes on, for a checkpoint; only while `is_settled`.

        Updates trained ahead are not in it: training them again gives the same.
        """
        grants = [asdict(g) | {"clients": sorted(g.clients)} for g in self._grants.open_grants()]
        return {
            "now_s": self._now_s,
            "agenda": self._agenda.state(),
            "open_grants": grants,
            "cancelled": list(self._grants.cancelled()),
            "check_ins": self._check_ins.state(),
            "version": self._version,
            "oldest_live": self._oldest_live,
            "running": [asdict(task) for task in self._running.values()],
            "held": [asdict(task) for task in self._held.values()],
            "tasks": self._tasks,
            "patience": self._patience.state(),
        }

    def restore(self, job: OpenJob, state: Mapping[str, Any]) -> None:
        """Go on after `state`, in place of `open`."""
        self._use(job)
        self._now_s = state["now_s"]
        self._agenda = Agenda.restored(state["agenda"])
        self._grants.restore(
            [OpenGrant(**(g | {"clients": set(g["clients"])})) for g in state["open_grants"]],
            state["cancelled"],
        )
        self._check_ins.restore(state["check_ins"])
        self._version, self._oldest_live = state["version"], state["oldest_live"]
        self._running = {task["number"]: VirtualTask.restored(task) for task in state["running"]}
        self._held = {task["number"]: VirtualTask.restored(task) for task in state["held"]}
        self._tasks = state["tasks"].copy()
        self._patience.restore(state["patience"])

    def _use(self, opened: OpenJob) -> None:
        self._training.use(opened.job, ContentGate.of(opened.job, opened.model))
        self._check_ins.use(opened.job)
