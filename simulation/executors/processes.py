"""Executors in processes of their own: as many cores as there are, results that do not change."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.executors.client_residuals import merged
from simulation.executors.compiled.training import CompiledTraining
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
from simulation.executors.process_crew import Deaths, ProcessCrew
from simulation.executors.process_link import ProcessEnded
from simulation.executors.records import ClientRecords
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import SumRows, reduced
from simulation.executors.shared_weights import SharedWeights
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
        self._compresses = plan.codec is not None
        self._kept = KeptUpdates()
        self._weights = SharedWeights(model, self.path)
        self._sums = SumRows(SharedRows.create(model.parameter_count, np.float64))
        self._board = TaskBoard(0, count, plan.outputs)
        self._crew = ProcessCrew(
            *(count, model, plan, records),
            weights=self._weights,
            board=self._board,
            on_death=self._kept.forget_process,
            on_replaced=on_replaced,
            stall_timeout_s=stall_timeout_s,
        )
        with self._or_none():
            records.require_whole()
            self._crew.start()
            self._own = LocalExecutor(
                *(model, plan, records, self.path),
                new_total=self._sums.new_total,
                new_room=self._weights.new_room,
            )
            self._crew.await_start()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Put a version where every process sees it; see `Executor.set_weights`."""
        self._own.require_shape(weights)
        row = self._weights.set(self._own, version, weights, is_kept=len(self._kept) > 0)
        self._crew.tell_all(SetWeights(version, row))

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._own.forget_weights(before)
        self._weights.forget(before)
        self._crew.tell_all(ForgetWeights(before))
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
        kernel = self._own.kernel
        if kernel is not None and not self._compresses and not self._kept:
            return self._reduced_in_turns(kernel, columns)
        self._require_versions(columns)
        with self._or_none():
            self._records.require_whole()
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
        self._sums.close()
        self._board.close()

    def _require_versions(self, tasks: TaskColumns) -> None:
        for version in set(tasks.base_version.tolist()):
            if version not in self._weights.row_of:
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

    def _reduced_in_turns(self, kernel: CompiledTraining, tasks: TaskColumns) -> Reduced:
        """Each process takes what is next on the board; what dead ones took is taken again."""
        self._board.make_room(max(len(tasks), len(kernel.versions.rows)))
        block, found = self._board.block, self._board.outcomes
        groups = kernel.post(tasks, block)
        sums, is_summed = self._sums.addresses(groups), np.zeros(groups, np.bool_)
        deaths, goes_on = Deaths(), False
        with self._or_none():
            while True:
                self._board.post(kernel.versions.rows[:, 0], goes_on=goes_on)
                self._crew.ring()
                self._own.take_turns(block, found, sums, is_summed)
                dead = self._crew.finish()
                if not dead:
                    break
                is_left = kernel.take_again(block, np.isin(np.arange(self._count), list(dead)))
                for number, ending in dead.items():
                    self._crew.replace(number, ending, deaths)
                if not is_left:
                    break
                goes_on = True
        others = (self._crew.link(n).sums.addresses(groups) for n in range(1, self._count))
        every = np.stack([sums, *others], axis=1)
        return kernel.put_together(tasks, block, found.first(tasks.task_ids), every)

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
