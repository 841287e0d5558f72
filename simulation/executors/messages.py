"""What is said between a run and its executor processes, pickled over a socket of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class CarryOver:
    """See `Executor.carry_over`; not answered."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForgetResiduals:
    """See `Executor.forget_residuals`; not answered."""

    clients: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Residuals:
    """See `Executor.residuals`; answered with them."""


@dataclass(frozen=True, slots=True)
class RestoreResiduals:
    """See `ClientResiduals.restore`; not answered."""

    state: Mapping[str, Any]
    share: int
    of: int


Message = (
    SetWeights
    | ForgetWeights
    | Train
    | Reduce
    | Forget
    | CarryOver
    | ForgetResiduals
    | Residuals
    | RestoreResiduals
)
