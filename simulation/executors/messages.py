"""What is said between a run and its executor processes, pickled over a socket of their own.

Weights and sums do not travel: they lie in memory that both map (`SharedRows`), and messages name
their rows. Several messages go at a time, as a list; those that are answered come last in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

OUT_OF_MEMORY = 112
"""Exit code of a process that was refused memory."""


@dataclass(frozen=True, slots=True)
class Begin:
    """First message: what to train; answered with `Begun`.

    Attributes:
        weights: Descriptor of the rows that hold versions, float32.
        sums: Descriptor of the rows that this process writes sums to, float64.
    """

    model: ModelSpec
    plan: LocalPlan
    records: ClientRecords
    weights: int
    sums: int


@dataclass(frozen=True, slots=True)
class Begun:
    """Everything is loaded; tasks may come."""


@dataclass(frozen=True, slots=True)
class SetWeights:
    """See `Executor.set_weights`; not answered. They lie in a row of the run's."""

    version: int
    row: int


@dataclass(frozen=True, slots=True)
class ForgetWeights:
    """See `Executor.forget_weights`; not answered."""

    before: int


@dataclass(frozen=True, slots=True)
class Train:
    """See `Executor.train`; answered with `StatisticsColumns`."""

    tasks: TaskColumns


@dataclass(frozen=True, slots=True)
class Reduce:
    """See `Executor.reduce`; answered with `Summed`."""

    tasks: TaskColumns


@dataclass(frozen=True, slots=True)
class Summed:
    """Where a process has put its sums, until the next `Reduce`.

    Attributes:
        rows: Of the process's sums, by base version, of those with a finite update.
        statistics: In the order of the tasks.
    """

    rows: Mapping[int, int]
    statistics: StatisticsColumns


@dataclass(frozen=True, slots=True)
class Refused:
    """Instead of any answer: what the user has to mend. The process ends."""

    error: FlintError


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
