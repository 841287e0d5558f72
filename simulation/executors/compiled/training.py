"""The compiled kernel as an executor uses it: buffers, addresses of records, groups of tasks."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from server.update_gate.content import SUMMABLE_NORM
from simulation.executors.compiled.clients import (
    Clients,
    Outcomes,
    Plan,
    sum_clients,
)
from simulation.executors.compiled.layout import BAG, Layout
from simulation.executors.compiled.network import Network
from simulation.executors.compiled.packing import pack
from simulation.executors.compiled.sample_buffers import SampleBuffers
from simulation.executors.compiled.sample_space import sum_samples
from simulation.executors.executor import TrainingTask
from simulation.executors.records import ClientRecords, ClientWithoutRecords
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan, LocalUpdate

LANES = 8
"""Clients trained in sample space are summed by the lane they are in, whatever executor has it."""


class BaseVersion:
    """A version's parameters as the kernel reads them.

    Attributes:
        packed: Padded dense parameters.
        table: The first layer's table, ``(table rows, table width)``; without one, of no rows.
        norms: See `pack`, shape ``(1 + layers,)``.
        network: A kernel's network with these as its base.
    """

    def __init__(self, layout: Layout, network: Network, weights: NDArray[np.float32]) -> None:
        weights = np.ascontiguousarray(weights, np.float32)
        self.packed = np.zeros(layout.padded, np.float32)
        self.norms = np.empty(1 + len(layout.layers), np.float64)
        packed, norms = self.packed.ctypes.data, self.norms.ctypes.data
        pack(weights.ctypes.data, packed, norms, network.layers)
        rows, width = layout.table_rows, layout.table_width
        self.table = weights[: rows * width].copy().reshape(rows, width)
        if layout.first == BAG:
            bias = weights[rows * width : (rows + 1) * width]
            self.packed[layout.bag_bias : layout.bag_bias + width] = bias
        self.network = network._replace(
            base=packed, base_table=self.table.ctypes.data, base_norms=norms
        )


class CompiledTraining:
    """Trains tasks of one model and plan on one thread, in buffers of its own.

    Args:
        model: One that `why_not_compiled` has nothing against.
        records: In rows without gaps, float32 or int32 as the model takes them.
        in_samples: Which data clients are trained in sample space, shape ``(clients,)``.
    """

    def __init__(
        self,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        in_samples: NDArray[np.bool_],
    ) -> None:
        self._records = records
        self._first_x, self._first_y = records.x.ctypes.data, records.y.ctypes.data
        self._stride_x, self._stride_y = records.x.strides[0], records.y.strides[0]
        self._in_samples = in_samples if in_samples.any() else None
        self._samples: SampleBuffers | None = None
        _require_rows(records)
        counts = np.minimum(records.records, plan.max_records)
        self._takes_steps = (counts > plan.batch_size) | (plan.local_epochs > 1)
        self._most_in_samples = int(counts[in_samples].max(initial=0))
        self._max_records = plan.max_records
        self._parameters = model.parameter_count
        self._outputs = plan.outputs
        self._plan = Plan(
            plan.local_epochs,
            plan.batch_size,
            plan.proximal_mu,
            int(plan.outputs.losses),
            int(plan.outputs.norms),
        )
        most = max(1, min(int(records.records.max(initial=1)), plan.max_records))
        self._layout = layout = Layout.of(model, min(plan.batch_size, most))
        rows = min(layout.table_rows, most * layout.slots)
        buffers: dict[str, NDArray[Any]] = {
            "local": np.zeros(layout.padded, np.float32),
            "values": np.zeros(layout.values, np.float32),
            "gradients": np.zeros(layout.values, np.float32),
            "moved": np.zeros(len(layout.levels) + 1, np.float64),
            "labels": np.empty(layout.capacity * model.label_shape[0], np.float32),
            "order": np.empty(most, np.int64),
            "drawn": np.empty(4, np.uint64),
            "table": np.empty(rows * layout.table_width, np.float32),
            "row_of_id": np.full(layout.table_rows, -1, np.int32),
            "used": np.empty(rows, np.int32),
            "rows": np.empty(most * layout.slots, np.int32),
        }
        self._buffers = buffers
        addresses: dict[str, Any] = {name: each.ctypes.data for name, each in buffers.items()}
        self._network = Network(
            first=layout.first,
            top=len(layout.layers),
            layers=np.array(layout.layers, np.int64),
            levels=np.array(layout.levels, np.int64),
            size=layout.padded,
            base=0,
            base_table=0,
            base_norms=0,
            tasks=model.label_shape[0],
            slots=layout.slots,
            bag_bias=layout.bag_bias,
            width=layout.table_width,
            table_rows=layout.table_rows,
            **addresses,
        )

    def base(self, weights: NDArray[np.float32]) -> BaseVersion:
        """A version to train from; the weights are copied."""
        return BaseVersion(self._layout, self._network, weights)

    def learned(self, base: BaseVersion, task: TrainingTask) -> LocalUpdate:
        """Train one task and copy its update."""
        tasks = TaskColumns.of([task])
        clients, found = self._columns(tasks), _outcomes(1)
        if self._in_samples is not None and self._in_samples[task.data_client]:
            self._sum_samples(base, clients, np.zeros(1, np.int64), None, found)
        else:
            self._sum_clients(base, clients, None, found)
        self._check_ids(tasks, found)
        used, width = int(found.used[0]), self._layout.table_width
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
            num_examples=int(clients.records[0]),
            norm=math.sqrt(found.squared_norm[0]),
            train_loss=float(found.train_loss[0]),
            loss_before=float(found.loss_before[0]) if self._outputs.losses else None,
            loss_after=float(found.loss_after[0]) if self._outputs.losses else None,
            is_finite=bool(found.summable[0]),
            diverged_step=int(found.diverged[0]),
        )

    def sum(
        self, base: BaseVersion, tasks: TaskColumns, total: NDArray[np.float64] | None
    ) -> StatisticsColumns:
        """Train tasks of one base version and add their finite updates up.

        Those trained in sample space are summed in an order of their own, lane by lane: the sum of
        a lane is rounded as it would be in any other process.

        Args:
            total: In wire order, shape ``(parameters,)``; changed in place. None for none.
        """
        clients, found = self._columns(tasks), _outcomes(len(tasks))
        in_samples = None if self._in_samples is None else self._in_samples[tasks.data_client]
        if in_samples is not None and in_samples.any():
            together = self._places(tasks, np.flatnonzero(in_samples))
            lanes = tasks.data_client[together] % LANES
            for at, its_lanes in ((np.flatnonzero(~in_samples), None), (together, lanes)):
                if len(at) == 0:
                    continue
                part = Clients._make(column[at] for column in clients)
                of_part = _outcomes(len(at))
                if its_lanes is None:
                    self._sum_clients(base, part, total, of_part)
                else:
                    self._sum_samples(base, part, its_lanes, total, of_part)
                for column, values in zip(found, of_part, strict=True):
                    column[at] = values
        else:
            self._sum_clients(base, clients, total, found)
        self._check_ids(tasks, found)
        return self._statistics(tasks, clients, found)

    def _places(self, tasks: TaskColumns, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tasks in sample space in the order in which they are summed: lane by lane.

        In a lane those of one step come first, then by client; a client's own by their ids.
        """
        client = tasks.data_client[chosen]
        if len(np.unique(client)) < len(client):
            ids = tasks.task_ids
            chosen = np.array(sorted(chosen.tolist(), key=lambda place: ids[place]), np.int64)
            client = tasks.data_client[chosen]
        return chosen[np.lexsort((client, self._takes_steps[client], client % LANES))]

    def _sum_clients(
        self,
        base: BaseVersion,
        clients: Clients,
        total: NDArray[np.float64] | None,
        found: Outcomes,
    ) -> None:
        address = 0 if total is None else total.ctypes.data
        sum_clients(base.network, self._plan, clients, SUMMABLE_NORM, address, found)

    def _sum_samples(
        self,
        base: BaseVersion,
        clients: Clients,
        lanes: NDArray[np.int64],
        total: NDArray[np.float64] | None,
        found: Outcomes,
    ) -> None:
        if self._samples is None:
            most = self._most_in_samples
            self._samples = SampleBuffers(self._layout, most * self._plan.epochs, most)
        address = 0 if total is None else total.ctypes.data
        sum_samples(
            base.network._replace(labels=self._samples.step_labels), self._samples.addresses,
            self._plan, clients, lanes, SUMMABLE_NORM, address, found,
        )  # fmt: skip

    def _check_ids(self, tasks: TaskColumns, found: Outcomes) -> None:
        if self._layout.table_rows and found.used.min(initial=0) < 0:
            client = tasks.data_client[int(found.used.argmin())]
            raise ValueError(
                f"data client {client} has an id beyond the {self._layout.table_rows} of the table"
            )

    def _columns(self, tasks: TaskColumns) -> Clients:
        records, data_client = self._records, tasks.data_client
        held = records.records.take(data_client)
        count = np.minimum(held, self._max_records)
        if not count.all():
            raise ClientWithoutRecords.of(int(data_client[np.argmin(count)]))
        row = records.first_row.take(data_client) + held - count
        return Clients(
            x=self._first_x + row * self._stride_x,
            y=self._first_y + row * self._stride_y,
            records=count,
            rate=np.ascontiguousarray(tasks.learning_rate),
            seed=np.ascontiguousarray(tasks.shuffle_seed),
            weight=np.ascontiguousarray(tasks.weight),
        )

    def _statistics(
        self, tasks: TaskColumns, clients: Clients, found: Outcomes
    ) -> StatisticsColumns:
        losses, norms = self._outputs.losses, self._outputs.norms
        return StatisticsColumns(
            tasks.task_ids,
            clients.records,
            found.train_loss,
            found.summable > 0,
            found.diverged,
            np.sqrt(found.squared_norm) if norms else None,
            found.loss_before if losses else None,
            found.loss_after if losses else None,
        )


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


def _outcomes(tasks: int) -> Outcomes:
    numbers = np.empty((4, tasks), np.float64)
    numbers.fill(np.nan)
    return Outcomes(*numbers, *np.zeros((3, tasks), np.int64))
