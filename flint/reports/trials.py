"""A run's trials as arrays, and figures over trials."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flint.reports.intervals import Reals
from flint.reports.run_data import RunData
from flint.reports.wording import OUTCOMES

UNKNOWN_OUTCOME = len(OUTCOMES)
_LESS_IS_BETTER = re.compile(r"loss|error|perplexity|(^|[-_])(r?mse|mae)($|[-_])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial of a run.

    Attributes:
        number: From 0.
        trajectory: Columns of its trajectory, by version ascending; NaN where nothing is known.
        tasks: Numeric columns of its tasks, in order of their start; NaN where nothing is known.
        outcome: Of each task, index into `OUTCOMES`, or `UNKNOWN_OUTCOME`.
        summary: Of the run's summary; empty where it has none.
    """

    number: int
    trajectory: Mapping[str, Reals]
    tasks: Mapping[str, Reals]
    outcome: NDArray[np.int64]
    summary: Mapping[str, Any]

    @cached_property
    def end_s(self) -> float:
        """When the last version was stored or the last task ended, virtual seconds."""
        ends = [*self.trajectory["virtual_s"][-1:], _last(self.tasks["ended_s"])]
        hours = self.summary.get("virtual_hours")
        ends.append(hours * 3600.0 if hours is not None else math.nan)
        return max((end for end in ends if math.isfinite(end)), default=0.0)

    @cached_property
    def measured(self) -> Mapping[str, Reals]:
        """The trajectory's rows whose metric was measured."""
        rows = np.isfinite(self.trajectory["metric"])
        return {name: column[rows] for name, column in self.trajectory.items()}


def split_trials(run: RunData) -> tuple[Trial, ...]:
    """A run's trials by number: those of its trajectory, tasks and summary; at least one."""
    summaries = {int(s.get("trial", n)): s for n, s in enumerate(run.summary.get("trials", ()))}
    numbers = set(summaries)
    for table in (run.trajectory, run.tasks):
        numbers |= {int(trial) for trial in pc.unique(table["trial"]).to_pylist()}
    return tuple(
        _trial(run, number, summaries.get(number, {})) for number in sorted(numbers or {0})
    )


def _trial(run: RunData, number: int, summary: Mapping[str, Any]) -> Trial:
    trajectory = run.trajectory.filter(pc.field("trial") == number).sort_by("version")
    tasks = run.tasks.filter(pc.field("trial") == number)
    outcome = pc.index_in(tasks["outcome"], value_set=pa.array(OUTCOMES))
    return Trial(
        number,
        numeric_columns(trajectory),
        numeric_columns(tasks),
        outcome.fill_null(UNKNOWN_OUTCOME).to_numpy().astype(np.int64),
        summary,
    )


def numeric_columns(table: pa.Table) -> dict[str, Reals]:
    """A table's columns of numbers; null is NaN."""
    return {
        field.name: table[field.name].cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
        for field in table.schema
        if not pa.types.is_string(field.type)
    }


def less_is_better(metric_name: str | None) -> bool:
    """Whether a metric of this name is a loss or an error.

    >>> less_is_better("val_loss"), less_is_better("auprc")
    (True, False)
    """
    return bool(_LESS_IS_BETTER.search(metric_name or ""))


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the trials of a run.

    Attributes:
        count: Trials it is known of.
    """

    mean: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Over the values that are known; None if none is."""
        known = [float(v) for v in values if v is not None and math.isfinite(v)]
        if not known:
            return None
        # Rounding must not put the mean of equal values beside them.
        mean = min(max(math.fsum(known) / len(known), min(known)), max(known))
        return cls(mean, min(known), max(known), len(known))

    def as_json(self) -> dict[str, float]:
        """Mean, least and most."""
        return {"mean": self.mean, "min": self.least, "max": self.most}


@dataclass(frozen=True, slots=True)
class MeanCurve:
    """The mean of several curves and the range around it, where all are known."""

    x: Reals
    mean: Reals
    least: Reals
    most: Reals


def mean_curve(curves: Sequence[tuple[Reals, Reals]], *, points: int = 240) -> MeanCurve | None:
    """Mean and range of curves over the stretch they share, linear between points.

    Args:
        curves: ``(x, y)`` each, x ascending.
        points: Of the result, where the curves have no x in common.

    Returns:
        None if there is no curve, or they share no stretch.
    """
    if not curves or any(not x.size for x, _ in curves):
        return None
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if first > last:
        return None
    common = curves[0][0]
    if not all(np.array_equal(x, common) for x, _ in curves):
        common = np.linspace(first, last, points)
    values = np.array([np.interp(common, x, y) for x, y in curves])
    return MeanCurve(common, values.mean(0), values.min(0), values.max(0))


def _last(ended_s: Reals) -> float:
    known = ended_s[np.isfinite(ended_s)]
    return float(known.max()) if known.size else math.nan
