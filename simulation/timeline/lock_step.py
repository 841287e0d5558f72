"""A trial in lock-step on the compiled engine: what an update is decides what becomes of it.

The engine stops before a task completes of whose update nothing is known. That task is trained,
together with those that complete next: their base versions are known, so nothing hangs on when it
is done, and several executors have work. What will not count after all was trained in vain.
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
from simulation.timeline.engine import PAUSED, RESULTS
from simulation.timeline.layout import (
    COUNTS,
    HEARD,
    NORM_EXCEEDED,
    NOT_FINITE,
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

_MOST_KEPT = 256
"""Updates kept, beyond which those not wanted any more are let go of before the aggregation."""


class LockStepTrial(TimelineTrial):
    """A trial whose gate, or whose strategy, decides on what clients learned.

    It gives what `simulation.trial.Trial` gives, to the bit. See `TimelineTrial` for its arguments.
    """

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
        if state is not None:
            self._refused = dict(state["refused"].tolist())
        self._trained = np.zeros(0, np.int64)
        self._first_running = 0
        super().__init__(dry_run, number, executor, evaluate, on_progress=on_progress, state=state)

    def state(self) -> dict[str, Any]:
        """See `TimelineTrial.state`. What was trained ahead is not in it, but what was refused."""
        refused = np.array(sorted(self._refused.items()), np.int64).reshape(-1, 2)
        return super().state() | {"refused": refused}

    # -- the engine ------------------------------------------------------------------------------

    def _set_up(self) -> Timeline:
        self._first_running = 0
        return set_up(self._dry_run, self.number, in_lock_step=True)

    def _go_through(self, engine: Timeline) -> None:
        known = 0
        while (code := engine.go_on()) in {PAUSED, RESULTS}:
            if code == RESULTS:
                started = engine.number("started")
                engine.memory.results[known:started] = [
                    self._refused.get(number, COUNTS) for number in range(known, started)
                ]
                known = started
        results = engine.memory.results[: engine.number("started")]
        results[results < HEARD] = UNKNOWN

    # -- training --------------------------------------------------------------------------------

    def _train_next(self) -> bool:
        """Train the next task that completes, and those that complete next; tell the engine."""
        if self._feeds_back or len(self._trained) > _MOST_KEPT:
            self._let_go()
        numbers = self._coming()
        statistics = StatisticsColumns.of(self._executor.train(self._columns(numbers)))
        self._trained = np.concatenate((self._trained, numbers))
        self._updates.note(numbers + 1, statistics)
        results = np.full(len(numbers), COUNTS, np.int8)
        if self._limits_norms:
            results[_known(statistics.update_norm) > self._max_norm] = NORM_EXCEEDED
        results[~statistics.is_finite] = NOT_FINITE
        self._engine.memory.results[numbers] = results
        refused = results != COUNTS
        self._refused.update(zip(numbers[refused].tolist(), results[refused].tolist(), strict=True))
        return True

    def _train_held(self) -> bool:
        """Make a version of what is held, which is trained."""
        self._let_go()
        held = self._engine.memory.held[: self._engine.number("held")].astype(np.int64)
        is_known = super()._train_held()
        self._trained = np.setdiff1d(self._trained, held)
        return is_known

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
