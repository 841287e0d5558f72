"""What is kept of single updates: columns beside their tasks', and which left the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulation.executors.executor import ClientOutputs, UpdateStatistics
from simulation.executors.task_columns import StatisticsColumns

OUTPUT_COLUMNS = ("train_loss", "loss_before", "loss_after", "update_norm")
"""Columns of ``tasks.parquet`` that hold what was learnt; docs/run-record.md explains them."""

_ASKED_BY = {
    "train_loss": ("train_loss",),
    "losses": ("train_loss", "loss_before", "loss_after"),
    "norms": ("update_norm",),
}
_REASON = "not_finite"


@dataclass(frozen=True, slots=True)
class DivergedUpdate:
    """An update that is no numbers; it is in no version.

    Attributes:
        task: Its number, from 1.
        step: First step of the task, from 1, that met logits which are no numbers; 0 if only the
            update itself is none.
    """

    task: int
    client: int
    base_version: int
    step: int

    @property
    def sentence(self) -> str:
        """For users."""
        where = f"in step {self.step}" if self.step else "after its last step"
        return (
            f"the training of client {self.client} (task {self.task}, from version "
            f"{self.base_version}) left the numbers {where}"
        )


def outputs_of(names: Sequence[str]) -> ClientOutputs:
    """What executors compute for the names under ``client_outputs``."""
    return ClientOutputs(losses="losses" in names, norms="norms" in names)


class UpdateLog:
    """Statistics of one trial's updates, by number of their task.

    Args:
        asked: The environment's ``client_outputs``; of updates that diverged it is noted anyhow.
    """

    def __init__(self, asked: Sequence[str] = ()) -> None:
        wanted = {column for name in asked for column in _ASKED_BY[name]}
        self._names = tuple(name for name in OUTPUT_COLUMNS if name in wanted)
        self._numbers: list[NDArray[np.int64]] = []
        self._columns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self._names}
        self._diverged: dict[int, int] = {}

    def note(self, tasks: NDArray[np.int64], statistics: Sequence[UpdateStatistics]) -> None:
        """Note updates that were trained; of one noted before, what is said now holds.

        Args:
            tasks: Their numbers, from 1, shape ``(tasks,)``.
        """
        known = StatisticsColumns.of(statistics)
        if np.count_nonzero(known.is_finite) < len(tasks):
            gone = ~known.is_finite
            steps = known.diverged_step[gone].tolist()
            self._diverged.update(zip(tasks[gone].tolist(), steps, strict=True))
        if not self._names:
            return
        self._numbers.append(tasks)
        for name, columns in self._columns.items():
            column = getattr(known, name)
            columns.append(np.full(len(tasks), np.nan) if column is None else column)

    def with_outputs(self, tasks: pa.Table) -> pa.Table:
        """The task table of the trial, with a column of each output that was asked for."""
        numbers = _joined(self._numbers, np.int64)
        for name, columns in self._columns.items():
            values = np.full(len(tasks), np.nan)
            values[numbers - 1] = _joined(columns, np.float64)
            tasks = tasks.append_column(name, pa.array(values, mask=~np.isfinite(values)))
        return tasks

    def diverged(self, tasks: pa.Table) -> tuple[DivergedUpdate, ...]:
        """Which tasks of the table ended because their update is no numbers."""
        noted = np.array(sorted(self._diverged), np.int64)
        rows = tasks.take(noted[noted <= len(tasks)] - 1)
        names = ("task", "client", "base_version", "reason")
        return tuple(
            DivergedUpdate(task, client, base_version, self._diverged[task])
            for task, client, base_version, reason in zip(
                *(rows[name].to_pylist() for name in names), strict=True
            )
            if reason == _REASON
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "numbers": _joined(self._numbers, np.int64),
            "columns": {name: _joined(each, np.float64) for name, each in self._columns.items()},
            "diverged": [list(each) for each in self._diverged.items()],
        }

    @classmethod
    def restored(cls, asked: Sequence[str], state: Mapping[str, Any] | None) -> Self:
        """A log that goes on after `state`; None: a checkpoint from before there was this log."""
        log = cls(asked)
        if state is None:
            return log
        log._numbers = [np.array(state["numbers"], np.int64)]
        for name, columns in log._columns.items():
            columns.append(np.array(state["columns"][name], np.float64))
        log._diverged = {int(task): int(step) for task, step in state["diverged"]}
        return log


def diverged_as_json(diverged: Sequence[DivergedUpdate], most: int = 100) -> dict[str, Any]:
    """Updates that diverged as a trial's summary has them: how many, and the first ones."""
    first = [asdict(each) | {"sentence": each.sentence} for each in diverged[:most]]
    return {"updates": len(diverged), "clients": len({e.client for e in diverged}), "first": first}


def diverged_sentence(summary: Mapping[str, Any]) -> str | None:
    """What a run says of a trial's updates that diverged; None if there was none.

    Args:
        summary: Of the trial; one recorded before this was noted says nothing.
    """
    told = summary.get("diverged")
    if not told or not told["updates"]:
        return None
    count, clients = told["updates"], told["clients"]
    said = str(told["first"][0]["sentence"])
    if count > 1:
        whose = "1 client" if clients == 1 else f"{clients} clients"
        said += f", the first of {count} updates of {whose} that did"
    return (
        f"{said}; such an update counts in no version: lower client.optimizer.learning_rate, or "
        "look at that client's records"
    )


def _joined(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
