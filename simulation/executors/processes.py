"""Executors in processes of their own: as many cores as there are, results that do not change."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.executors.client_residuals import merged
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.kept_updates import KeptUpdates
from simulation.executors.lost_executors import DEATHS, lost
from simulation.executors.messages import (
    CarryOver,
    Forget,
    ForgetResiduals,
    ForgetWeights,
    Message,
    Reduce,
    Residuals,
    RestoreResiduals,
    SetWeights,
    Summed,
    Train,
)
from simulation.executors.paths import choose_path
from simulation.executors.process_link import Ending, ProcessEnded, ProcessLink
from simulation.executors.record_paging import RecordPaging
from simulation.executors.records import ClientRecords
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import reduced
from simulation.executors.shares import Shares
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

Found = TypeVar("Found")
Answers = dict[int, tuple[NDArray[np.int64], Found]]
"""By process: the positions of its tasks among all, and what it answered."""


class ProcessExecutors:
    """An `Executor` that spreads tasks over processes, each a `LocalExecutor` on one thread.

    Weights of versions and sums of updates lie in memory that all map; over sockets go the tasks,
    as columns, and their statistics. Sums and statistics are the same to the bit for any number of
    processes (`simulation.executors.grid_sum`).

    A process that ends is replaced and its tasks are trained again: training is a pure function,
    and what a dead process had summed is in no result. With error feedback it is not, so the run
    stops: its checkpoint has what clients had left out by then.

    The processes die with this one. To be used from the thread that created it, which must live as
    long: the kernel ties them to it.
    """

    def __init__(
        self,
        count: int,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        *,
        on_replaced: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start the processes and wait until all are ready.

        Args:
            count: Number of processes, at least 1.
            on_replaced: Told a sentence when a process has been replaced.

        Raises:
            ExecutorLost: If one does not start.
            UnusableRecords: If the file of records is not whole.
        """
        self._feeds_back = plan.codec is not None and plan.codec.error_feedback
        self.path = choose_path(model, plan, records)
        self._count = count
        self._model, self._plan, self._records = model, plan, records
        self._on_replaced = on_replaced
        self._shares = Shares(count, self.path, plan, records, ties_clients=self._feeds_back)
        self._paging = RecordPaging(records, plan.max_records)
        self._kept = KeptUpdates()
        self._weights = SharedRows.create(model.parameter_count, np.float32)
        self._row_of: dict[int, int] = {}
        self._processes: list[ProcessLink] = []
        records.require_whole()
        with self._or_none():
            for number in range(count):
                self._processes.append(self._started(number))
            for process in self._processes:
                process.receive()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Put a version where every process sees it; see `Executor.set_weights`."""
        if weights.shape != (self._model.parameter_count,):
            raise ValueError(
                f"weights of shape {weights.shape}; {self._model.name} has "
                f"{self._model.parameter_count} parameters"
            )
        if version not in self._row_of:
            taken = set(self._row_of.values())
            self._row_of[version] = next(i for i in range(len(taken) + 1) if i not in taken)
        row = self._row_of[version]
        self._weights.row(row)[:] = weights
        self._tell_all(SetWeights(version, row))

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._tell_all(ForgetWeights(before))
        self._row_of = {v: row for v, row in self._row_of.items() if v >= before}
        self._kept.forget_versions(before)

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Have records read that are more than memory holds, into the cache of all processes."""
        self._paging.expect(data_clients)

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now, each process its share; see `Executor.train`."""
        columns = TaskColumns.of(tasks)
        process = self._shares.of(columns, self._kept.keepers(columns), kept=True)
        answers: Answers[StatisticsColumns] = self._ask(columns, process, Train)
        self._kept.add(columns, process)
        return StatisticsColumns.placed(columns.task_ids, answers.values())

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates, each process its share; see `Executor.reduce`."""
        columns = TaskColumns.of(tasks)
        process = self._shares.of(columns, self._kept.keepers(columns), kept=False)
        answers: Answers[Summed] = self._ask(columns, process, Reduce)
        self._kept.forget(columns.task_ids)
        totals: dict[int, list[NDArray[np.float64]]] = {}
        for number, (_, answer) in answers.items():
            for version, row in answer.rows.items():
                totals.setdefault(version, []).append(self._processes[number].sums(row))
        return reduced(
            columns,
            totals,
            StatisticsColumns.placed(
                columns.task_ids, [(at, answer.statistics) for at, answer in answers.values()]
            ),
        )

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates, wherever they are."""
        by_process = self._kept.forget(task_ids)
        if self._feeds_back and task_ids:
            self._tell_all(Forget(tuple(task_ids)))
            return
        for number, ids in by_process.items():
            self._processes[number].tell(Forget(tuple(ids)))

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        if self._feeds_back:
            self._tell_all(CarryOver(tuple(task_ids)))

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        if self._feeds_back:
            self._tell_all(ForgetResiduals(tuple(clients)))

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        if not self._feeds_back:
            return merged(())
        asked = dict.fromkeys(range(self._count), Residuals())
        return merged(list(self._answers(asked).values()))

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """Go on after `residuals`, each process with its clients'."""
        if self._feeds_back:
            for process in self._processes:
                process.tell(RestoreResiduals(state, process.number, self._count))

    def close(self) -> None:
        """End the processes at once; what they have not answered is lost."""
        while self._processes:
            self._processes.pop().end()
        self._weights.close()

    def _ask(
        self, tasks: TaskColumns, process: NDArray[np.int64], message: type[Train | Reduce]
    ) -> "Answers[Any]":
        """Have each process do its share, all at a time."""
        for version in np.unique(tasks.base_version).tolist():
            if version not in self._row_of:
                raise KeyError(version)
        at = {number: np.flatnonzero(process == number) for number in range(self._count)}
        asked = {number: message(tasks.take(of)) for number, of in at.items() if len(of)}
        return {number: (at[number], found) for number, found in self._answers(asked).items()}

    def _answers(self, asked: Mapping[int, Message]) -> dict[int, Any]:
        """What processes answer, by their number; those that end meanwhile are replaced."""
        deaths = Counter[int]()
        with self._or_none():
            self._records.require_whole()
            for number, message in asked.items():
                self._give(number, message, deaths)
            return {
                number: self._taken(number, message, deaths) for number, message in asked.items()
            }

    def _give(self, number: int, message: Message, deaths: Counter[int]) -> None:
        try:
            self._processes[number].ask(message)
        except ProcessEnded as ended:
            self._replace(number, ended.ending, deaths)
            self._give(number, message, deaths)

    def _taken(self, number: int, message: Message, deaths: Counter[int]) -> Any:  # noqa: ANN401
        """The answer to what process ``number`` was given."""
        try:
            return self._processes[number].receive()
        except ProcessEnded as ended:
            self._replace(number, ended.ending, deaths)
            self._give(number, message, deaths)
            return self._taken(number, message, deaths)

    def _replace(self, number: int, ending: Ending, deaths: Counter[int]) -> None:
        """Start another process in place of one that has ended, and tell it what that one knew.

        Raises:
            ExecutorLost: If that is no use.
            UnusableRecords: If the file of records is cut off: the process died of that.
        """
        self._records.require_whole()
        deaths[number] += 1
        if self._feeds_back or ending.would_come_again or deaths[number] >= DEATHS:
            raise lost(ending, deaths[number], self._count, feeds_back=self._feeds_back)
        self._kept.forget_process(number)
        self._processes[number].end()
        self._processes[number] = process = self._started(number)
        for version, row in self._row_of.items():
            process.tell(SetWeights(version, row))
        try:
            process.receive()
        except ProcessEnded as ended:
            self._replace(number, ended.ending, deaths)
            return
        self._on_replaced(f"{ending.sentence}; another one does its tasks again")

    def _started(self, number: int) -> ProcessLink:
        """A process that has been told to begin; it has not answered yet."""
        process = ProcessLink(number, self._count, self._model.parameter_count, self._weights)
        try:
            process.begin(self._model, self._plan, self._records)
        except BaseException:
            process.end()
            raise
        return process

    def _tell_all(self, message: Message) -> None:
        for process in self._processes:
            process.tell(message)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        """End all processes when an exchange is broken off: their answers would be out of step."""
        try:
            yield
        except ProcessEnded as ended:  # before anything was asked of it
            self.close()
            raise lost(ended.ending, 1, self._count, feeds_back=False) from ended
        except BaseException:
            self.close()
            raise
