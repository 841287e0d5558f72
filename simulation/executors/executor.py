"""The `Executor`: what trains the updates that a dry-run's aggregations are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """One task of one simulated client, as far as its training is concerned.

    Attributes:
        task_id: Unique among the tasks of an executor.
        data_client: Whose records: position in ``Dataset.clients()``.
        base_version: Version the training starts from; see `Executor.set_weights`.
        weight: ``c_i`` of its update in the sum.
        learning_rate: Of the local optimiser.
        shuffle_seed: Of the epochs' order, 64 bits; see ``device_runtime.training_plan``.
        client: Who trains, where error feedback tells clients apart that share their records.
    """

    task_id: str
    data_client: int
    base_version: int
    weight: float
    learning_rate: float
    shuffle_seed: int
    client: int = 0


@dataclass(frozen=True, slots=True)
class ClientOutputs:
    """What is computed of each update beyond what its training gives by itself.

    Attributes:
        losses: Mean loss over the task's records, before and after: two more forward passes.
        norms: L2 norm of the update: for clients that have no weights of their own, products of
            their records with each other.
    """

    losses: bool = False
    norms: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return self.losses or self.norms

    def __or__(self, other: "ClientOutputs") -> "ClientOutputs":
        """What either asks for."""
        return ClientOutputs(self.losses or other.losses, self.norms or other.norms)


class UpdateStatistics(NamedTuple):
    """What is known of one update, which stays where it is.

    Attributes:
        num_examples: Records the task trained on.
        train_loss: Mean loss over the records of all steps, each at the weights its step started
            from; NaN if nothing was trained.
        is_finite: Whether training stayed in numbers; only finite updates are ever summed.
        diverged_step: First step, from 1, that met logits which are no numbers; 0 for none.
        update_norm: L2 norm of the delta over all parameters, as the job's codec leaves it; None
            unless `ClientOutputs` asks for it, as for what follows.
        loss_before: Mean loss over these records at the base version.
        loss_after: The same after the local training.
    """

    task_id: str
    num_examples: int
    train_loss: float
    is_finite: bool
    diverged_step: int = 0
    update_norm: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None


class Reduced(NamedTuple):
    """Updates, summed.

    Attributes:
        sums: One per base version, ascending. Only finite updates are in them; a version without
            any has none.
        statistics: One per task, in the order of the tasks.
    """

    sums: tuple[PartialSum, ...]
    statistics: Sequence[UpdateStatistics]


class Executor(Protocol):
    """Trains tasks when their updates are asked for, and hands out sums of updates only.

    Training is a pure function of task, base weights and records, so it does not matter when it
    happens: `reduce` alone gives the bits that `train` and then `reduce` give. Nor do sums depend
    on the order of the tasks, or on who trains which. Methods are called from one thread.

    With error feedback an update also depends on what its client's earlier ones left out: a
    client's tasks are then given in their order, and those that count are told by `carry_over`.
    """

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from.

        Args:
            weights: All parameters concatenated in wire order, shape ``(parameters,)``.
        """
        ...

    def forget_weights(self, before: int) -> None:
        """Forget all versions smaller than ``before``, and updates kept that start from them.

        After ``forget_weights`` beyond the last version nothing is left, so another trial may use
        the same task ids.
        """
        ...

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Tasks on these clients' records come before long: they may be read from disk meanwhile.

        Args:
            data_clients: Shape ``(tasks,)``.
        """
        ...

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now and keep the updates until `reduce` or `forget`; for decisions on results.

        Returns:
            One per task, in their order.

        Raises:
            KeyError: If a base version is not known.
        """
        ...

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates, training those not kept; kept ones are let go of.

        Raises:
            KeyError: If a base version is not known.
        """
        ...

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates that were trained and are not wanted; others are ignored."""
        ...

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates, summed, count: what they left out is sent with their clients' next.

        Without error feedback there is nothing to do.
        """
        ...

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        ...

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        ...

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """Go on after `residuals`."""
        ...

    def close(self) -> None:
        """End what was started; the executor is of no use afterwards."""
        ...
