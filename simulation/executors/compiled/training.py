"""The compiled kernel as an executor uses it: buffers, addresses of records, groups of tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from server.aggregation.aggregator import PartialSum
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.compiled.arranging import (
    LANES,
    ONE_STEP,
    OWN_WEIGHTS,
    STEPS,
    UNKNOWN_VERSION,
    USED_ROWS,
    WITHOUT_RECORDS,
    Index,
    arrange,
)
from simulation.executors.compiled.buffers import zeros
from simulation.executors.compiled.layout import Layout
from simulation.executors.compiled.reducing import add_sums, train_units
from simulation.executors.compiled.sample_buffers import SampleBuffers
from simulation.executors.compiled.task_block import TaskBlock
from simulation.executors.compiled.turns import SIZES, note_takers, order_turns, take_again
from simulation.executors.compiled.versions import Versions
from simulation.executors.executor import Reduced, TrainingTask
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan, LocalUpdate

__all__ = ["LANES", "CompiledTraining", "why_records_do_not_fit"]

_NOT_ROUNDED = np.empty((0, 0), np.float32)
_NO_WEIGHTS = np.empty(0, np.float64)
_NO_SUM = np.zeros(1, np.int64)


class CompiledTraining:
    """Trains tasks of one model and plan on one thread, in buffers of its own.

    Attributes:
        versions: That tasks start from.

    Args:
        model: One that `why_not_compiled` has nothing against.
        records: In rows without gaps, float32 or int32 as the model takes them.
        in_samples: Which data clients are trained in sample space, shape ``(clients,)``.
        new_room: See `Versions`.
        progress: Tasks trained are counted in its first element; None: in one of its own.
    """

    def __init__(
        self,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        in_samples: NDArray[np.bool_],
        new_room: Callable[[], NDArray[np.float32]] | None = None,
        progress: NDArray[np.int64] | None = None,
    ) -> None:
        _require_rows(records)
        self._parameters = model.parameter_count
        self._outputs = plan.outputs
        counts = np.minimum(records.records, plan.max_records)
        takes_steps = (counts > plan.batch_size) | (plan.local_epochs > 1)
        kind = np.where(in_samples, np.where(takes_steps, STEPS, ONE_STEP), OWN_WEIGHTS)
        # What the kernel has addresses of stays here.
        self._read = (
            records.x,
            records.y,
            np.ascontiguousarray(records.first_row, np.int64),
            np.ascontiguousarray(records.records, np.int64),
            kind.astype(np.int8),
        )
        x, y, first_row, held, kinds = (each.ctypes.data for each in self._read)
        self._index = np.array(
            Index(len(records), first_row, held, kinds, plan.max_records), np.int64
        )
        most = max(1, min(int(records.records.max(initial=1)), plan.max_records))
        self._layout = layout = Layout.of(model, min(plan.batch_size, most))
        rows = min(layout.table_rows, most * layout.slots)
        self._buffers: dict[str, NDArray[Any]] = {
            "moved": zeros(len(layout.levels) + 1, np.float64),
            "local": zeros(layout.padded, np.float32),
            "values": zeros(layout.values, np.float32),
            "gradients": zeros(layout.values, np.float32),
            "labels": zeros(layout.capacity * model.label_shape[0], np.float32),
            "order": zeros(most, np.int64),
            "drawn": zeros(4, np.uint64),
            "table": zeros(rows * layout.table_width, np.float32),
            "row_of_id": np.full(layout.table_rows, -1, np.int32),
            "used": zeros(rows, np.int32),
            "rows": zeros(most * layout.slots, np.int32),
        }
        network = (
            layout.first,
            len(layout.layers),
            layout.padded,
            model.label_shape[0],
            layout.slots,
            layout.bag_bias,
            layout.table_width,
            layout.table_rows,
            *(each.ctypes.data for each in self._buffers.values()),
        )
        asked = (int(plan.outputs.losses), int(plan.outputs.norms))
        of_plan = (
            plan.local_epochs, plan.batch_size, *asked,
            x, records.x.strides[0], y, records.y.strides[0],
        )  # fmt: skip
        fixed = np.array((*network, *of_plan), np.int64)
        layers, levels = np.array(layout.layers, np.int64), np.array(layout.levels, np.int64)
        space, rooms = np.zeros(0, np.int64), np.zeros((0, 0), np.int64)
        if in_samples.any():
            most = int(counts[in_samples].max())
            self._samples = SampleBuffers(layout, most * plan.local_epochs, most)
            space, rooms = self._samples.numbers, self._samples.rooms
        self._kernel = (fixed, layers, levels, space, rooms, plan.proximal_mu, SUMMABLE_NORM)
        self.versions = Versions(layout, fixed, layers, new_room)
        self._progress = np.zeros(1, np.int64) if progress is None else progress
        self._progress_address = self._progress.ctypes.data
        self._sums: list[NDArray[np.float64]] = []
        self._sum_addresses = np.zeros(0, np.int64)
        self._block = TaskBlock(64)
        self._sizes = np.empty(SIZES + 1, np.int64)

    def reduce(self, tasks: TaskColumns) -> Reduced:
        """Train tasks and sum the finite updates of each base version; see `Executor.reduce`."""
        versions = self.versions.rows
        groups = self._arranged(tasks, versions)
        while len(self._sums) < groups:
            self._sums.append(zeros(self._parameters, np.float64))
            self._sum_addresses = np.array([s.ctypes.data for s in self._sums], np.int64)
        rounded = np.empty((groups, self._parameters), np.float32)
        found = StatisticsColumns.room(tasks.task_ids, self._outputs)
        is_summed = np.zeros(groups, np.bool_)
        not_finite = self.train(
            *(self._block, versions, found, self._sum_addresses, is_summed, tasks),
            rounded=rounded,
        )
        return _reduced(tasks, self._block, rounded, found, not_finite)

    def post(self, tasks: TaskColumns, block: TaskBlock) -> int:
        """Arrange tasks for executors to `train`; returns how many versions they start from.

        Raises:
            KeyError: If a version is not known.
            IndexError: If there is no such client.
            ClientWithoutRecords: If a client has none.
        """
        groups = self._arrange(tasks, self.versions.rows, block)
        order_turns(block.address, block.capacity, self._sizes)
        return groups

    def take_again(self, block: TaskBlock, is_dead: NDArray[np.bool_]) -> bool:
        """Have what dead executors have taken be trained by others; returns whether there is any.

        Args:
            is_dead: By executor.
        """
        return take_again(block.address, block.capacity, is_dead) > 0

    def put_together(
        self,
        tasks: TaskColumns,
        block: TaskBlock,
        found: StatisticsColumns,
        sums: NDArray[np.int64],
    ) -> Reduced:
        """What executors have summed of the tasks that were posted.

        Args:
            found: What they have written of these, in the order of the tasks.
            sums: Addresses of their sums of each group, shape ``(groups, executors)``; the first
                executor's memory is used.
        """
        has_taken = np.empty(sums.shape, np.bool_)
        note_takers(block.address, block.capacity, has_taken)
        rounded = np.empty((len(sums), self._parameters), np.float32)
        not_finite = add_sums(
            *(block.address, block.capacity, sums * has_taken),
            *(tasks.weight, found.is_finite, rounded),
        )
        return _reduced(tasks, block, rounded, found, not_finite)

    def sum_on_grid(
        self,
        tasks: TaskColumns,
        new_total: Callable[[], NDArray[np.float64]],
    ) -> tuple[dict[int, NDArray[np.float64]], StatisticsColumns]:
        """`reduce`, as it can still be added to what others sum.

        Args:
            new_total: Gives room for a sum, shape ``(parameters,)``.
        """
        versions = self.versions.rows
        groups = self._arranged(tasks, versions)
        totals = [new_total() for _ in range(groups)]
        sums = np.array([total.ctypes.data for total in totals], np.int64)
        found = StatisticsColumns.room(tasks.task_ids, self._outputs)
        numbers = self._block.version[:groups].tolist()
        summed = dict(zip(numbers, totals, strict=True))
        self.train(self._block, versions, found, sums, np.zeros(groups, np.bool_), tasks)
        if not found.is_finite.all():
            counted = set(tasks.base_version[found.is_finite].tolist())
            summed = {version: total for version, total in summed.items() if version in counted}
        return summed, found

    def add(
        self,
        tasks: TaskColumns,
        version: NDArray[np.int64],
        total: NDArray[np.float64] | None,
    ) -> StatisticsColumns:
        """Train tasks of one version and add their finite updates up.

        Args:
            version: See `Versions.row`.
            total: In wire order, shape ``(parameters,)``; changed in place. None for none.
        """
        self._arranged(tasks, version)
        found = StatisticsColumns.room(tasks.task_ids, self._outputs)
        sums = _NO_SUM if total is None else np.array([total.ctypes.data], np.int64)
        self.train(self._block, version, found, sums, np.ones(1, np.bool_), tasks)
        return found

    def learned(self, task: TrainingTask) -> LocalUpdate:
        """Train one task and copy its update."""
        tasks = TaskColumns.of([task])
        (found,) = self.add(tasks, self.versions.row(task.base_version), None)
        norm, used, width = (
            found.update_norm,
            int(self._block.words[USED_ROWS]),
            self._layout.table_width,
        )
        table = self._buffers["table"][: used * width]
        rows = None
        if self._layout.table_rows:
            ids = self._buffers["used"][:used].astype(np.int64)
            ascending = np.argsort(ids)
            rows, table = ids[ascending], table.reshape(used, width)[ascending].ravel()
        delta = np.concatenate([table, self._layout.unpack(self._buffers["local"])])
        return LocalUpdate(
            delta=delta,
            rows=rows,
            row_width=width,
            num_examples=found.num_examples,
            norm=float(self._block.unasked[0, 0]) if norm is None else norm,
            train_loss=found.train_loss,
            loss_before=found.loss_before,
            loss_after=found.loss_after,
            is_finite=found.is_finite,
            diverged_step=found.diverged_step,
        )

    def train(
        self,
        block: TaskBlock,
        versions: NDArray[np.int64],
        found: StatisticsColumns,
        sums: NDArray[np.int64],
        is_summed: NDArray[np.bool_],
        tasks: TaskColumns | None = None,
        *,
        number: int = 0,
        rounded: NDArray[np.float32] = _NOT_ROUNDED,
    ) -> int:
        """Train what has been arranged, or as much of it as other executors leave.

        Args:
            found: Where outcomes are written, at the tasks' positions.
            sums: See `train_units`, as ``is_summed`` and ``rounded``.
            tasks: Those arranged, if sums are rounded.
            number: Of this executor.

        Returns:
            How many updates are not finite, if sums are rounded.
        """
        norm, before, after, unasked = (
            *(found.update_norm, found.loss_before, found.loss_after),
            block.unasked,
        )
        not_finite = train_units(
            *self._kernel, versions, block.address, block.capacity,
            _NO_WEIGHTS if tasks is None else tasks.weight,
            found.num_examples, found.train_loss, found.is_finite, found.diverged_step,
            unasked[0] if norm is None else norm,
            unasked[1] if before is None else before,
            unasked[2] if after is None else after,
            sums, is_summed, number, self._progress_address, rounded,
        )  # fmt: skip
        if not_finite < 0:
            whose = ""
            if tasks is not None:
                whose = f"data client {tasks.data_client[-1 - not_finite]}: "
            raise ValueError(
                f"{whose}a record has an id beyond the {self._layout.table_rows} of the table"
            )
        return not_finite

    def _arranged(self, tasks: TaskColumns, versions: NDArray[np.int64]) -> int:
        """Arrange tasks for this executor alone; returns how many versions they start from."""
        if len(tasks) > self._block.capacity:
            self._block = TaskBlock(2 * len(tasks))
        return self._arrange(tasks, versions, self._block)

    def _arrange(self, tasks: TaskColumns, versions: NDArray[np.int64], block: TaskBlock) -> int:
        """Write the tasks' arrangement; returns how many versions they start from."""
        groups = arrange(
            self._index, tasks.data_client, tasks.base_version, tasks.weight, tasks.learning_rate,
            tasks.shuffle_seed, versions, block.address, block.capacity,
        )  # fmt: skip
        if groups < 0:
            place, why = divmod(-groups, 4)
            client = int(tasks.data_client[place])
            if why == UNKNOWN_VERSION:
                raise KeyError(int(tasks.base_version[place]))
            if why == WITHOUT_RECORDS:
                raise ClientWithoutRecords.of(client)
            raise IndexError(f"there is no data client {client}")
        return groups


def _reduced(
    tasks: TaskColumns,
    block: TaskBlock,
    rounded: NDArray[np.float32],
    found: StatisticsColumns,
    not_finite: int,
) -> Reduced:
    """As an `Executor` answers.

    Args:
        rounded: Sum of each group, shape ``(groups, parameters)``.
        not_finite: How many updates are in none.
    """
    numbers, weights, ids = block.version, block.group_weight, tasks.task_ids
    if len(rounded) == 1 and not_finite == 0:
        whole = PartialSum(numbers.item(0), rounded[0], weights.item(0), ids)
        return Reduced((whole,), found)
    of_groups = _ids(tasks, block, len(rounded), None if not_finite == 0 else found.is_finite)
    sums = (
        PartialSum(numbers.item(group), rounded[group], weights.item(group), its_ids)
        for group, its_ids in enumerate(of_groups)
        if its_ids
    )
    return Reduced(tuple(sums), found)


def _ids(
    tasks: TaskColumns, block: TaskBlock, groups: int, is_finite: NDArray[np.bool_] | None
) -> list[Sequence[str]]:
    """Of each group's tasks whose updates are finite."""
    found: list[Sequence[str]] = []
    begin = 0
    for end in block.group_end[:groups].tolist():
        places = block.grouped[begin:end]
        found.append(tasks.ids_of(places if is_finite is None else places[is_finite[places]]))
        begin = end
    return found


def why_records_do_not_fit(model: ModelSpec, records: ClientRecords) -> str | None:
    """Why the kernel cannot read records where they lie, or None if it can."""
    dtype = np.dtype(np.float32 if model.ids is None else np.int32)
    for name, array, kind, shape in (
        ("x", records.x, dtype, model.input.shape),
        ("y", records.y, np.dtype(np.float32), model.label_shape),
    ):
        if array.dtype != kind or array.shape[1:] != shape:
            return f"{name} is {array.dtype}{array.shape[1:]} a record"
        if not array.flags.c_contiguous:
            return f"{name} does not lie in rows without gaps"
    return None


def _require_rows(records: ClientRecords) -> None:
    """Refuse rows that are not there: the kernel reads where it is told to."""
    ends = records.first_row + records.records
    if (ends > min(len(records.x), len(records.y))).any():
        client = int(np.argmax(ends))
        raise ValueError(
            f"data client {client} has rows up to {ends[client]}, of {len(records.x)} records and "
            f"{len(records.y)} labels"
        )
