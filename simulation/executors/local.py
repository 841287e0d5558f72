"""The executor of this process: one thread, one task after the other."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from device_runtime.compression import UpdateCodec
from modeling.spec import ModelSpec
from modeling.torch_models import build_torch, weighted_loss
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.client_residuals import ClientResiduals
from simulation.executors.compiled.arranging import TASKS
from simulation.executors.compiled.task_block import TaskBlock
from simulation.executors.compiled.training import CompiledTraining
from simulation.executors.compressed import compressed
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.grid_sum import add_update
from simulation.executors.modules import ModuleTraining
from simulation.executors.paths import TrainingPath, choose_path
from simulation.executors.record_paging import RecordPaging
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.shared_sums import reduced
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan, LocalUpdate, one_thread, train_locally


class LocalExecutor:
    """An `Executor` that trains in this process as the clients' devices would.

    The same bits come out whatever else the process does and however many cores it has: every
    task is trained on one thread, from aligned copies of its records.
    """

    def __init__(
        self,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        path: TrainingPath | None = None,
        *,
        new_total: Callable[[], NDArray[np.float64]] | None = None,
        new_room: Callable[[], NDArray[np.float32]] | None = None,
        resident_bytes: int | None = None,
        progress: NDArray[np.int64] | None = None,
    ) -> None:
        """Prepare.

        Args:
            path: How to train; None means `choose_path`'s choice.
            new_total: Gives room to sum in, shape ``(parameters,)``; None: memory of its own.
            new_room: See `simulation.executors.compiled.versions.Versions`.
            resident_bytes: See `RecordPaging`.
            progress: Tasks trained are counted in its first element, for whoever watches.
        """
        self._model = model
        self._parameters = model.parameter_count
        self._plan = plan
        self._records = records
        self._paging = RecordPaging(records, plan.max_records, resident_bytes)
        self._new_total = new_total or (lambda: np.empty(self._parameters, np.float64))
        self._progress = np.zeros(1, np.int64) if progress is None else progress
        self._weights: dict[int, Tensor] = {}
        self.path = path or choose_path(model, plan, records)
        self._compiled: CompiledTraining | None = None
        if self.path.name == "compiled":
            self._compiled = CompiledTraining(
                *(model, plan, records, self.path.in_samples), new_room, self._progress
            )
        self._modules: ModuleTraining | None = None
        if self.path.name == "module":
            self._modules = ModuleTraining(
                build_torch(model), weighted_loss, plan, records, plan.device
            )
        self._kept: dict[str, _Trained] = {}
        self._residuals = ClientResiduals()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from; see `Executor.set_weights`."""
        self.require_shape(weights)
        if self._compiled is None:
            self._weights[version] = torch.tensor(weights)
        else:
            self._compiled.versions.set(version, weights, is_replaced=not self._kept)

    def require_shape(self, weights: NDArray[np.float32]) -> None:
        """Refuse what are not the model's weights."""
        if weights.shape != (self._parameters,):
            raise ValueError(
                f"weights of shape {weights.shape}; {self._model.name} has {self._parameters} "
                "parameters"
            )

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        if self._kept:
            self.forget([i for i, kept in self._kept.items() if kept.base_version < before])
        if self._compiled is not None:
            self._compiled.versions.forget(before)
        else:
            self._weights = {v: weights for v, weights in self._weights.items() if v >= before}
        if not (self._weights if self._compiled is None else self._compiled.versions):
            self._residuals.clear()

    @property
    def kernel(self) -> CompiledTraining | None:
        """What trains on the compiled path."""
        return self._compiled

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Have records read that are more than memory holds; see `Executor.expect`."""
        self._paging.expect(data_clients)

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now and keep the updates; see `Executor.train`."""
        with one_thread(), self._paging.slice_of(tasks):
            new = [task for task in tasks if task.task_id not in self._kept]
            if self._modules is not None:
                for task, update in self._by_module(new):
                    self._kept[task.task_id] = self._as_sent(task, update)
            else:
                for task in new:
                    self._kept.setdefault(task.task_id, self._trained(task))
        return [self._kept[task.task_id].statistics for task in tasks]

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates; see `Executor.reduce`."""
        columns = TaskColumns.of(tasks)
        if self._compiled is not None and self._trains_together:
            with self._paging.slice_of(columns):
                return self._compiled.reduce(columns)
        totals, statistics = self.sum_on_grid(columns)
        return reduced(columns, {v: [total] for v, total in totals.items()}, statistics)

    def sum_on_grid(
        self, tasks: TaskColumns
    ) -> tuple[dict[int, NDArray[np.float64]], StatisticsColumns]:
        """`reduce`, as it can still be added to what others sum.

        Returns:
            Sums of the finite updates by base version, where there are any, each of shape
            ``(parameters,)``; and statistics in the order of the tasks.
        """
        if self._compiled is not None and self._trains_together:
            with self._paging.slice_of(tasks):
                return self._compiled.sum_on_grid(tasks, self._new_total)
        totals: dict[int, NDArray[np.float64]] = {}
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]] = []
        with one_thread(), self._paging.slice_of(tasks):
            if self._modules is not None:
                self._sum_of_modules(tasks, totals, parts)
            else:
                self._sum_alone(tasks, totals, parts)
        statistics = StatisticsColumns.placed(tasks.task_ids, parts)
        counted = set(tasks.base_version[statistics.is_finite].tolist())
        totals = {version: total for version, total in sorted(totals.items()) if version in counted}
        return totals, statistics

    def take_turns(
        self,
        block: TaskBlock,
        found: StatisticsColumns,
        sums: NDArray[np.int64],
        is_summed: NDArray[np.bool_],
        *,
        number: int = 0,
    ) -> None:
        """Train as much of a posted arrangement as other executors leave; see `CompiledTraining`.

        Args:
            found: See `CompiledTraining.train`, as what follows.
        """
        kernel, tasks = self._kernel(), int(block.words[TASKS])
        rows, records = block.columns["row"][:tasks], block.columns["records"][:tasks]
        with self._paging.slice_of_rows(rows, records):
            kernel.train(block, kernel.versions.rows, found, sums, is_summed, number=number)

    @property
    def _trains_together(self) -> bool:
        """Whether the kernel trains tasks and sums updates that nobody sees one by one."""
        return self._plan.codec is None and not self._kept

    def _sum_alone(
        self,
        tasks: TaskColumns,
        totals: dict[int, NDArray[np.float64]],
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]],
    ) -> None:
        """Add up the updates that are kept, and those of tasks that are trained one by one.

        Where the kernel trains tasks together, those that are not kept, or are trained again.
        """
        found: list[UpdateStatistics] = []
        places: list[int] = []
        together: dict[int, tuple[NDArray[np.int64], list[int]]] = {}
        for place, task in enumerate(tasks):
            trained = self._kept.pop(task.task_id, None)
            base = None if trained is None else trained.again_from
            if trained is None and self._compiled is not None and self._plan.codec is None:
                base = self._compiled.versions.row(task.base_version)
            if base is not None:
                together.setdefault(int(base[0, 1]), (base, []))[1].append(place)
                continue
            trained = trained or self._trained(task)
            found.append(trained.statistics)
            places.append(place)
            if trained.update is not None and trained.statistics.is_finite:
                total = self._total(task.base_version, totals)
                add_update(total, trained.update, task.weight)
        if places:
            parts.append((np.array(places, np.int64), StatisticsColumns.of(found)))
        for base, group in together.values():
            total, at = self._total(int(base[0, 0]), totals), np.array(group, np.int64)
            parts.append((at, self._kernel().add(tasks.take(at), base, total)))

    def _sum_of_modules(
        self,
        tasks: TaskColumns,
        totals: dict[int, NDArray[np.float64]],
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]],
    ) -> None:
        """`_sum_alone`, of tasks that are trained many at a time."""
        given = list(tasks)
        place = {task.task_id: at for at, task in enumerate(given)}
        new = [task for task in given if task.task_id not in self._kept]
        kept = [
            (task, self._kept.pop(task.task_id)) for task in given if task.task_id in self._kept
        ]
        trained = ((task, self._as_sent(task, update)) for task, update in self._by_module(new))
        found: list[UpdateStatistics] = []
        places: list[int] = []
        for task, each in itertools.chain(kept, trained):
            found.append(each.statistics)
            places.append(place[task.task_id])
            if each.update is not None and each.statistics.is_finite:
                add_update(self._total(task.base_version, totals), each.update, task.weight)
        if places:
            parts.append((np.array(places, np.int64), StatisticsColumns.of(found)))

    def _by_module(
        self, tasks: Sequence[TrainingTask]
    ) -> Iterator[tuple[TrainingTask, LocalUpdate]]:
        """Train tasks by the torch module, those of a version together."""
        by_version: dict[int, list[TrainingTask]] = {}
        for task in tasks:
            if self._records.records[task.data_client] < 1:
                raise ClientWithoutRecords.of(task.data_client)
            by_version.setdefault(task.base_version, []).append(task)
        if self._modules is None:
            return
        for version, group in by_version.items():
            updates = self._modules.updates(self._weights[version], group)
            for task, update in zip(group, updates, strict=True):
                self._progress[0] += 1
                yield task, update

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates that were trained and are not wanted."""
        for task_id in task_ids:
            self._kept.pop(task_id, None)
            for later in self._residuals.forget(task_id):
                self._kept.pop(later, None)

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        self._residuals.count(task_ids)

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        self._residuals.forget_clients(clients)

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        return self._residuals.state()

    def restore_residuals(self, state: Mapping[str, Any], *, share: int = 0, of: int = 1) -> None:
        """Go on after `residuals`; see `ClientResiduals.restore`."""
        self._residuals.restore(state, share=share, of=of)

    def close(self) -> None:
        """Let go of everything."""
        self._weights.clear()
        self._compiled = None
        self._kept.clear()
        self._residuals.clear()

    def _total(self, version: int, totals: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        if version not in totals:
            totals[version] = self._new_total()
            totals[version].fill(0.0)
        return totals[version]

    def _trained(self, task: TrainingTask) -> "_Trained":
        if self._compiled is not None and self.path.in_samples[task.data_client]:
            # Its update is rounded as part of its group's, so the group is trained again.
            base = self._compiled.versions.row(task.base_version)
            (statistics,) = self._compiled.add(TaskColumns.of([task]), base, None)
            return _Trained(task.base_version, statistics, None, base)
        return self._as_sent(task, self.learned(task))

    def _as_sent(self, task: TrainingTask, update: LocalUpdate) -> "_Trained":
        """A task's update as its device sends it, and what is known of it."""
        if self._plan.codec is not None and update.is_finite:
            update = self._compressed(task, update, self._plan.codec)
        norm = update.norm if self._plan.outputs.norms else None
        statistics = UpdateStatistics(
            task.task_id,
            update.num_examples,
            update.train_loss,
            # Beyond this the gate refuses an update, lest the sum overflow.
            update.is_finite and task.weight * update.norm <= SUMMABLE_NORM,
            update.diverged_step,
            norm,
            update.loss_before,
            update.loss_after,
        )
        return _Trained(task.base_version, statistics, update)

    def learned(self, task: TrainingTask) -> LocalUpdate:
        """What one task changes, before its update is compressed."""
        if self._compiled is not None:
            return self._compiled.learned(task)
        x, y = self._records.of(task.data_client, newest=self._plan.max_records)
        if len(x) == 0:
            raise ClientWithoutRecords.of(task.data_client)
        self._progress[0] += 1
        return train_locally(
            self._model,
            self._plan,
            self._weights[task.base_version],
            x,
            y,
            learning_rate=task.learning_rate,
            shuffle_seed=task.shuffle_seed,
        )

    def _kernel(self) -> CompiledTraining:
        if self._compiled is None:
            raise ValueError(f"{self._model.name} is not trained by the compiled kernel")
        return self._compiled

    def _compressed(
        self, task: TrainingTask, update: LocalUpdate, codec: UpdateCodec
    ) -> LocalUpdate:
        """The update as the server decodes it; what it leaves out is kept for the client's next."""
        if not codec.error_feedback:
            return compressed(self._model, update, codec, task.shuffle_seed)
        carried = self._residuals.of(task)
        whole = update.delta if carried is None else update.delta + carried
        sent = compressed(self._model, replace(update, delta=whole), codec, task.shuffle_seed)
        self._residuals.keep(task, update.delta - sent.delta)
        return sent


@dataclass(frozen=True, slots=True)
class _Trained:
    """A task whose update is wanted.

    Attributes:
        update: None for one that is trained again with those that it is summed with.
        again_from: The version that is done from; see `Versions.row`.
    """

    base_version: int
    statistics: UpdateStatistics
    update: LocalUpdate | None
    again_from: NDArray[np.int64] | None = None
