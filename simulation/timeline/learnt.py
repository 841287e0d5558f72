"""What is known of a trial's versions beside their events: losses, metrics, seconds."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_METRIC, _LOSS, _TRAIN_LOSS, _WALL_S = range(4)
_ROOM = 1024


class Learnt:
    """Values by version, in columns: a checkpoint of many thousand versions copies two arrays.

    Version 0 is there from the beginning, at 0 seconds.
    """

    def __init__(self) -> None:
        self._values = np.full((4, _ROOM), np.nan)
        self._is_known = np.zeros((4, _ROOM), np.bool_)
        self._count = 0
        self.add(0, None, 0.0)

    def add(self, version: int, train_loss: float | None, wall_s: float) -> None:
        """The next version has come about."""
        if version >= self._values.shape[1]:
            more = ((0, 0), (0, self._values.shape[1]))
            self._values = np.pad(self._values, more, constant_values=np.nan)
            self._is_known = np.pad(self._is_known, more)
        self._count = version + 1
        self._note(version, _WALL_S, wall_s)
        if train_loss is not None:
            self._note(version, _TRAIN_LOSS, train_loss)

    def measured(self, version: int, metric: float, loss: float) -> None:
        """A version has been evaluated."""
        self._note(version, _METRIC, metric)
        self._note(version, _LOSS, loss)

    def metric(self, version: int) -> float | None:
        """Of a version, if it has been evaluated."""
        return float(self._values[_METRIC, version]) if self._is_known[_METRIC, version] else None

    def wall_s(self) -> NDArray[np.float64]:
        """When each version came about, shape ``(versions,)``."""
        return self._values[_WALL_S, : self._count]

    def columns(self) -> dict[str, pa.Array]:
        """``metric``, ``loss`` and ``train_loss`` by version; null where there is none."""
        return {
            name: pa.array(
                self._values[row, : self._count], mask=~self._is_known[row, : self._count]
            )
            for row, name in ((_METRIC, "metric"), (_LOSS, "loss"), (_TRAIN_LOSS, "train_loss"))
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "values": self._values[:, : self._count].copy(),
            "is_known": self._is_known[:, : self._count].copy(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after `state`."""
        self._values = np.array(state["values"], np.float64)
        self._is_known = np.array(state["is_known"], np.bool_)
        self._count = self._values.shape[1]

    def _note(self, version: int, row: int, value: float) -> None:
        self._values[row, version] = value
        self._is_known[row, version] = True


def mean_of_known(losses: NDArray[np.float64]) -> float | None:
    """Mean of those that are numbers; None if there is none."""
    total = float(np.add.reduce(losses))
    if math.isfinite(total):
        return total / len(losses) if len(losses) else None
    known = losses[np.isfinite(losses)]
    return float(np.add.reduce(known) / len(known)) if len(known) else None
