"""Device models of a log, numbered as they are met and judged by benchmark results."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.device_criteria import BENCHMARK_RECORDS
from simulation.availability.criteria_file import ComputeCriteria
from simulation.availability.instants import UnusableLogColumn
from simulation.availability.log_values import codes_of
from simulation.availability.measurements import MeasuredDevices

Mask = NDArray[np.bool_]
NO_MODEL = -1
# Far more than there are; a column of ids would fill the memory.
_MOST_MODELS = 200_000


@dataclass(slots=True)
class DeviceModels:
    """Models met so far.

    Attributes:
        wanted: Criteria of compute capability.
        measured: Benchmark results; None if no criterion needs them.
        codes: Number of each model, from 0.
    """

    wanted: ComputeCriteria
    measured: MeasuredDevices | None
    codes: dict[str, int] = field(default_factory=dict)
    _is_measured: list[bool] = field(default_factory=list)
    _fast_enough: list[bool] = field(default_factory=list)
    _small_enough: list[bool] = field(default_factory=list)

    def of_column(self, values: pa.Array, *, column: str, path: Path) -> NDArray[np.int32]:
        """Code of each session's device model, shape ``(sessions,)``; -1 where none is named.

        Raises:
            UnusableLogColumn: If the column cannot be one of device models.
        """
        codes, _, _ = codes_of(values, self._code, missing=NO_MODEL, column=column, path=path)
        return codes.astype(np.int32)

    def is_measured(self, model: NDArray[np.int32]) -> Mask:
        """Whether each session's model has a benchmark result."""
        return _taken(self._is_measured, model)

    def is_fast_enough(self, model: NDArray[np.int32]) -> Mask:
        """Whether each session's model trains the records within ``max_train_s``."""
        return _taken(self._fast_enough, model)

    def is_small_enough(self, model: NDArray[np.int32]) -> Mask:
        """Whether training takes at most ``max_memory_mb`` on each session's model."""
        return _taken(self._small_enough, model)

    def _code(self, name: str) -> int:
        known = self.codes.get(name)
        if known is not None:
            return known
        if len(self.codes) >= _MOST_MODELS:
            raise UnusableLogColumn(
                f"the column of device models holds more than {_MOST_MODELS} different values, "
                f"such as {name[:40]!r}; map the column of model names (columns: {{device_model: "
                "NAME})"
            )
        self.codes[name] = len(self.codes)
        at = None if self.measured is None else self.measured.row.get(name)
        fast = small = False
        if self.measured is not None and at is not None:
            train_s = float(self.measured.train_s[at]) * self.wanted.records
            limit_s, limit_mb = self.wanted.max_train_s, self.wanted.max_memory_mb
            fast = limit_s is not None and train_s <= limit_s * BENCHMARK_RECORDS
            small = limit_mb is not None and float(self.measured.memory_mb[at]) <= limit_mb
        self._is_measured.append(at is not None)
        self._fast_enough.append(fast)
        self._small_enough.append(small)
        return self.codes[name]


def _taken(by_code: list[bool], model: NDArray[np.int32]) -> Mask:
    # The last entry is for -1: of no model, nothing is known.
    return np.array([*by_code, False])[model]
