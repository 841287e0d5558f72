"""Executors in processes of their own: as many cores as there are, results that do not change."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.executors.client_residuals import merged
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.kept_updates import KeptUpdates
from simulation.executors.local import LocalExecutor
from simulation.executors.lost_executors import lost
from simulation.executors.messages import (
    CarryOver,
    Forget,
    ForgetResiduals,
    ForgetWeights,
    Reduce,
    Residuals,
    RestoreResiduals,
    SetWeights,
    Summed,
    Train,
)
from simulation.executors.paths import choose_path
from simulation.executors.process_crew import ProcessCrew
from simulation.executors.process_link import ProcessEnded
from simulation.executors.records import ClientRecords
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import SumRows, reduced
from simulation.executors.shares import Shares
from simulation.executors.task_board import TaskBoard
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

STALL_TIMEOUT_S = 600.0
Totals = dict[int, list[NDArray[np.float64]]]
"""By base version: sums of some of its updates, on the grid."""


class ProcessExecutors:
    """An `Executor` that spreads tasks over processes, each a `LocalExecutor` on one thread.

    This process is one of them. Weights of versions and sums of updates lie in memory that all map.
    What the compiled kernel sums is posted on a `TaskBoard`, of which each takes what is next; of
    everything else each is given its share, over a socket. Sums and statistics are the same to the
    bit for any number of executors (`simulation.executors.grid_sum`).

    Another process that ends, or is stuck, is replaced and its tasks are trained again: training is
    a pure function, and what a dead process had summed is in no result. With error feedback it is
    not, so the run stops: its checkpoint has what clients had left out by then.

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
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        """Start the processes and wait until all are ready.

        Args:
            count: Number of executors, at least 1; one process less is started.
            on_replaced: Told a sentence when a process has been replaced.
            stall_timeout_s: A process that finishes no task for so long is stopped and replaced.

        Raises:
            ExecutorLost: If one does not start.
            UnusableRecords: If the file of records is not whole.
        """
        self._feeds_back = plan.codec is not None and plan.codec.error_feedback
        self.path = choose_path(model, plan, records)
        self._count = count
        self._records = records
        self._shares = Shares(count, self.path, plan, records, ties_clients=self._feeds_back)
        self._is_claimed = self.path.name == "compiled" and plan.codec is None
        self._kept = KeptUpdates()
        self._weights = SharedRows.create(model.parameter_count, np.float32)
        self._row_of: dict[int, int] = {}
        self._stamp_of: dict[int, int] = {}
        self._stamps = 0
        self._sum_rows = SharedRows.create(model.parameter_count, np.float64)
        self._sums = SumRows(self._sum_rows)
        self._board = TaskBoard(0, count, plan.outputs)
        self._crew = ProcessCrew(
            *(count, model, plan, records),
            weights=self._weights,
            row_of=self._row_of,
            board=self._board,
            on_death=self._kept.forget_process,
            on_replaced=on_replaced,
            stall_timeout_s=stall_timeout_s,
        )
        records.require_whole()
        with self._or_none():
            self._crew.start()
            self._own = LocalExecutor(
                *(model, plan, records, self.path), new_total=self._sums.new_total
            )
            self._crew.await_start()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Put a version where every process sees it; see `Executor.set_weights`."""
        self._own.set_weights(version, weights)
        if version not in self._row_of:
            taken = set(self._row_of.values())
            self._row_of[version] = next(i for i in range(len(taken) + 1) if i not in taken)
        row = self._row_of[version]
        self._weights.row(row)[:] = weights
        self._stamps += 1
        self._stamp_of[version] = self._stamps
        self._crew.tell_all(SetWeights(version, row))

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._own.forget_weights(before)
        self._crew.tell_all(ForgetWeights(before))
        for version in [v for v in self._row_of if v < before]:
            del self._row_of[version], self._stamp_of[version]
        self._kept.forget_versions(before)

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Have records read that are more than memory holds, into the cache of all processes."""
        self._own.expect(data_clients)

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now, each process its share; see `Executor.train`."""
        columns = TaskColumns.of(tasks)
        self._require_versions(columns)
        process = self._shares.of(columns, self._kept.keepers(columns), kept=True)
        at, shares = _dealt(columns, process)
        with self._or_none():
            self._records.require_whole()
            own, found = self._crew.answers(
                {number: Train(share) for number, share in shares.items() if number},
                lambda: self._own.train(shares[0]) if 0 in shares else [],
            )
        found |= {0: StatisticsColumns.of(own)} if 0 in shares else {}
        self._kept.add(columns, process)
        return StatisticsColumns.placed(
            columns.task_ids, [(at[number], each) for number, each in found.items()]
        )

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates, all processes together; see `Executor.reduce`."""
        columns = TaskColumns.of(tasks)
        self._require_versions(columns)
        with self._or_none():
            self._records.require_whole()
            if self._is_claimed and not self._kept and len(columns):
                totals, statistics = self._sum_by_claims(columns)
            else:
                totals, statistics = self._sum_by_shares(columns)
        return reduced(columns, totals, statistics)

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates, wherever they are."""
        by_process = self._kept.forget(task_ids)
        if self._feeds_back and task_ids:
            self._own.forget(task_ids)
            self._crew.tell_all(Forget(tuple(task_ids)))
            return
        for number, ids in by_process.items():
            if number:
                self._crew.link(number).tell(Forget(tuple(ids)))
            else:
                self._own.forget(ids)

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        if self._feeds_back:
            self._own.carry_over(task_ids)
            self._crew.tell_all(CarryOver(tuple(task_ids)))

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        if self._feeds_back:
            self._own.forget_residuals(clients)
            self._crew.tell_all(ForgetResiduals(tuple(clients)))

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        if not self._feeds_back:
            return merged(())
        with self._or_none():
            asked = dict.fromkeys(range(1, self._count), Residuals())
            own, others = self._crew.answers(asked, self._own.residuals)
        return merged([own, *others.values()])

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """Go on after `residuals`, each process with its clients'."""
        if self._feeds_back:
            self._own.restore_residuals(state, share=0, of=self._count)
            for number in range(1, self._count):
                self._crew.link(number).tell(RestoreResiduals(state, number, self._count))

    def close(self) -> None:
        """End the processes at once; what they have not answered is lost."""
        self._crew.close()
        self._weights.close()
        self._sum_rows.close()
        self._board.close()

    def _require_versions(self, tasks: TaskColumns) -> None:
        for version in set(tasks.base_version.tolist()):
            if version not in self._row_of:
                raise KeyError(version)

    def _sum_by_shares(self, tasks: TaskColumns) -> tuple[Totals, StatisticsColumns]:
        """Each process sums the tasks that it is given."""
        process = self._shares.of(tasks, self._kept.keepers(tasks), kept=False)
        at, shares = _dealt(tasks, process)
        self._sums.begin()
        own, found = self._crew.answers(
            {number: Reduce(share) for number, share in shares.items() if number},
            lambda: self._own.sum_on_grid(shares[0]) if 0 in shares else None,
        )
        self._kept.forget(tasks.task_ids)
        totals: Totals = {}
        parts = []
        if own is not None:
            totals |= {version: [total] for version, total in own[0].items()}
            parts.append((at[0], own[1]))
        answer: Summed
        for number, answer in found.items():
            for version, row in answer.rows.items():
                totals.setdefault(version, []).append(self._crew.link(number).sums.row(row))
            parts.append((at[number], answer.statistics))
        return totals, StatisticsColumns.placed(tasks.task_ids, parts)

    def _sum_by_claims(self, tasks: TaskColumns) -> tuple[Totals, StatisticsColumns]:
        """Each process sums what it takes of the board; what dead ones took is posted again."""
        versions = sorted(set(tasks.base_version.tolist()))
        weights_of = {v: (self._row_of[v], self._stamp_of[v]) for v in versions}
        totals: Totals = {version: [] for version in versions}
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]] = []
        deaths = Counter[int]()
        left, at = tasks, np.arange(len(tasks))
        while len(left):
            first_sum = len(parts) * len(versions)
            self._board.post(left, weights_of, first_sum=first_sum, oldest=min(self._row_of))
            self._crew.ring()
            posted = self._board.posted()
            self._sums.begin(first_sum)
            self._own.sum_claimed(posted.tasks, posted.statistics, posted.claims)
            dead = self._crew.finish()
            is_done = np.ones(len(left), np.bool_)
            if dead:
                is_done = ~np.isin(posted.taker, (-1, *dead))
            for row, version in enumerate(versions, first_sum):
                of_version = is_done & (left.base_version == version)
                for number in set(posted.taker[of_version].tolist()):
                    rows = self._crew.link(number).sums if number else self._sum_rows
                    totals[version].append(rows.row(row))
            parts.append((at[is_done], posted.statistics.take(np.flatnonzero(is_done))))
            for number, ending in dead.items():
                self._crew.replace(number, ending, deaths)
            at = at[~is_done]
            left = tasks.take(at)
        statistics = StatisticsColumns.placed(tasks.task_ids, parts)
        if not statistics.is_finite.all():
            counted = set(tasks.base_version[statistics.is_finite].tolist())
            totals = {version: rows for version, rows in totals.items() if version in counted}
        return totals, statistics

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


def _dealt(
    tasks: TaskColumns, process: NDArray[np.int64]
) -> tuple[dict[int, NDArray[np.int64]], dict[int, TaskColumns]]:
    """Positions of each process's tasks, and these; of processes that have any."""
    at = {number: np.flatnonzero(process == number) for number in np.unique(process).tolist()}
    return at, {number: tasks.take(of) for number, of in at.items()}
