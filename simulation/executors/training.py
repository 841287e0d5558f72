"""Local training of one simulated client's task: what its device would upload, and its losses."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from device_runtime.compression import UpdateCodec
from device_runtime.training_plan import epoch_order
from modeling.spec import HashedBag, ModelSpec
from server.job import ClientTraining
from server.update_gate.content import sum_of_squares
from simulation.executors.executor import ClientOutputs
from simulation.executors.layers import TrainableLayer, build_layers, descend, forward
from simulation.executors.prepared import BagRecords, Batch, DenseRecords, Prepared

_NOTHING_MORE = ClientOutputs()
_FAR_FROM_OVERFLOW = 1e30
"""Of float32, whose largest number is 3.4e38."""
_LARGEST_FROZEN = 1e4
"""Above any number of a frozen table, for `_is_far_from_overflow`."""


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What every task of a job does; see `device_runtime.training_plan.TrainingPlan`.

    Attributes:
        outputs: What is computed of each update besides.
        by_module: Train by the model's torch module, whatever is faster.
        device: Of that module: ``cpu`` or ``cuda``.
    """

    local_epochs: int
    batch_size: int
    max_records: int
    proximal_mu: float = 0.0
    codec: UpdateCodec | None = None
    outputs: ClientOutputs = _NOTHING_MORE
    by_module: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    @classmethod
    def of(
        cls,
        client: ClientTraining,
        outputs: ClientOutputs = _NOTHING_MORE,
        *,
        by_module: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> Self:
        """The part of a job's ``client`` block that all tasks have in common, and how to train."""
        return cls(
            client.local_epochs,
            client.batch_size,
            client.max_records,
            client.proximal_mu,
            client.compression.codec,
            outputs,
            by_module,
            device,
        )


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """Local minus base parameters of one task, without the table rows it could not change.

    Attributes:
        delta: In wire order, a table cut to ``rows``, raveled; shape ``(trained parameters,)``.
        rows: Rows of the first layer's table, ascending, or None for a model without a table.
        row_width: Columns of that table; 0 without.
        norm: L2 norm of the delta; NaN or infinite when some value is.
        train_loss: See `UpdateStatistics`, as for what follows.
        loss_before: Mean loss over the task's records at the base parameters.
        loss_after: The same at the local parameters.
        is_finite: Whether training stayed in numbers, as a device decides it.
    """

    delta: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    row_width: int
    num_examples: int
    norm: float
    train_loss: float
    loss_before: float | None
    loss_after: float | None
    is_finite: bool
    diverged_step: int = 0

    def dense(self, parameters: int) -> NDArray[np.float32]:
        """The whole delta, shape ``(parameters,)``."""
        if self.rows is None:
            return self.delta
        trained = self.rows.size * self.row_width
        rest = self.delta[trained:]
        whole = np.zeros(parameters, np.float32)
        table = whole[: parameters - rest.size].reshape(-1, self.row_width)
        table[self.rows] = self.delta[:trained].reshape(-1, self.row_width)
        whole[parameters - rest.size :] = rest
        return whole


def train_locally(
    model: ModelSpec,
    plan: LocalPlan,
    base: Tensor,
    x: NDArray[Any],
    y: NDArray[np.float32],
    *,
    learning_rate: float,
    shuffle_seed: int,
) -> LocalUpdate:
    """Train as `device_runtime.training.TrainingSession` does, on the records given.

    Plain SGD over ``local_epochs`` epochs, each in its own order, the last batch short; FedProx's
    pull (Li et al., MLSys 2020) towards the base if ``plan.proximal_mu``.

    Args:
        base: Base parameters, flat in wire order, shape ``(parameters,)``; not changed.
        x: Records, shape ``(records, *input shape)``; at least one.
        y: Labels, shape ``(records, *label shape)``.
    """
    prepared = prepare(model, x)
    start, shapes = _cut_to_records(model, base, prepared)
    local = start.clone()
    layers = build_layers(model, _views(local, shapes))
    labels = torch.tensor(y)
    count = len(labels)
    loss_before = total_loss(layers, prepared, y) / count if plan.outputs.losses else None
    pull = learning_rate * plan.proximal_mu
    away = torch.empty_like(local)
    of_steps: list[Tensor] = []
    for epoch in range(plan.local_epochs):
        order = epoch_order(count, shuffle_seed, epoch)
        batch_labels = torch.split(labels[torch.from_numpy(order)], plan.batch_size)
        batches: Iterator[Batch] = prepared.batches(order, plan.batch_size)
        for inputs, wanted in zip(batches, batch_labels, strict=True):
            if pull:
                torch.sub(local, start, out=away)
            of_steps.append(descend(layers, inputs, wanted, learning_rate))
            if pull:
                local.sub_(away, alpha=pull)
    largest = float(max(start.abs().max(), local.abs().max(), torch.ones(())))
    loss_after = total_loss(layers, prepared, y) / count if plan.outputs.losses else None
    if loss_after is None and not _is_far_from_overflow(model, largest, x):
        # As its device, which looks at the loss after.
        losses_are_finite = math.isfinite(total_loss(layers, prepared, y))
    else:
        losses_are_finite = loss_after is None or math.isfinite(loss_after)
    delta = local.sub_(start).numpy()
    norm = math.sqrt(sum_of_squares([delta]))
    steps = torch.stack(of_steps).numpy().astype(np.float64)
    wrong_steps = np.flatnonzero(~np.isfinite(steps))
    return LocalUpdate(
        delta=delta,
        rows=prepared.used_buckets if isinstance(prepared, BagRecords) else None,
        row_width=shapes[0][1] if isinstance(prepared, BagRecords) else 0,
        num_examples=count,
        norm=norm,
        train_loss=float(steps.sum()) / (count * plan.local_epochs),
        loss_before=loss_before,
        loss_after=loss_after,
        is_finite=math.isfinite(norm) and losses_are_finite,
        diverged_step=int(wrong_steps[0]) + 1 if len(wrong_steps) else 0,
    )


def _is_far_from_overflow(model: ModelSpec, largest: float, x: NDArray[Any]) -> bool:
    """Whether no value of a forward pass can leave float32, whatever the records.

    A layer's output is at most the number of its inputs times the largest of them and the largest
    parameter.

    Args:
        largest: Of the parameters' absolute values, at least 1.
        x: Records, shape ``(records, *input shape)``.
    """
    if model.ids is None:
        reach = float(np.abs(x).max(initial=1.0))
    else:
        reach = float(model.input.shape[0]) * max(largest, _LARGEST_FROZEN)
    for parameter in model.parameters:
        if len(parameter.shape) > 1:
            reach *= largest * (parameter.shape[0] + 1)
    return reach <= _FAR_FROM_OVERFLOW


def prepare(model: ModelSpec, x: NDArray[Any]) -> Prepared:
    """Records in the form the model's first layer takes."""
    first = model.layers[0]
    return BagRecords.of(x, first.buckets) if isinstance(first, HashedBag) else DenseRecords(x)


def total_loss(
    layers: Sequence[TrainableLayer], prepared: Prepared, y: NDArray[np.float32]
) -> float:
    """Sum of the records' binary cross-entropies, in float64."""
    logits = forward(layers, prepared.all()).numpy().astype(np.float64)
    return binary_cross_entropy(logits, y)


def logits_of(model: ModelSpec, weights: Tensor, prepared: Prepared) -> NDArray[np.float64]:
    """Logits of all prepared records, shape ``(records, *label shape)``.

    Args:
        weights: Flat in wire order, shape ``(parameters,)``.
    """
    cut, shapes = _cut_to_records(model, weights, prepared)
    layers = build_layers(model, _views(cut, shapes))
    return forward(layers, prepared.all()).numpy().astype(np.float64)


def binary_cross_entropy(logits: NDArray[np.float64], y: NDArray[np.float32]) -> float:
    """Sum over records of ``log(1 + exp(z)) - y z``, in float64."""
    with np.errstate(invalid="ignore"):  # a diverged model's losses are NaN, which is the answer
        return float(np.sum(np.logaddexp(0.0, logits) - y * logits))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread and without autograd: equal bits on machines of any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def _cut_to_records(
    model: ModelSpec, base: Tensor, prepared: Prepared
) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Parameters that these records can change, flat; and their shapes."""
    shapes = [parameter.shape for parameter in model.parameters]
    if not isinstance(prepared, BagRecords):
        return base, shapes
    buckets, width = shapes[0]
    used = torch.from_numpy(prepared.used_buckets)
    trained = used.numel() * width
    tail = base[buckets * width :]
    cut = torch.empty(trained + tail.numel())
    table = base[: buckets * width].view(buckets, width)
    torch.index_select(table, 0, used, out=cut[:trained].view(-1, width))
    cut[trained:] = tail
    return cut, [(used.numel(), width), *shapes[1:]]


def _views(flat: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    sizes = [math.prod(shape) for shape in shapes]
    parts = torch.split(flat, sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
