"""A trial in lock-step on the compiled engine: what an update is decides what becomes of it.

While few updates are refused, the engine presumes that each will count, and stops before it makes a
version of them; they are trained then, all at once. If one does not count after all, the engine
goes again from the newest version, knowing it. Where that would take longer, or where decisions
hang on results in a way of their own, it stops before each task that completes instead: that one is
trained, together with those on their way that complete next. Their base versions are known, so
nothing hangs on when it is done, and several executors have work; what turns out not to count was
trained in vain.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from server.coordination.job_runner import Evaluate
from server.coordination.progress import JobProgress
from server.job import FedAvgSettings
from server.update_gate.content import ContentGate
from simulation.executors.executor import Executor
from simulation.executors.task_columns import StatisticsColumns, TaskIds
from simulation.timeline.asked_strategy import RememberedStrategy
from simulation.timeline.layout import (
    COUNTS,
    HEARD,
    IN_STEP,
    NORM_EXCEEDED,
    NOT_FINITE,
    PRESUMING,
    REJECTED,
    SUCCEEDED,
    UNKNOWN,
)
from simulation.timeline.timeline import Timeline, set_up
from simulation.timeline.training import TimelineTrial
from simulation.traces.spans import TICKS_PER_S
from simulation.trial import DryRun
from simulation.update_training import decides_on_results

_FIRST_IN_ONE = 16
"""Updates that the first aggregation of a strategy of one's own is taken to need."""

_EVENTS_A_TASK, _EVENTS_ASKED_A_TASK = 500, 40
"""So many events may be computed again for each task, without and with a strategy to be asked: as
long as training tasks one by one takes, on a core of 2020 (0.15 ms, 0.15 and 2 us)."""
_MOST_KEPT = 256
"""Updates kept, beyond which those not wanted any more are let go of before the aggregation."""


class LockStepTrial(TimelineTrial):
    """A trial whose gate, or whose strategy, decides on what clients learned.

    It gives what `simulation.trial.Trial` gives, to the bit. See `TimelineTrial` for its arguments.

    Attributes:
        times_again: So often, and twice for each version made, the engine goes again after it
            presumed too much; then it goes in step. None: it does so from the beginning.
    """

    times_again: int | None = 8

    def __init__(
        self,
        dry_run: DryRun,
        number: int,
        executor: Executor,
        evaluate: Evaluate | None,
        *,
        on_progress: Callable[[JobProgress, float], None] = lambda *_: None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        job = dry_run.job
        self._limits_norms = decides_on_results(job)
        self._max_norm = ContentGate.of(job, dry_run.model).max_norm
        self._refused: dict[int, int] = {}
        self._answers = bytearray()
        if state is not None:
            self._refused = dict(state["refused"].tolist())
            self._answers += state["answers"]
        self._trained = np.zeros(0, np.int64)
        self._first_running = 0
        self._times_wrong = self._events_again = 0
        codec = job.client.compression.codec
        # What a refused update left out is forgotten at once, so what comes after hangs on it.
        is_strict = dry_run.strategy.needs_training_results
        is_strict |= codec is not None and codec.error_feedback
        is_strict |= self.times_again is None
        self._mode = IN_STEP if is_strict else PRESUMING
        super().__init__(dry_run, number, executor, evaluate, on_progress=on_progress, state=state)

    def state(self) -> dict[str, Any]:
        """See `TimelineTrial.state`. What was trained ahead is not in it, but what was refused.

        And what a strategy decided whose decisions hang on results: it may decide otherwise now.
        """
        refused = np.array(sorted(self._refused.items()), np.int64).reshape(-1, 2)
        return super().state() | {"refused": refused, "answers": bytes(self._answers)}

    # -- the engine ------------------------------------------------------------------------------

    def _set_up(self) -> Timeline:
        self._first_running = 0
        engine = set_up(self._dry_run, self.number, in_lock_step=self._mode)
        own = self._dry_run.own_strategy
        if own is not None and own.needs_training_results:
            engine.asked = RememberedStrategy(own, engine.state, self._answers)
        return engine

    def _go_through(self, engine: Timeline) -> None:
        refused = np.array(sorted(self._refused.items()), np.int64).reshape(-1, 2)
        results = engine.memory.results
        if len(refused) and refused[-1, 0] >= len(results):
            more = np.zeros(refused[-1, 0] + 1 - len(results), np.int8)
            results = np.concatenate((results, more))
            engine.memory = engine.memory._replace(results=results)
        results[refused[:, 0]] = refused[:, 1]
        engine.state["in_lock_step"] = PRESUMING
        super()._go_through(engine)
        results = engine.memory.results[: engine.number("started")]
        results[results == HEARD] |= COUNTS
        engine.state["in_lock_step"] = self._mode

    def _again(self, numbers: NDArray[np.int64], reasons: NDArray[np.int8]) -> bool:
        """The engine presumed that updates count which do not: it goes again.

        Until the first of these arrived all was as it is; tasks that started later may be others.

        Returns:
            False: what has happened since the newest version is void.
        """
        tasks = self._engine.memory.tasks[numbers]
        are_sure = tasks["started_s"] < tasks["ended_s"].min()
        self._refused.update(
            zip(numbers[are_sure].tolist(), reasons[are_sure].tolist(), strict=True)
        )
        self._times_wrong += 1
        self._events_again += self._engine.number("events")
        asked = self._dry_run.own_strategy is not None
        worth = (_EVENTS_ASKED_A_TASK if asked else _EVENTS_A_TASK) * self._engine.number("started")
        most = (self.times_again or 0) + 2 * self._version
        if self._times_wrong > most or self._events_again > worth:
            self._mode = IN_STEP
        self._engine = self._up_to(self._version)
        return False

    # -- training --------------------------------------------------------------------------------

    def _train_next(self) -> bool:
        """Train the next task that completes, and those that complete next; tell the engine."""
        if self._feeds_back or len(self._trained) > _MOST_KEPT:
            self._let_go()
        numbers = self._coming()
        statistics = StatisticsColumns.of(self._executor.train(self._columns(numbers)))
        self._trained = np.concatenate((self._trained, numbers))
        self._updates.note(numbers + 1, statistics)
        results = self._judged(statistics)
        self._engine.memory.results[numbers] = results
        refused = results != COUNTS
        self._refused.update(zip(numbers[refused].tolist(), results[refused].tolist(), strict=True))
        return True

    def _judged(self, statistics: StatisticsColumns) -> NDArray[np.int8]:
        """`COUNTS`, or why not, of each update; shape ``(updates,)``."""
        results = np.full(len(statistics), COUNTS, np.int8)
        if self._limits_norms:
            results[_known(statistics.update_norm) > self._max_norm] = NORM_EXCEEDED
        results[~statistics.is_finite] = NOT_FINITE
        return results

    def _cannot_count(self, statistics: StatisticsColumns) -> NDArray[np.bool_] | None:
        self._reasons = self._judged(statistics)
        cannot_count: NDArray[np.bool_] = self._reasons != COUNTS
        return cannot_count if cannot_count.any() else None

    def _train_held(self) -> bool:
        """Make a version of what is held, unless there is something among it that cannot count."""
        memory = self._engine.memory
        held = memory.held[: self._engine.number("held")].astype(np.int64)
        if self._mode == IN_STEP:
            self._let_go()
            is_known = super()._train_held()
            self._trained = np.setdiff1d(self._trained, held)
            return is_known
        if not self._is_known(np.setdiff1d(self._arrived(), held)):
            return False
        cannot_count = self._aggregate(held + 1, self._columns(held))
        if cannot_count is not None:
            return self._again(held[cannot_count], self._reasons[cannot_count])
        memory.results[held] |= COUNTS
        return True

    def _train_taken(self, *, is_over: bool) -> bool:
        """Find out about updates that arrived and were not wanted, when the engine has ended."""
        return self._mode == IN_STEP or not is_over or self._is_known(self._arrived())

    def _is_known(self, numbers: NDArray[np.int64]) -> bool:
        """Train updates to see whether they could have counted; False if what followed is void."""
        if len(numbers) == 0:
            return True
        columns = self._columns(numbers)
        statistics = StatisticsColumns.of(self._executor.train(columns))
        self._executor.forget(columns.task_ids)
        self._updates.note(numbers + 1, statistics)
        reasons = self._judged(statistics)
        refused = reasons != COUNTS
        if refused.any():
            return self._again(numbers[refused], reasons[refused])
        self._engine.memory.results[numbers] |= COUNTS
        return True

    def _arrived(self) -> NDArray[np.int64]:
        """Tasks whose updates have arrived and are presumed to count."""
        first, started = self._first_running, self._engine.number("started")
        found = np.flatnonzero(self._engine.memory.results[first:started] == HEARD) + first
        is_running = np.isnan(self._engine.memory.tasks["ended_s"][first:started])
        running = np.flatnonzero(is_running)
        least = first + int(running[0]) if len(running) else started
        self._first_running = min([least, *found[:1].tolist()])
        return found

    def _coming(self) -> NDArray[np.int64]:
        """Tasks whose updates are wanted next, as things are; first the one that comes first."""
        engine, memory = self._engine, self._engine.memory
        first, started = self._first_running, engine.number("started")
        tasks = memory.tasks[first:started]
        is_running = np.isnan(tasks["ended_s"])
        wanted = (
            is_running
            & (tasks["ending"] == 0)
            & (tasks["outcome"] < 0)
            & (memory.results[first:started] == UNKNOWN)
            & (tasks["base_version"] >= engine.number("oldest_live"))
        )
        if engine.number("pins"):
            wanted &= tasks["round"] == engine.number("round")
        self._first_running += int(is_running.argmax())
        tasks, numbers = tasks[wanted], np.flatnonzero(wanted) + first
        phases_s = tasks["download_s"] + tasks["train_s"] + tasks["upload_s"]
        ends_s = np.ceil((tasks["started_s"] + phases_s) * TICKS_PER_S) / TICKS_PER_S
        most = self._in_one()
        if engine.number("pins"):  # what comes when the round is over does not count
            most = max(1, most - engine.number("held"))
        coming: NDArray[np.int64] = numbers[np.lexsort((numbers, ends_s))][:most]
        return coming

    def _in_one(self) -> int:
        """How many updates the next aggregation takes, or is likely to."""
        settings = self._dry_run.job.strategy
        if self._dry_run.own_strategy is not None:
            made = self._engine.number("versions")
            last = self._engine.memory.versions[made - 1]["updates"] if made else _FIRST_IN_ONE
            return int(last)
        if isinstance(settings, FedAvgSettings):
            return settings.cohort_size
        return settings.buffer_size

    def _let_go(self) -> None:
        """Updates that were trained and whose tasks have ended without them are not wanted.

        A device that its gateway refuses forgets what its updates left out.
        """
        tasks = self._engine.memory.tasks[self._trained]
        gone = (tasks["outcome"] >= 0) & (tasks["outcome"] != SUCCEEDED)
        gone &= ~np.isnan(tasks["ended_s"])
        if not gone.any():
            return
        rejected = gone & (tasks["outcome"] == REJECTED)
        self._executor.forget_residuals(tasks["client"][rejected].tolist())
        self._executor.forget(TaskIds(self._trained[gone] + 1))
        self._trained = self._trained[~gone]

    def _with_outputs(self, tasks: pa.Table) -> pa.Table:
        """Only of updates that arrived."""
        with_outputs = super()._with_outputs(tasks)
        arrived = pa.array(self._engine.memory.results[: len(tasks)] >= HEARD)
        for at in range(len(tasks.schema), len(with_outputs.schema)):
            name, column = with_outputs.schema.names[at], with_outputs.column(at)
            known = pc.if_else(arrived, column, pa.scalar(None, column.type))
            with_outputs = with_outputs.set_column(at, name, known)
        return with_outputs


def _known(norms: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Norms of updates that decide on them.

    Raises:
        ValueError: If the executor was not asked for them; see `outputs_needed`.
    """
    if norms is None:
        raise ValueError("the job decides on norms of updates, which its executor does not compute")
    return norms
