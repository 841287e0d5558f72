"""What is said between a run and its executor processes, pickled over a socket of their own.

Weights and sums do not travel: they lie in memory that both map (`SharedRows`), and messages name
their rows. Several messages go at a time, as a list; those that are answered come last in it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

OUT_OF_MEMORY = 112
"""Exit code of a process that was refused memory."""


class Begin(NamedTuple):
    """First message: what to train; answered with `Begun`.

    Attributes:
        number: Of the executor that this process is.
        executors: How many there are, the run's own with them.
        weights: Descriptor of the rows that hold versions, float32; see `SharedWeights`.
        sums: Descriptor of the rows that this process writes sums to, float64.
        board: Descriptors of the `TaskBoard`.
    """

    model: ModelSpec
    plan: LocalPlan
    records: ClientRecords
    number: int
    executors: int
    weights: int
    sums: int
    board: tuple[int, int]


class Begun(NamedTuple):
    """Everything is loaded; tasks may come."""


class SetWeights(NamedTuple):
    """See `Executor.set_weights`; not answered. They lie in a row of `SharedWeights`."""

    version: int
    row: int


class ForgetWeights(NamedTuple):
    """See `Executor.forget_weights`; not answered."""

    before: int


class Train(NamedTuple):
    """See `Executor.train`; answered with `StatisticsColumns`."""

    tasks: TaskColumns


class Reduce(NamedTuple):
    """See `Executor.reduce`; answered with `Summed`."""

    tasks: TaskColumns


class Summed(NamedTuple):
    """Where a process has put its sums, until the next `Reduce`.

    Attributes:
        rows: Of the process's sums, by base version, of those with a finite update.
        statistics: In the order of the tasks.
    """

    rows: Mapping[int, int]
    statistics: StatisticsColumns


class Rung(NamedTuple):
    """Look at the `TaskBoard`: said to who has gone to sleep before that had changed."""


class Refused(NamedTuple):
    """Instead of any answer: what the user has to mend. The process ends."""

    error: FlintError


class Forget(NamedTuple):
    """See `Executor.forget`; not answered."""

    task_ids: tuple[str, ...]


class CarryOver(NamedTuple):
    """See `Executor.carry_over`; not answered."""

    task_ids: tuple[str, ...]


class ForgetResiduals(NamedTuple):
    """See `Executor.forget_residuals`; not answered."""

    clients: tuple[int, ...]


class Residuals(NamedTuple):
    """See `Executor.residuals`; answered with them."""


class RestoreResiduals(NamedTuple):
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
    | Rung
)
