"""A trial that trains, on the compiled engine: events run ahead, and updates are trained behind.

How long a task takes hangs on no result, so which updates make which version is known before any is
trained. Two results can still change what happens. A metric that reaches the job's target ends the
trial: the engine goes again, as far as that version. An update that is not finite fails, and the
strategy waits for another: the engine goes again as far as the version before, told of that task,
and from then on asks before each aggregation.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.coordination.job_runner import Evaluate
from server.coordination.limits import target_reached
from server.coordination.next_version import next_version, with_optimizer_state
from server.coordination.progress import JobProgress
from server.coordination.versions import JobTotals, StoredVersion
from server.strategies.server_optimizer import ServerOptimizer
from simulation.executors.executor import Executor
from simulation.executors.task_columns import StatisticsColumns, TaskColumns, TaskIds
from simulation.random_streams import RandomStreams
from simulation.run_versions import LiveVersions
from simulation.timeline.engine import ASKS, PAUSED, RESULTS, STOPPED
from simulation.timeline.layout import OUTCOMES
from simulation.timeline.learnt import Learnt, mean_of_known
from simulation.timeline.shuffle_seeds import shuffle_seeds
from simulation.timeline.timeline import Timeline, set_up
from simulation.timeline.trial import (
    end_tasks,
    progress_of,
    tasks_table,
    trajectory_table,
    why_it_ended,
)
from simulation.trial import DryRun, TrialResult, trial_seed
from simulation.update_log import UpdateLog

_EVENTS_AHEAD = 100_000
_TASKS_AHEAD = 1_000
"""Whose records may be read before their turn comes."""
_PROGRESS_EVERY_S = 0.1


class TimelineTrial:
    """A trial that can be kept and taken up again; it gives what `simulation.trial.Trial` gives.

    Equal to the bit but for ``wall_s``: the events are the engine's, the sums the executor's, and
    what makes the next version of them is the production coordinator's own code.

    Args:
        number: From 0; the first draws from the run's seed as production would.
        executor: Trains the updates.
        evaluate: Measures a version; None when the job asks for no evaluation.
        on_progress: Told of progress and virtual seconds, now and then.
        state: Of a checkpoint, to go on from.
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
        self.number = number
        self._dry_run = dry_run
        self._executor = executor
        self._evaluate = evaluate
        self._on_progress = on_progress
        self._strategy = dry_run.strategy
        self._optimizer = ServerOptimizer(job.strategy.server_optimizer)
        self._versions = LiveVersions(
            with_optimizer_state(StoredVersion(0, dry_run.initial_weights, {}), self._optimizer),
            self._strategy.oldest_live_version,
            executor,
        )
        codec = job.client.compression.codec
        self._feeds_back = codec is not None and codec.error_feedback
        self._job_name = job.name
        self._measures_every = job.evaluation.every if job.evaluation else 0
        self._seed = trial_seed(RandomStreams(dry_run.seed, number), dry_run.seed)
        self._learnt = Learnt()
        self._updates = UpdateLog.restored(
            dry_run.environment.client_outputs, None if state is None else state.get("updates")
        )
        self._measured_version = -1
        self._diverged = np.zeros(0, np.int64)
        self._first_open = 0
        self._told_s = 0.0
        self._begun_s = time.monotonic()
        if state is None:
            self._engine = self._set_up()
            self._measure()
            return
        self._versions.restore(state["versions"])
        executor.restore_residuals(state["residuals"])
        self._learnt.restore(state["learnt"])
        self._measured_version = state["measured_version"]
        self._diverged = np.asarray(state["diverged"], np.int64)
        self._begun_s -= state["wall_s"]
        self._engine = self._up_to(self._version)

    def run(
        self,
        save: Callable[[dict[str, Any]], None] = lambda _: None,
        every: int = 0,
        is_due: Callable[[], bool] = lambda: True,
    ) -> TrialResult:
        """Run to the end.

        Args:
            save: Given the trial's state for a checkpoint.
            every: Aggregations between two checkpoints; 0 for none.
            is_due: Asked after so many whether it is time for one.

        Raises:
            ModelDiverged: If an aggregation gives a model that is not finite.
        """
        self._save, self._every, self._saved = save, every, self._version
        self._is_due = is_due
        reason, code = self._target_reached(), STOPPED
        while reason is None:
            code = self._engine.go_on(_EVENTS_AHEAD)
            if code == ASKS:
                is_known = self._train_held()
            elif code == RESULTS:
                is_known = self._train_next()
            else:
                is_known = self._train_taken(is_over=code != PAUSED)
            reason = self._target_reached()
            if reason is None and is_known and code not in {ASKS, PAUSED, RESULTS}:
                reason = why_it_ended(self._dry_run, self._engine, code)
        if self._target_reached() is not None:
            code = STOPPED
            self._engine = self._up_to(self._version)
        if not self._has_measured:
            self._measure()
        return self._result(reason, is_exhausted=code != STOPPED)

    def state(self) -> dict[str, Any]:
        """Everything that `run` goes on from; the engine is soon there again."""
        return {
            "trial": self.number,
            "versions": self._versions.state(),
            "residuals": self._executor.residuals(),
            "learnt": self._learnt.state(),
            "updates": self._updates.state(),
            "measured_version": self._measured_version,
            "diverged": self._diverged,
            "wall_s": self._wall_s(),
        }

    # -- the engine ------------------------------------------------------------------------------

    def _set_up(self) -> Timeline:
        """The engine at the trial's beginning."""
        return set_up(self._dry_run, self.number)

    def _up_to(self, version: int) -> Timeline:
        """The engine when this version has come about; from there on it goes as any other."""
        engine = self._set_up()
        engine.memory = engine.memory._replace(diverged=self._diverged)
        last, asks = engine.number("max_aggregations"), engine.number("asks")
        engine.state["max_aggregations"], engine.state["asks"] = version, 0
        self._go_through(engine)
        engine.state["max_aggregations"] = last
        engine.state["asks"] = asks or len(self._diverged) > 0
        self._first_open = 0
        return engine

    def _go_through(self, engine: Timeline) -> None:
        """Let the engine go to its limit once more; nothing is trained."""
        while engine.go_on() == PAUSED:
            pass

    def _train_held(self) -> bool:
        """Make a version of what is held, or tell the engine which of it is not finite.

        Returns:
            As `_train_taken`.
        """
        held = self._engine.memory.held[: self._engine.number("held")].astype(np.int64)
        diverged = self._aggregate(held + 1, self._columns(held))
        if diverged is not None:
            self._note_diverged(held[diverged])
            self._engine.memory = self._engine.memory._replace(diverged=self._diverged)
        return True

    def _train_next(self) -> bool:
        """Train the next task that completes, for the engine wants to know what it has learnt.

        Raises:
            RuntimeError: Always; only in lock-step (`simulation.timeline.lock_step`) it does.
        """
        raise RuntimeError("the event engine asked for a result that decides nothing")

    def _train_taken(self, *, is_over: bool) -> bool:  # noqa: ARG002 - only lock-step wants to know
        """Make the versions that have come about since the newest.

        Args:
            is_over: Whether the engine has come to the trial's end.

        Returns:
            False if one did not: then what has happened since is void.
        """
        numbers, beyond = self._taken()
        columns, ids, first, expected = self._columns(numbers), numbers + 1, 0, 0
        for end in beyond.tolist():
            if end + _TASKS_AHEAD // 2 > expected:
                coming = columns.data_client[expected : end + _TASKS_AHEAD]
                self._executor.expect(coming)
                expected += len(coming)
            diverged = self._aggregate(ids[first:end], columns[first:end])
            if diverged is not None:
                self._note_diverged(numbers[first:end][diverged])
                self._engine = self._up_to(self._version)
                return False
            if self._has_measured and self._target_reached() is not None:
                return True
            first = end
        return True

    def _taken(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What each version took that has come about since the newest.

        Returns:
            Numbers of tasks, version by version, in order of arrival; and where each version's end.
        """
        engine, version = self._engine, self._version
        tasks = engine.memory.tasks[self._first_open : engine.number("started")]
        taken = np.flatnonzero(tasks["version"] > version)
        order = np.lexsort((tasks["ended_s"][taken], tasks["version"][taken]))  # stable
        numbers = taken[order] + self._first_open
        is_open = tasks["outcome"] < 0
        self._first_open += int(is_open.argmax()) if is_open.any() else len(tasks)
        rows = engine.memory.versions[version : engine.number("versions")]
        return numbers, np.cumsum(rows["updates"])

    def _note_diverged(self, numbers: NDArray[np.int64]) -> None:
        self._diverged = np.union1d(self._diverged, numbers)

    # -- training --------------------------------------------------------------------------------

    def _columns(self, numbers: NDArray[np.int64]) -> TaskColumns:
        """Tasks as executors know them."""
        job = self._dry_run.job
        tasks = self._engine.memory.tasks
        base_version = tasks["base_version"][numbers].astype(np.int64)
        client = tasks["client"][numbers].astype(np.int64)
        return TaskColumns(
            TaskIds(numbers + 1),
            self._dry_run.mapping.data_client[client].astype(np.int64),
            base_version,
            _of_each(job.strategy.weight, tasks["examples"][numbers]),
            _of_each(job.client.optimizer.learning_rate_at, base_version),
            shuffle_seeds(self._seed, numbers + 1),
            client,
        )

    def _aggregate(
        self, numbers: NDArray[np.int64], tasks: TaskColumns
    ) -> NDArray[np.bool_] | None:
        """Train the tasks and make the next version of their updates.

        With a small model this takes longer than the training of ten tasks, most of it because
        nothing that it needs is in the cache any more: it calls little.

        Args:
            numbers: Of the tasks, from 1.

        Returns:
            Which of the updates cannot count, shape ``(tasks,)``; None if all can.
        """
        reduced = self._executor.reduce(tasks)
        statistics = StatisticsColumns.of(reduced.statistics)
        self._updates.note(numbers, statistics)
        cannot_count = self._cannot_count(statistics)
        if cannot_count is not None:
            self._executor.forget(tasks.task_ids)
            return cannot_count
        if self._feeds_back:
            self._executor.carry_over(tasks.task_ids)
        version = next_version(
            self._versions.newest(),
            reduced.sums,
            self._strategy,
            self._optimizer,
            job_name=self._job_name,
        )
        self._versions.add(version)
        self._executor.forget_weights(self._strategy.oldest_live_version(version.number))
        now_s = time.monotonic()
        mean_loss = mean_of_known(statistics.train_loss)
        self._learnt.add(version.number, mean_loss, now_s - self._begun_s)
        if self._measures_every and version.number % self._measures_every == 0:
            self._measure()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._tell(now_s)
        if self._every and version.number >= self._saved + self._every:
            self._saved = version.number
            if self._is_due():
                self._save(self.state())
        return None

    def _cannot_count(self, statistics: StatisticsColumns) -> NDArray[np.bool_] | None:
        """Which updates were trained for an aggregation and must not be in it; None if all may."""
        if np.count_nonzero(statistics.is_finite) == len(statistics):
            return None
        return ~statistics.is_finite

    def _measure(self) -> None:
        if self._evaluate is None:
            return
        newest = self._versions.newest()
        metrics = self._evaluate(newest.weights)
        self._versions.note_metrics(metrics)
        self._learnt.measured(newest.number, metrics["metric"], metrics["loss"])
        self._measured_version = newest.number

    @property
    def _version(self) -> int:
        return self._versions.newest().number

    def _metric(self) -> float | None:
        if self._measured_version < 0:
            return None
        return self._learnt.metric(self._measured_version)

    @property
    def _has_measured(self) -> bool:
        """Whether the newest version has been measured."""
        return self._measured_version == self._version

    def _target_reached(self) -> str | None:
        return target_reached(self._dry_run.job.stop, self._metric())

    # -- what is told ----------------------------------------------------------------------------

    def _wall_s(self) -> float:
        return time.monotonic() - self._begun_s

    def _tell(self, now_s: float) -> None:
        """Progress of the newest version, though the engine may be far ahead."""
        number = min(self._version, self._engine.number("versions"))
        if number == 0:
            return
        self._told_s = now_s
        row = self._engine.memory.versions[number - 1]
        counts = dict(zip(OUTCOMES, row["outcomes"].tolist(), strict=True))
        virtual_s = float(row["virtual_s"])
        totals = JobTotals(virtual_s, counts["succeeded"], counts)
        progress = JobProgress(
            number, self._metric(), self._measured_version, totals, int(row["in_flight"]), 0, 0
        )
        self._on_progress(progress, virtual_s)

    def _result(self, reason: str, *, is_exhausted: bool) -> TrialResult:
        engine = self._engine
        end_tasks(self._dry_run, engine)
        self._on_progress(progress_of(engine, self._metric()), engine.seconds("now_s"))
        tasks = tasks_table(self.number, engine)
        return TrialResult(
            self.number,
            reason,
            is_exhausted,
            engine.seconds("now_s"),
            trajectory_table(
                self._dry_run, self.number, engine, self._learnt.wall_s(), self._learnt.columns()
            ),
            self._with_outputs(tasks),
            self._versions.newest().weights,
            self._wall_s(),
            self._updates.diverged(tasks),
        )

    def _with_outputs(self, tasks: pa.Table) -> pa.Table:
        return self._updates.with_outputs(tasks)


def _of_each(
    function: Callable[[int], float], values: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """A function of each value, which lie close together; called once for equal ones."""
    least = int(values.min()) if len(values) else 0
    counts = np.bincount(values - least)
    found: NDArray[np.float64] = np.zeros(len(counts))
    for value in np.flatnonzero(counts).tolist():
        found[value] = function(value + least)
    of_each: NDArray[np.float64] = found[values - least]
    return of_each
