"""What is said between a run and its executor processes, pickled over a socket of their own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.executors.executor import TrainingTask
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan


@dataclass(frozen=True, slots=True)
class Begin:
    """First message: what to train; answered with `Begun`."""

    model: ModelSpec
    plan: LocalPlan
    records: ClientRecords


@dataclass(frozen=True, slots=True)
class Begun:
    """Everything is loaded; tasks may come."""


@dataclass(frozen=True, slots=True)
class SetWeights:
    """See `Executor.set_weights`; not answered."""

    version: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ForgetWeights:
    """See `Executor.forget_weights`; not answered."""

    before: int


@dataclass(frozen=True, slots=True)
class Train:
    """See `Executor.train`; answered with its statistics."""

    tasks: tuple[TrainingTask, ...]


@dataclass(frozen=True, slots=True)
class Reduce:
    """See `Executor.reduce`; answered with `GridSums`."""

    tasks: tuple[TrainingTask, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """See `Executor.forget`; not answered."""

    task_ids: tuple[str, ...]


Message = SetWeights | ForgetWeights | Train | Reduce | Forget
