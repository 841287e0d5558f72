"""The coordinator's heart: drives one job on any fleet, whatever its clock.

Events go in, grants and releases come out; production and dry-run run this very class.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.coordination.events import (
    Event,
    TaskCompleted,
    TaskEnded,
    TasksLost,
    TaskStarted,
    UpdatesRefused,
)
from server.coordination.fleet import Fleet, OpenJob, Released
from server.coordination.ledger import TaskLedger
from server.coordination.limits import (
    NOT_REACHED,
    limit_in_words,
    limit_reached,
    limits_of,
    target_reached,
)
from server.coordination.next_version import ModelDiverged, next_version, with_optimizer_state
from server.coordination.progress import Aggregation, JobObserver, JobProgress, JobResult
from server.coordination.tasks import Grant, Outcome, Release
from server.coordination.versions import JobTotals, StoredVersion, VersionStore
from server.strategies import RoundState, Step, Strategy, make_strategy
from server.strategies.server_optimizer import ServerOptimizer
from server.update_gate.rejections import RejectionReason

_RECENT_VERSIONS = 64
"""At least so many versions back a restart names the releases that were committed."""

_REMEMBERED_CANCELS = 10_000
"""Of so many grants of closed rounds a task may still be heard to start."""

_ASK_AGAIN_S = 2.0
"""An enclave that keeps an aggregate is not asked for the same again at once."""
_VERSION_RELEASED = RejectionReason.VERSION_RELEASED.name.lower()

_ROUND_STATE = (
    "_started_s",
    "_round_started_s",
    "_offered",
    "_cancelled",
    "_grants",
    "_granted_in_round",
    "_releases",
    "_metric",
    "_metric_version",
)


Evaluate = Callable[[NDArray[np.float32]], Mapping[str, float]]
"""Gives a version's metrics, ``"metric"`` among them, from its weights, shape ``(parameters,)``."""


class JobRunner:
    """One job on one fleet, from its newest stored version to its end.

    Args:
        opened: The job as fleets are told of it.
        evaluate: Gives a version's metrics, ``"metric"`` among them; None when the job asks for no
            evaluation.
        stop_requested: Says why the job should end now, or None; asked in every turn.
        poll_s: Longest wait for an event, so that a stop is noticed; None waits for events only.
        released_version: Gives the newest version an enclave has let an aggregate out for; None
            where there is no enclave.
        save_every_s: Between two versions the ends of tasks are stored so often, for a restart
            knows only what is stored; None stores them with the versions.
        strategy: Decides; None: the one that the job names.
    """

    def __init__(
        self,
        opened: OpenJob,
        fleet: Fleet,
        store: VersionStore,
        observer: JobObserver,
        *,
        evaluate: Evaluate | None,
        stop_requested: Callable[[], str | None],
        poll_s: float | None,
        released_version: Callable[[], int] | None = None,
        save_every_s: float | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self._job = opened.job
        self._opened = opened
        self._fleet = fleet
        self._store = store
        self._observer = observer
        self._evaluate = evaluate
        self._stop_requested = stop_requested
        self._poll_s = poll_s
        self._released_version = released_version
        self._is_aggregating = False
        # How many updates were held when an enclave kept them, and until when that is the answer.
        self._kept = (0, 0.0)
        self._save_every_s = save_every_s
        self._saved_s = 0.0
        self._strategy: Strategy = strategy or make_strategy(opened.job.strategy)
        self._limits = limits_of(opened.job.stop)
        self._optimizer = ServerOptimizer(opened.job.strategy.server_optimizer)
        # Slots not started, by grant; a round's grants stay until the round closes, to cancel them.
        self._offered: dict[str, int] = {}
        self._slots_offered = 0  # the sum of these
        self._cancelled: dict[str, None] = {}
        self._grants = 0
        self._granted_in_round = 0
        self._releases = 0
        self._metric: float | None = None
        self._metric_version: int | None = None

    def run(self) -> JobResult:
        """Drive the job until it stops; returns why.

        Raises:
            ModelDiverged: If an aggregation gives a model that is not finite.
        """
        self.take_up()
        while (reason := self.turn()) is None:
            pass
        return self.finish(reason)

    def turn(self) -> str | None:
        """Start what is to be started, and handle one event; `run` is made of these.

        Returns:
            Why the job is to end now; None for another turn.

        Raises:
            ModelDiverged: If an aggregation gives a model that is not finite. The job is closed.
        """
        reason = self._stop_reason()
        if reason is not None:
            return reason
        self._start_tasks()
        event = self._fleet.next_event(self._wait_s())
        if event is not None:
            self._handle(event)
        step = self._strategy.next_step(self._round_state())
        if step is Step.AGGREGATE and not self._waits_for_more():
            try:
                self._aggregate()
            except ModelDiverged:
                self._close("failed", "job_failed")
                raise
        elif step is Step.ABANDON:
            self._abandon_round()
        self._save_results()
        self._observer.on_progress(self.progress())
        return None

    def finish(self, reason: str) -> JobResult:
        """Measure the last version and end the job at the fleet."""
        if self._metric_version != self._version.number:
            self._measure()
        self._close(reason, "job_ended")
        return JobResult(reason, self.progress())

    def progress(self) -> JobProgress:
        """Counts at this moment."""
        return JobProgress(
            self._version.number,
            self._metric,
            self._metric_version,
            self._totals(),
            len(self._ledger.running),
            self._slots_offered,
            len(self._ledger.held),
        )

    # -- checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What goes on between two turns, beside the newest version: for a dry-run's checkpoint.

        In production a coordinator takes up the newest stored version and hears from its fleet
        again; a virtual fleet is part of the checkpoint itself.
        """
        return {
            "round": {name: getattr(self, name) for name in _ROUND_STATE},
            "ledger": self._ledger.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after `state`, with its newest version in the store and its fleet restored too."""
        self._version = self._newest()
        self._before = JobTotals()
        for name in _ROUND_STATE:
            setattr(self, name, state["round"][name])
        self._slots_offered = sum(self._offered.values())
        self._ledger = TaskLedger.restored(state["ledger"])

    # -- beginning and end ---------------------------------------------------------------------

    def take_up(self) -> None:
        """Open the job at the fleet with its newest stored version."""
        newest = self._version = self._newest()
        self._before = newest.totals
        totals = newest.totals
        self._ledger = TaskLedger(totals.outcomes, totals.reasons, self._store.ended_tasks())
        self._started_s = self._round_started_s = self._saved_s = self._fleet.now_s()
        self._pass_over_released()
        newest = self._version
        # A gateway that was away may have missed the commits of several versions.
        live_from = self._strategy.oldest_live_version(newest.number)
        committed = self._store.releases_after(min(live_from, newest.number - _RECENT_VERSIONS))
        self._fleet.open(replace(self._opened, committed_releases=committed))
        self._announce(newest.parameters_sha256)
        if "metric" in newest.metrics:
            self._metric, self._metric_version = newest.metrics["metric"], newest.number
        else:
            self._measure()

    def _newest(self) -> StoredVersion:
        newest = self._store.newest()
        if newest is None:
            message = f"job {self._opened.job_id} has no initial version stored"
            raise ValueError(message)
        return with_optimizer_state(newest, self._optimizer)

    def _announce(self, parameters_sha256: bytes) -> None:
        number = self._version.number
        oldest_live = self._strategy.oldest_live_version(number)
        self._fleet.set_model(number, parameters_sha256, oldest_live)
        strategy = self._strategy
        for base_version in self._ledger.expire(
            oldest_live, strategy.late_outcome, strategy.late_reason
        ):
            self._fleet.drop(base_version, strategy.late_outcome, strategy.late_reason)

    def _stop_reason(self) -> str | None:
        requested = self._stop_requested()
        if requested is not None:
            return requested
        stop, version = self._job.stop, self._version.number
        reached = target_reached(stop, self._metric)
        if reached is not None:
            return reached
        updates = self._ledger.outcomes[Outcome.SUCCEEDED]
        limit = limit_reached(version, updates, self._elapsed_s(), *self._limits)
        return None if limit == NOT_REACHED else limit_in_words(stop, limit)

    def _close(self, reason: str, code: str) -> None:
        """End the job at the fleet, and with it every task; what ended is stored."""
        self._fleet.close(reason)
        self._ledger.end_running(Outcome.OVER_COMMITTED, code)
        self._ledger.end_held(Outcome.OVER_COMMITTED, code)
        self._ledger.end_lost()
        self._store.store_results(self._ledger.take_unsaved())
        self._void_offers()
        self._observer.on_progress(self.progress())

    def _save_results(self) -> None:
        now_s = self._fleet.now_s()
        if self._save_every_s is not None and now_s - self._saved_s >= self._save_every_s:
            self._saved_s = now_s
            self._store.store_results(self._ledger.take_unsaved())

    # -- decisions -----------------------------------------------------------------------------

    def _round_state(self) -> RoundState:
        return RoundState(
            version=self._version.number,
            started_s=self._round_started_s,
            now_s=self._fleet.now_s(),
            granted=self._granted_in_round,
            offered=self._slots_offered,
            running=len(self._ledger.running),
            held=len(self._ledger.held),
            lost=len(self._ledger.lost),
        )

    def _start_tasks(self) -> None:
        count = self._strategy.tasks_to_start(self._round_state())
        if count == 0:
            return
        if self._granted_in_round == 0:
            self._round_started_s = self._fleet.now_s()
        self._grants += 1
        grant_id = f"g{self._opened.epoch}-{self._grants}"
        pinned = self._version.number if self._strategy.pins_base_version else None
        timeout_s = self._strategy.task_timeout_s(self._job.client.task_timeout_s)
        self._offered[grant_id] = count
        self._slots_offered += count
        self._granted_in_round += count
        self._fleet.grant(Grant(grant_id, count, pinned, timeout_s))

    def _wait_s(self) -> float | None:
        deadline_s = self._strategy.deadline_s(self._round_state())
        if deadline_s is None or deadline_s == math.inf:
            return self._poll_s
        left_s = max(0.0, deadline_s - self._fleet.now_s())
        return left_s if self._poll_s is None else min(left_s, self._poll_s)

    # -- events --------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        news = True
        if isinstance(event, TaskStarted):
            news = self._on_started(event)
        elif isinstance(event, TaskCompleted):
            news = self._on_completed(event)
        elif isinstance(event, TaskEnded):
            news = self._ledger.end(event)
            if event.reason == _VERSION_RELEASED:
                self._pass_over_and_go_on()
        elif isinstance(event, TasksLost):
            self._ledger.lose(event.task_ids)
            self._pass_over_and_go_on()
        elif isinstance(event, UpdatesRefused):
            name = RejectionReason(event.reason_code).name.lower()
            self._ledger.refuse(name, event.count)
        if news:
            self._observer.on_event(event)

    def _on_started(self, event: TaskStarted) -> bool:
        if not self._ledger.start(event):
            return False
        left = self._offered.get(event.grant_id, 0)
        if left > 0:
            self._offered[event.grant_id] = left - 1
            self._slots_offered -= 1
        if left == 1 and not self._strategy.pins_base_version:
            del self._offered[event.grant_id]
        # A client may have been leased a slot just before the fleet heard of its cancellation.
        if event.grant_id in self._cancelled:
            self._ledger.end(
                TaskEnded(
                    event.at_s,
                    event.task_id,
                    event.client_id,
                    event.base_version,
                    self._strategy.late_outcome,
                    self._strategy.late_reason,
                )
            )
        return True

    def _on_completed(self, event: TaskCompleted) -> bool:
        if not self._ledger.complete(event):
            return False
        oldest_live = self._strategy.oldest_live_version(self._version.number)
        if event.reference.base_version < oldest_live:
            strategy = self._strategy
            self._ledger.expire(oldest_live, strategy.late_outcome, strategy.late_reason)
            self._fleet.drop(
                event.reference.base_version, strategy.late_outcome, strategy.late_reason
            )
        return True

    # -- aggregation ---------------------------------------------------------------------------

    def _aggregate(self) -> None:
        begun_s = time.monotonic()
        self._releases += 1
        release_id = f"{self._opened.job_id}/{self._opened.epoch}/{self._releases}"
        released = self._fleet.release(Release(release_id))
        if not any(partial.weight > 0 for partial in released.sums):
            # All that was held was lost with its gateway; its TasksLost event is on its way. Or an
            # enclave keeps it until there is more of it; a round does not wait beyond its deadline.
            self._fleet.commit(release_id)
            if released.kept:
                self._on_kept()
            return
        self._hear_of(released)
        before = self._version.number
        self._version = self._next_version(released)
        counted = [
            (self._ledger.succeed(task_id, self._version.number), partial.base_version)
            for partial in released.sums
            for task_id in partial.task_ids
        ]
        self._version = replace(self._version, totals=self._totals())
        if self._strategy.pins_base_version:
            self._close_round()
        digest = self._store.store(self._version, self._ledger.take_unsaved())
        self._fleet.commit(release_id)
        self._announce(digest)
        self._begin_collecting()
        losses = [
            reference.loss_after
            for reference, _ in counted
            if reference is not None and np.isfinite(reference.loss_after)
        ]
        self._observer.on_aggregation(
            Aggregation(
                self._version.number,
                len(counted),
                tuple(
                    before - (base_version if reference is None else reference.base_version)
                    for reference, base_version in counted
                ),
                time.monotonic() - begun_s,
                float(np.mean(losses)) if losses else None,
            )
        )
        if self._job.evaluation and self._version.number % self._job.evaluation.every == 0:
            self._measure()

    def _on_kept(self) -> None:
        """Wait for more updates; a round that can get none any more is abandoned."""
        self._kept = (len(self._ledger.held), self._fleet.now_s() + _ASK_AGAIN_S)
        if self._pass_over_and_go_on() or not self._strategy.pins_base_version:
            return
        to_come = self._slots_offered + len(self._ledger.running) + len(self._ledger.lost)
        if self._is_past_deadline() or to_come == 0:
            self._abandon_round()

    def _waits_for_more(self) -> bool:
        """Whether an enclave has kept just what is held now."""
        held, until_s = self._kept
        return len(self._ledger.held) == held and self._fleet.now_s() < until_s

    def _pass_over_and_go_on(self) -> bool:
        if self._is_aggregating or not self._pass_over_released():
            return False
        if self._strategy.pins_base_version:
            self._close_round()
        self._announce(self._version.parameters_sha256)
        self._begin_collecting()
        return True

    def _is_past_deadline(self) -> bool:
        deadline_s = self._strategy.deadline_s(self._round_state())
        return deadline_s is not None and self._fleet.now_s() >= deadline_s

    def _pass_over_released(self) -> bool:
        """Go on from a copy of the newest version, if its aggregate was let out and lost.

        An enclave lets out one aggregate a version, so for this one none will come any more.

        Returns:
            Whether it was so, and a copy is stored.
        """
        if self._released_version is None or self._released_version() < self._version.number:
            return False
        self._version = replace(
            self._version,
            number=self._version.number + 1,
            release_ids=(),
            metrics={},
            totals=self._totals(),
        )
        digest = self._store.store(self._version, self._ledger.take_unsaved())
        self._version = replace(self._version, parameters_sha256=digest)
        return True

    def _hear_of(self, released: Released) -> None:
        """Handle what was reported before the sums, until every update in them is known.

        A fleet reports a task's start and its update before any sum that holds it; both may still
        wait here, behind what happened while the last version was measured.
        """
        # What was let out is about to be stored: nothing to pass over if a gateway is lost now.
        self._is_aggregating = True
        try:
            self._hear_until_known(released)
        finally:
            self._is_aggregating = False

    def _hear_until_known(self, released: Released) -> None:
        unheard = {
            t for partial in released.sums for t in partial.task_ids
        } - self._ledger.held.keys()
        while unheard and (event := self._fleet.next_event(0.0)) is not None:
            self._handle(event)
            unheard -= self._ledger.held.keys()

    def _next_version(self, released: Released) -> StoredVersion:
        return next_version(
            self._version,
            released.sums,
            self._strategy,
            self._optimizer,
            job_name=self._job.name,
            release_ids=released.release_ids,
        )

    def _abandon_round(self) -> None:
        """What is held comes to nothing, and if tasks are of a round, so does the round.

        Tasks on the newest version, whatever it is when they start, go on for the next aggregate.
        """
        held = {reference.base_version for reference in self._ledger.held.values()}
        if self._strategy.pins_base_version:
            self._close_round()
        self._ledger.end_held(Outcome.FAILED, "round_abandoned")
        for base_version in sorted(held | {self._version.number}):
            self._fleet.drop(base_version, Outcome.FAILED, "round_abandoned")
        self._begin_collecting()

    def _close_round(self) -> None:
        for grant_id in self._offered:
            self._fleet.cancel(grant_id, running_too=True)
        self._cancelled.update(dict.fromkeys(self._offered))
        while len(self._cancelled) > _REMEMBERED_CANCELS:
            del self._cancelled[next(iter(self._cancelled))]
        self._void_offers()
        self._ledger.end_running(self._strategy.late_outcome, self._strategy.late_reason)

    def _void_offers(self) -> None:
        self._offered.clear()
        self._slots_offered = 0

    def _begin_collecting(self) -> None:
        self._granted_in_round = 0
        self._round_started_s = self._fleet.now_s()

    # -- measuring -----------------------------------------------------------------------------

    def _measure(self) -> None:
        if self._evaluate is None:
            return
        metrics = self._evaluate(self._version.weights)
        self._store.record_metrics(self._version.number, metrics)
        self._metric, self._metric_version = metrics["metric"], self._version.number

    def _elapsed_s(self) -> float:
        return self._before.elapsed_s + self._fleet.now_s() - self._started_s

    def _totals(self) -> JobTotals:
        outcomes = self._ledger.outcomes
        return JobTotals(
            self._elapsed_s(),
            outcomes[Outcome.SUCCEEDED],
            dict(outcomes),
            dict(self._ledger.reasons),
        )
