"""What every task of a run cost and how it ended: one row a task, and the sums over them."""

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.coordination.tasks import Outcome
from simulation.durations import TaskDuration

TASK_SCHEMA = pa.schema(
    [
        ("trial", pa.int32()),
        ("task", pa.int64()),
        ("client", pa.int64()),
        ("base_version", pa.int64()),
        ("version", pa.int64()),
        ("started_s", pa.float64()),
        ("ended_s", pa.float64()),
        ("download_s", pa.float64()),
        ("train_s", pa.float64()),
        ("upload_s", pa.float64()),
        ("device_s", pa.float64()),
        ("examples", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("bytes_down", pa.int64()),
        ("bytes_up", pa.int64()),
    ]
)
"""Columns of ``tasks.parquet``; docs/run-record.md explains them."""


_KEPT = {
    **dict.fromkeys(("client", "base_version", "version"), "q"),
    **dict.fromkeys(("started_s", "ended_s", "download_s", "train_s", "upload_s"), "d"),
    **dict.fromkeys(("examples", "outcome", "reason", "bytes_down", "bytes_up"), "q"),
}
"""Columns kept, with their types; outcome and reason by number."""

_NONE = -1
"""A whole number that is not known, or none."""

_OUTCOMES = {str(outcome): code for code, outcome in enumerate(Outcome)}
_SUCCEEDED = _OUTCOMES[Outcome.SUCCEEDED]


@dataclass(slots=True)
class TaskTotals:
    """Sums over tasks, all cumulative.

    Attributes:
        outcomes: Tasks by outcome.
        device_s: Seconds devices spent on tasks that have ended on them.
        wasted_device_s: Of these, for tasks that came to nothing.
        bytes_down: That reached devices.
        bytes_up: That reached the server.
    """

    started: int
    outcomes: Counter[str]
    device_s: float = 0.0
    wasted_device_s: float = 0.0
    bytes_down: int = 0
    bytes_up: int = 0


class TaskLog:
    """Rows of one trial, column by column: a run may start millions of tasks.

    A task's cost is known when its device is done with it, its outcome when the coordinator has
    decided. Either may come first; a row is whole when both are known.
    """

    def __init__(self, trial: int) -> None:
        self._trial = trial
        self._columns: dict[str, array[Any]] = {n: array(kind) for n, kind in _KEPT.items()}
        self._reasons: dict[str, int] = {}
        self.totals = TaskTotals(0, Counter())

    def start(
        self,
        client: int,
        base_version: int,
        at_s: float,
        duration: TaskDuration[float],
        examples: int,
    ) -> int:
        """Note a task's start; returns its number, from 1."""
        self.totals.started += 1
        row = (
            *(client, base_version, _NONE, at_s, math.nan),
            *(duration.download_s, duration.train_s, duration.upload_s),
            *(examples, _NONE, _NONE, 0, 0),
        )
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)
        return self.totals.started

    def end(self, task: int, at_s: float, bytes_down: int, bytes_up: int) -> None:
        """Note that a device is done with a task, and what it cost."""
        columns, row = self._columns, task - 1
        columns["ended_s"][row] = at_s
        columns["bytes_down"][row] = bytes_down
        columns["bytes_up"][row] = bytes_up
        device_s = self._device_s(row)
        self.totals.device_s += device_s
        self.totals.bytes_down += bytes_down
        self.totals.bytes_up += bytes_up
        if columns["outcome"][row] not in {_NONE, _SUCCEEDED}:
            self.totals.wasted_device_s += device_s

    def has_ended(self, task: int) -> bool:
        """Whether a device is done with a task."""
        return not math.isnan(self._columns["ended_s"][task - 1])

    def decide(self, task: int, outcome: Outcome, reason: str, version: int | None) -> None:
        """Note what became of a task."""
        columns, row = self._columns, task - 1
        columns["outcome"][row] = _OUTCOMES[outcome]
        columns["reason"][row] = self._reasons.setdefault(reason, len(self._reasons))
        columns["version"][row] = _NONE if version is None else version
        self.totals.outcomes[str(outcome)] += 1
        if outcome is not Outcome.SUCCEEDED and self.has_ended(task):
            self.totals.wasted_device_s += self._device_s(row)

    def table(self) -> pa.Table:
        """All rows in order of their start, with the columns of `TASK_SCHEMA`."""
        kept = {name: np.array(column) for name, column in self._columns.items()}
        count = len(kept["client"])
        columns: dict[str, pa.Array] = {
            "trial": pa.array(np.full(count, self._trial, np.int32)),
            "task": pa.array(np.arange(1, count + 1)),
            "device_s": _seconds(kept["ended_s"] - kept["started_s"]),
            "outcome": _texts(list(_OUTCOMES), kept["outcome"]),
            "reason": _texts(list(self._reasons), kept["reason"]),
        }
        for name, values in kept.items():
            if name not in columns:
                whole = values.dtype == np.int64
                columns[name] = _numbers(values) if whole else _seconds(values)
        return pa.table([columns[name] for name in TASK_SCHEMA.names], schema=TASK_SCHEMA)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        totals = self.totals
        return {
            "trial": self._trial,
            "columns": {name: np.array(column) for name, column in self._columns.items()},
            "reasons": list(self._reasons),
            "outcomes": dict(totals.outcomes),
            "device_s": totals.device_s,
            "wasted_device_s": totals.wasted_device_s,
            "bytes": [totals.bytes_down, totals.bytes_up],
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """A log from what `state` returned."""
        log = cls(state["trial"])
        for name, column in log._columns.items():
            column.frombytes(state["columns"][name].tobytes())
        log._reasons = {reason: code for code, reason in enumerate(state["reasons"])}
        log.totals = TaskTotals(
            len(log._columns["client"]),
            Counter(state["outcomes"]),
            state["device_s"],
            state["wasted_device_s"],
            *state["bytes"],
        )
        return log

    def _device_s(self, row: int) -> float:
        seconds: float = self._columns["ended_s"][row] - self._columns["started_s"][row]
        return seconds


def _numbers(values: NDArray[np.int64]) -> pa.Array:
    return pa.array(values, mask=values == _NONE)


def _seconds(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _texts(texts: Sequence[str], codes: NDArray[np.int64]) -> pa.Array:
    return pa.array(texts, pa.string()).take(_numbers(codes))
