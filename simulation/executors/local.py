"""The executor of this process: one thread, one task after the other."""

import ctypes
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
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
from simulation.executors.compiled.training import BaseVersion, CompiledTraining
from simulation.executors.compressed import compressed
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.grid_sum import add_update
from simulation.executors.modules import ModuleTraining
from simulation.executors.paths import TrainingPath, choose_path
from simulation.executors.record_paging import RecordPaging
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.shared_sums import reduced
from simulation.executors.task_board import Claims
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
        resident_bytes: int | None = None,
        progress: NDArray[np.int64] | None = None,
    ) -> None:
        """Prepare.

        Args:
            path: How to train; None means `choose_path`'s choice.
            new_total: Gives zeros to sum in, shape ``(parameters,)``; None: memory of its own.
            resident_bytes: See `RecordPaging`.
            progress: Tasks trained are counted in its first element, for whoever watches.
        """
        self._model = model
        self._parameters = model.parameter_count
        self._plan = plan
        self._records = records
        self._paging = RecordPaging(records, plan.max_records, resident_bytes)
        self._new_total = new_total or (lambda: np.zeros(self._parameters, np.float64))
        self._weights: dict[int, Tensor] = {}
        self.path = path or choose_path(model, plan, records)
        self._compiled: CompiledTraining | None = None
        if self.path.name == "compiled":
            self._compiled = CompiledTraining(model, plan, records, self.path.in_samples)
        self._modules: ModuleTraining | None = None
        if self.path.name == "module":
            self._modules = ModuleTraining(
                build_torch(model), weighted_loss, plan, records, plan.device
            )
        self._bases: dict[int, BaseVersion] = {}
        self._kept: dict[str, _Trained] = {}
        self._spare: list[NDArray[np.float64]] = []
        self._residuals = ClientResiduals()
        self._progress = np.zeros(1, np.int64) if progress is None else progress

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from; see `Executor.set_weights`."""
        if weights.shape != (self._parameters,):
            raise ValueError(
                f"weights of shape {weights.shape}; {self._model.name} has {self._parameters} "
                "parameters"
            )
        if self._compiled is None:
            self._weights[version] = torch.tensor(weights)
        else:
            self._bases[version] = self._compiled.base(weights)

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._weights = {v: weights for v, weights in self._weights.items() if v >= before}
        self._bases = {v: base for v, base in self._bases.items() if v >= before}
        self.forget([i for i, kept in self._kept.items() if kept.base_version < before])
        if not self._weights and not self._bases:
            self._residuals.clear()

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
        totals, statistics = self.sum_on_grid(columns)
        summed = reduced(columns, {v: [total] for v, total in totals.items()}, statistics)
        self._spare = list(totals.values())
        return summed

    def sum_claimed(self, tasks: TaskColumns, into: StatisticsColumns, claims: Claims) -> dict[int, NDArray[np.float64]]:
        """TEMPORARY."""
        from simulation.executors.compiled.atomic import claim_word
        totals: dict[int, NDArray[np.float64]] = {}
        taker = np.ctypeslib.as_array((ctypes.c_int64 * len(tasks)).from_address(claims.taker))
        units = []
        sampled = self.path.in_samples[tasks.data_client]
        for version in sorted(set(tasks.base_version.tolist())):
            self._total(version, totals)
            of = tasks.base_version == version
            lane = tasks.data_client % 8
            for each in range(8):
                at = np.flatnonzero(of & sampled & (lane == each))
                if len(at):
                    units.append(at)
            units.extend(np.array([i]) for i in np.flatnonzero(of & ~sampled))
        with self._paging.slice_of(tasks):
            while (unit := claim_word(claims.next)) < len(units):
                at = units[unit]
                taker[at] = claims.number
                version = int(tasks.base_version[at[0]])
                found = self._kernel().sum(self._bases[version], tasks.take(at), totals[version])
                for name in ("num_examples", "train_loss", "is_finite", "diverged_step", "update_norm", "loss_before", "loss_after"):
                    if getattr(into, name) is not None:
                        getattr(into, name)[at] = getattr(found, name)
                self._progress[0] += len(at)
        return totals

    def sum_on_grid(
        self, tasks: TaskColumns
    ) -> tuple[dict[int, NDArray[np.float64]], StatisticsColumns]:
        """`reduce`, as it can still be added to what others sum.

        Returns:
            Sums of the finite updates by base version, where there are any, each of shape
            ``(parameters,)``; and statistics in the order of the tasks.
        """
        totals: dict[int, NDArray[np.float64]] = {}
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]] = []
        together: list[tuple[BaseVersion, NDArray[np.int64]]] = []
        is_torch = self._compiled is None or self._plan.codec is not None
        with one_thread() if is_torch else nullcontext(), self._paging.slice_of(tasks):
            if is_torch or self._kept:
                together = self._sum_alone(tasks, totals, parts)
            else:
                for version in sorted(set(tasks.base_version.tolist())):
                    at = np.flatnonzero(tasks.base_version == version)
                    together.append((self._bases[version], at))
            for base, at in together:
                version = int(tasks.base_version[at[0]])
                group = tasks if len(at) == len(tasks) else tasks.take(at)
                parts.append((at, self._kernel().sum(base, group, self._total(version, totals))))
                self._progress[0] += len(at)
        statistics = (
            parts[0][1]
            if len(parts) == 1 and len(together) == 1
            else StatisticsColumns.placed(tasks.task_ids, parts)
        )
        if not statistics.is_finite.all():
            counted = set(tasks.base_version[statistics.is_finite].tolist())
            totals = {version: total for version, total in totals.items() if version in counted}
        return dict(sorted(totals.items())), statistics

    def _sum_alone(
        self,
        tasks: TaskColumns,
        totals: dict[int, NDArray[np.float64]],
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]],
    ) -> list[tuple[BaseVersion, NDArray[np.int64]]]:
        """Add up the updates that are kept, and those that must be trained one by one.

        Returns:
            Positions of the others, with the version that they are trained from together.
        """
        if self._modules is not None:
            return self._sum_of_modules(tasks, totals, parts)
        found: list[UpdateStatistics] = []
        places: list[int] = []
        together: dict[int, tuple[BaseVersion, list[int]]] = {}
        in_groups = self._compiled is not None and self._plan.codec is None
        for place, task in enumerate(tasks):
            trained = self._kept.pop(task.task_id, None)
            if trained is None and in_groups:
                base: BaseVersion | None = self._bases[task.base_version]
            else:
                base = None if trained is None else trained.again_from
            if base is not None:
                together.setdefault(id(base), (base, []))[1].append(place)
                continue
            trained = trained or self._trained(task)
            found.append(trained.statistics)
            places.append(place)
            if trained.update is not None and trained.statistics.is_finite:
                total = self._total(task.base_version, totals)
                add_update(total, trained.update, task.weight)
        if places:
            parts.append((np.array(places, np.int64), StatisticsColumns.of(found)))
        return [(base, np.array(group, np.int64)) for base, group in together.values()]

    def _sum_of_modules(
        self,
        tasks: TaskColumns,
        totals: dict[int, NDArray[np.float64]],
        parts: list[tuple[NDArray[np.int64], StatisticsColumns]],
    ) -> list[tuple[BaseVersion, NDArray[np.int64]]]:
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
        return []

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
        self._bases.clear()
        self._kept.clear()
        self._spare.clear()
        self._residuals.clear()

    def _total(self, version: int, totals: dict[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        if version not in totals:
            if self._spare:  # memory that is mapped already
                self._spare[-1].fill(0.0)
                totals[version] = self._spare.pop()
            else:
                totals[version] = self._new_total()
        return totals[version]

    def _trained(self, task: TrainingTask) -> "_Trained":
        self._progress[0] += 1
        if self._compiled is not None and self.path.in_samples[task.data_client]:
            # Its update is rounded as part of its group's, so the group is trained again.
            base = self._bases[task.base_version]
            (statistics,) = self._compiled.sum(base, TaskColumns.of([task]), None)
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
            return self._compiled.learned(self._bases[task.base_version], task)
        x, y = self._records.of(task.data_client, newest=self._plan.max_records)
        if len(x) == 0:
            raise ClientWithoutRecords.of(task.data_client)
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
        again_from: The version that is done from.
    """

    base_version: int
    statistics: UpdateStatistics
    update: LocalUpdate | None
    again_from: BaseVersion | None = None
