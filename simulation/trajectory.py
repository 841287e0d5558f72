"""The trajectory of a dry-run: one row a stored version, of model and system alike."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from server.coordination.events import Event
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome
from simulation.executors.executor import UpdateStatistics
from simulation.fleet import VirtualFleet
from simulation.task_log import TaskLog
from simulation.update_log import OUTPUT_COLUMNS

OUTCOMES = tuple(str(outcome) for outcome in Outcome)

TRAJECTORY_SCHEMA = pa.schema(
    [
        ("trial", pa.int32()),
        ("version", pa.int64()),
        ("virtual_s", pa.float64()),
        ("metric", pa.float64()),
        ("loss", pa.float64()),
        ("train_loss", pa.float64()),
        ("updates", pa.int64()),
        ("staleness_mean", pa.float64()),
        ("staleness_max", pa.int64()),
        ("tasks_started", pa.int64()),
        *((outcome, pa.int64()) for outcome in OUTCOMES),
        ("device_s", pa.float64()),
        ("wasted_device_s", pa.float64()),
        ("bytes_down", pa.int64()),
        ("bytes_up", pa.int64()),
        ("available", pa.int64()),
        ("in_flight", pa.int64()),
        ("wall_s", pa.float64()),
    ]
)
"""Columns of ``trajectory.parquet``; docs/run-record.md explains them."""

_WALL_CLOCK = {"wall_s"}
_LEARNT = {"metric", "loss", "train_loss"}


class TrajectoryRecorder:
    """A `JobObserver` that writes the rows of one trial.

    Args:
        log: Of the same trial.
        on_progress: Told of progress, after every event.
        wall_s: Seconds the trial had run before, when it is resumed.
    """

    def __init__(
        self,
        trial: int,
        log: TaskLog,
        on_progress: Callable[[JobProgress, float], None] = lambda *_: None,
        rows: Sequence[Mapping[str, Any]] = (),
        wall_s: float = 0.0,
    ) -> None:
        self._trial = trial
        self._log = log
        self._on_progress = on_progress
        self._rows: list[dict[str, Any]] = [dict(row) for row in rows]
        self._begun_s = time.monotonic() - wall_s
        self._train_loss: float | None = None

    def watch(self, fleet: VirtualFleet) -> None:
        """Read clock and devices in flight from this fleet."""
        self._fleet = fleet

    def begin(self) -> None:
        """Write the row of the initial version."""
        self._add(0, 0, (), None)

    def wall_s(self) -> float:
        """Seconds this trial has taken so far."""
        return time.monotonic() - self._begun_s

    # -- what happens --------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """See `JobObserver`; the task log knows more of it."""

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """Write a version's row; its metric comes later, if it is measured."""
        self._add(aggregation.version, aggregation.updates, aggregation.staleness, self._train_loss)

    def on_progress(self, progress: JobProgress) -> None:
        """Pass progress and virtual time on."""
        self._on_progress(progress, self._fleet.now_s())

    def on_reduced(self, statistics: Sequence[UpdateStatistics]) -> None:
        """Note how the updates of the coming version were trained."""
        losses = [s.train_loss for s in statistics if np.isfinite(s.train_loss)]
        self._train_loss = float(np.mean(losses)) if losses else None

    def measured(self, version: int, metrics: Mapping[str, float]) -> None:
        """Note a version's central evaluation."""
        row = next(row for row in reversed(self._rows) if row["version"] == version)
        row.update(metric=metrics["metric"], loss=metrics["loss"])

    # -- what is written -----------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far, without ``available``, which only the world knows."""
        return self._rows

    def _add(
        self, version: int, updates: int, staleness: Sequence[int], train_loss: float | None
    ) -> None:
        totals = self._log.totals
        self._rows.append(
            {
                "trial": self._trial,
                "version": version,
                "virtual_s": self._fleet.now_s(),
                "metric": None,
                "loss": None,
                "train_loss": train_loss,
                "updates": updates,
                "staleness_mean": float(np.mean(staleness)) if staleness else None,
                "staleness_max": max(staleness, default=None),
                "tasks_started": totals.started,
                **{outcome: totals.outcomes[outcome] for outcome in OUTCOMES},
                "device_s": totals.device_s,
                "wasted_device_s": totals.wasted_device_s,
                "bytes_down": totals.bytes_down,
                "bytes_up": totals.bytes_up,
                "in_flight": self._fleet.in_flight,
                "wall_s": self.wall_s(),
            }
        )


def trajectory_sha256(trajectory: pa.Table) -> str:
    """Digest of everything in a trajectory but the wall clock."""
    kept = [name for name in trajectory.schema.names if name not in _WALL_CLOCK]
    return _digest(trajectory.select(kept))


def events_sha256(trajectory: pa.Table, tasks: pa.Table) -> str:
    """Digest of what happened and when, whatever was learnt: equal for any number of executors."""
    left_out = _WALL_CLOCK | _LEARNT
    kept = [name for name in trajectory.schema.names if name not in left_out]
    happened = [name for name in tasks.schema.names if name not in OUTPUT_COLUMNS]
    both = _digest(trajectory.select(kept)) + _digest(tasks.select(happened))
    return hashlib.sha256(both.encode()).hexdigest()


def _digest(table: pa.Table) -> str:
    """SHA-256 over names, types and values of a table's columns, in order."""
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{field.name}\0{field.type}\0".encode())
        column = table[field.name].combine_chunks()
        digest.update(np.asarray(column.is_valid()).tobytes())
        if pa.types.is_string(field.type):
            for text in column.to_pylist():
                digest.update(f"{text}\0".encode())
        else:
            digest.update(column.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
