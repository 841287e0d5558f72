"""Local training of any torch module on the CPU or a GPU: autograd, many clients at a time or one.

Nothing is asked of a module but its parameters, in wire order, and logits for a batch of records.
On a GPU what costs is calls: there each step of many clients is one call, their parameters stacked
(``torch.func.vmap`` over ``grad``; clients sorted by how many steps they take, short batches
masked). The last bits of a stacked product depend on what is stacked with it, so results of a GPU
are not the same to the bit for any number of executors, as those of all other ways are. On a CPU it
is the loop: stacked, models of up to some ten thousand parameters would be up to 4.5 times faster
and larger ones slower, but the models of a job have faster ways there, which keep their bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from device_runtime.errors import FlintError
from device_runtime.training_plan import epoch_order
from server.update_gate.content import sum_of_squares
from simulation.executors.executor import TrainingTask
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan, LocalUpdate

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Mean loss of a batch: of logits, labels, and a weight for each record, 0 to leave it out."""

_STACK_BYTES = 256 * 2**20
"""Of the parameters that are stacked."""
_MOST_STACKED = 1024


class NoSuchDevice(FlintError):
    """Training is asked for on a device that this machine's torch does not have."""

    code = "FLN-3050"


class ModuleNotTrainable(FlintError):
    """A module that clients cannot train: it keeps state beside its parameters."""

    code = "FLN-3051"


class ModuleTraining:
    """Trains tasks of one module and plan.

    Args:
        module: In a state that does not matter; its parameters are replaced, never changed.
        device: ``cpu`` or ``cuda``.
        stacks: Whether many clients are trained at a time; None: on a GPU only.

    Raises:
        NoSuchDevice: If there is no such device.
        ModuleNotTrainable: If the module keeps running statistics, as batch norm does.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        plan: LocalPlan,
        records: ClientRecords,
        device: str,
        *,
        stacks: bool | None = None,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise NoSuchDevice(
                "training.device is cuda, but torch finds no GPU on this machine; install a torch "
                "for CUDA and its driver, or leave device out of the environment's training block"
            )
        for name, part in module.named_modules():
            if getattr(part, "track_running_stats", False):
                raise ModuleNotTrainable(
                    f"layer {name} keeps statistics of batches ({type(part).__name__}), which no "
                    "sum of updates carries; use group or layer normalisation in its place"
                )
        self._device = torch.device(device)
        self._module = module.to(self._device)
        self._loss = loss
        self._plan = plan
        self._records = records
        self._shapes = {name: p.shape for name, p in self._module.named_parameters()}
        self._parameters = sum(math.prod(shape) for shape in self._shapes.values())
        self.stacks = device != "cpu" if stacks is None else stacks
        self._together = 1
        if self.stacks:
            self._together = min(_MOST_STACKED, max(1, _STACK_BYTES // (8 * self._parameters)))

    def updates(self, base: Tensor, tasks: Sequence[TrainingTask]) -> Iterator[LocalUpdate]:
        """Train tasks of one base version; as many updates are in memory as are stacked.

        Args:
            base: Flat in wire order, shape ``(parameters,)``.

        Yields:
            An update for each task, in their order.
        """
        with torch.inference_mode(False):
            start = base.clone().to(self._device)
            for begin in range(0, len(tasks), self._together):
                yield from self._train(start, tasks[begin : begin + self._together])

    def _train(self, start: Tensor, tasks: Sequence[TrainingTask]) -> list[LocalUpdate]:
        drawn = [_Drawn.of(self._records, self._plan, task) for task in tasks]
        most_steps_first = sorted(range(len(tasks)), key=lambda i: -drawn[i].steps)
        chosen = [drawn[i] for i in most_steps_first]
        rates = torch.tensor([tasks[i].learning_rate for i in most_steps_first])
        rates = rates.to(self._device, torch.float32)
        local = start.repeat(len(tasks), 1)
        outputs = self._plan.outputs
        before = self._mean_losses(local, chosen) if outputs.losses else [None] * len(tasks)
        of_steps: list[list[float]] = [[] for _ in tasks]
        for step in range(chosen[0].steps):
            active = sum(each.steps > step for each in chosen)
            gradients, losses = self._gradients(local[:active], chosen[:active], step)
            if self._plan.proximal_mu:
                gradients = gradients + self._plan.proximal_mu * (local[:active] - start)
            local[:active] -= rates[:active, None] * gradients
            for found, value in zip(of_steps, losses.tolist(), strict=False):
                found.append(value)
        after = self._mean_losses(local, chosen)
        deltas = (local - start).cpu().numpy()
        updates: list[LocalUpdate | None] = [None] * len(tasks)
        for at, place in enumerate(most_steps_first):
            delta, loss_after = deltas[at], after[at]
            norm = math.sqrt(sum_of_squares([delta]))
            wrong = [not math.isfinite(value) for value in of_steps[at]]
            updates[place] = LocalUpdate(
                delta=delta,
                rows=None,
                row_width=0,
                num_examples=len(chosen[at].x),
                norm=norm,
                train_loss=chosen[at].mean_of_steps(of_steps[at]),
                loss_before=before[at],
                loss_after=loss_after if outputs.losses else None,
                is_finite=math.isfinite(norm) and math.isfinite(loss_after),
                diverged_step=wrong.index(True) + 1 if True in wrong else 0,
            )
        return [update for update in updates if update is not None]

    def _gradients(
        self, local: Tensor, clients: Sequence["_Drawn"], step: int
    ) -> tuple[Tensor, Tensor]:
        """Gradients ``(clients, parameters)`` and mean losses ``(clients,)`` of one step each."""
        batches = [client.batch(step) for client in clients]
        if not self.stacks:
            flat = local[0].detach().requires_grad_()
            x, y = (self._moved(array) for array in batches[0])
            with torch.enable_grad():
                value = self._loss_of(flat, x, y, torch.ones(len(x), device=self._device))
                (gradient,) = torch.autograd.grad(value, flat)
            return gradient[None], value.detach()[None]
        size = self._plan.batch_size
        x, y, weights = (self._moved(array) for array in _padded(batches, size))
        both = torch.func.vmap(torch.func.grad_and_value(self._loss_of))
        gradients, values = both(local, x, y, weights)
        return gradients, values

    def _mean_losses(self, local: Tensor, clients: Sequence["_Drawn"]) -> list[float]:
        """Each client's mean loss over its records."""
        found = []
        with torch.no_grad():
            for parameters, client in zip(local, clients, strict=True):
                x, y = self._moved(client.x), self._moved(client.y)
                ones = torch.ones(len(x), device=self._device)
                found.append(float(self._loss_of(parameters, x, y, ones)))
        return found

    def _loss_of(self, flat: Tensor, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        logits = torch.func.functional_call(self._module, self._by_name(flat), (x,))
        return self._loss(logits, y, weights)

    def _by_name(self, flat: Tensor) -> dict[str, Tensor]:
        parts = torch.split(flat, [math.prod(shape) for shape in self._shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _moved(self, array: NDArray[np.generic]) -> Tensor:
        return torch.tensor(array).to(self._device)


@dataclass(frozen=True)
class _Drawn:
    """One task's records and the order of its batches.

    Attributes:
        orders: Of each epoch.
    """

    x: NDArray[np.generic]
    y: NDArray[np.float32]
    orders: tuple[NDArray[np.int64], ...]
    batch_size: int

    @classmethod
    def of(cls, records: ClientRecords, plan: LocalPlan, task: TrainingTask) -> "_Drawn":
        x, y = records.of(task.data_client, newest=plan.max_records)
        epochs = range(plan.local_epochs)
        orders = tuple(epoch_order(len(x), task.shuffle_seed, epoch) for epoch in epochs)
        return cls(x, y, orders, plan.batch_size)

    @property
    def steps(self) -> int:
        return len(self.orders) * self._steps_an_epoch

    @property
    def _steps_an_epoch(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def _rows(self, step: int) -> NDArray[np.int64]:
        epoch, batch = divmod(step, self._steps_an_epoch)
        return self.orders[epoch][batch * self.batch_size :][: self.batch_size]

    def batch(self, step: int) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Inputs and labels of a step."""
        rows = self._rows(step)
        return self.x[rows], self.y[rows]

    def mean_of_steps(self, losses: Sequence[float]) -> float:
        """Mean over the records of all steps, of the steps' mean losses."""
        sizes = [len(self._rows(step)) for step in range(self.steps)]
        return sum(map(float.__mul__, losses, map(float, sizes))) / sum(sizes)


def _padded(
    batches: Sequence[tuple[NDArray[np.generic], NDArray[np.float32]]], size: int
) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.float32]]:
    """Inputs, labels and weights ``(clients, size, ...)``; short batches end in weight 0."""
    first_x, first_y = batches[0]
    shape = (len(batches), size)
    x = np.zeros((*shape, *first_x.shape[1:]), first_x.dtype)
    y = np.zeros((*shape, *first_y.shape[1:]), np.float32)
    weights = np.zeros(shape, np.float32)
    for at, (inputs, labels) in enumerate(batches):
        x[at, : len(inputs)], y[at, : len(inputs)] = inputs, labels
        weights[at, : len(inputs)] = 1.0
    return x, y, weights
