"""What every task of a run cost and how it ended: one row a task, and the sums over them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

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
    """Rows of one trial.

    A task's cost is known when its device is done with it, its outcome when the coordinator has
    decided. Either may come first; a row is whole when both are known.
    """

    def __init__(self, trial: int) -> None:
        self._trial = trial
        self._rows: list[dict[str, Any]] = []
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
        self._rows.append(
            {
                "trial": self._trial,
                "task": self.totals.started,
                "client": client,
                "base_version": base_version,
                "version": None,
                "started_s": at_s,
                "ended_s": None,
                "download_s": duration.download_s,
                "train_s": duration.train_s,
                "upload_s": duration.upload_s,
                "device_s": None,
                "examples": examples,
                "outcome": None,
                "reason": None,
                "bytes_down": 0,
                "bytes_up": 0,
            }
        )
        return self.totals.started

    def end(self, task: int, at_s: float, bytes_down: int, bytes_up: int) -> None:
        """Note that a device is done with a task, and what it cost."""
        row = self._rows[task - 1]
        device_s = at_s - row["started_s"]
        row.update(ended_s=at_s, device_s=device_s, bytes_down=bytes_down, bytes_up=bytes_up)
        self.totals.device_s += device_s
        self.totals.bytes_down += bytes_down
        self.totals.bytes_up += bytes_up
        if row["outcome"] not in {None, Outcome.SUCCEEDED}:
            self.totals.wasted_device_s += device_s

    def has_ended(self, task: int) -> bool:
        """Whether a device is done with a task."""
        return self._rows[task - 1]["ended_s"] is not None

    def decide(self, task: int, outcome: Outcome, reason: str, version: int | None) -> None:
        """Note what became of a task."""
        row = self._rows[task - 1]
        row.update(outcome=str(outcome), reason=reason, version=version)
        self.totals.outcomes[str(outcome)] += 1
        if outcome is not Outcome.SUCCEEDED and row["device_s"] is not None:
            self.totals.wasted_device_s += row["device_s"]

    def table(self) -> pa.Table:
        """All rows in order of their start, with the columns of `TASK_SCHEMA`."""
        return pa.Table.from_pylist(self._rows, TASK_SCHEMA)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        columns = {name: [row[name] for row in self._rows] for name in TASK_SCHEMA.names}
        totals = self.totals
        return {
            "trial": self._trial,
            "columns": columns,
            "outcomes": dict(totals.outcomes),
            "device_s": totals.device_s,
            "wasted_device_s": totals.wasted_device_s,
            "bytes": [totals.bytes_down, totals.bytes_up],
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """A log from what `state` returned."""
        log = cls(state["trial"])
        names, columns = TASK_SCHEMA.names, state["columns"]
        log._rows = [
            dict(zip(names, values, strict=True))
            for values in zip(*(columns[name] for name in names), strict=True)
        ]
        log.totals = TaskTotals(
            len(log._rows),
            Counter(state["outcomes"]),
            state["device_s"],
            state["wasted_device_s"],
            *state["bytes"],
        )
        return log
