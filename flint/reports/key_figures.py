"""The figures that head a report, one run at a time, over its trials."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flint.reports.intervals import Reals
from flint.reports.run_data import RunData
from flint.reports.trials import Spread, Trial, less_is_better
from flint.reports.wording import OUTCOMES


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """Each figure's mean and range over the trials, or None where no trial knows it.

    Attributes:
        metric: Of the last version measured.
        best_metric: Of the best version measured.
        wasted_share: Of device time, that went to tasks which did not succeed, in [0, 1].
        outcomes: Tasks by outcome.
        succeeded_share: Of the tasks started, in [0, 1].
        wall_s: Wall-clock seconds the dry-run of a trial took.
        stop_reasons: One a trial.
    """

    virtual_hours: Spread | None
    aggregations: Spread | None
    metric: Spread | None
    best_metric: Spread | None
    tasks_started: Spread | None
    succeeded_share: Spread | None
    device_hours: Spread | None
    wasted_device_hours: Spread | None
    wasted_share: Spread | None
    bytes_down: Spread | None
    bytes_up: Spread | None
    wall_s: Spread | None
    outcomes: dict[str, Spread]
    stop_reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs; shares and hours as above."""
        spreads = {
            name: spread.as_json() if spread is not None else None
            for name in _SPREADS
            for spread in (getattr(self, name),)
        }
        outcomes = {name: spread.as_json() for name, spread in self.outcomes.items()}
        return {**spreads, "outcomes": outcomes, "stop_reasons": list(self.stop_reasons)}


_SPREADS = tuple(name for name in KeyFigures.__slots__ if name not in {"outcomes", "stop_reasons"})


def key_figures(run: RunData, trials: Sequence[Trial]) -> KeyFigures:
    """The figures of a run: from its summary, and where that lacks one, from its tables."""
    each = [trial_figures(trial, run.metric_name) for trial in trials]
    spreads = {name: Spread.of(figures[name] for figures in each) for name in _SPREADS}
    outcomes = {}
    for outcome in OUTCOMES:
        spread = Spread.of(figures["outcomes"].get(outcome) for figures in each)
        if spread is not None:
            outcomes[outcome] = spread
    reasons = tuple(str(figures["stop_reason"] or "") for figures in each)
    return KeyFigures(**spreads, outcomes=outcomes, stop_reasons=reasons)


def trial_figures(trial: Trial, metric_name: str | None) -> dict[str, Any]:
    """One trial's figures under the names of `KeyFigures`; None where unknown."""
    figures: dict[str, Any] = {**_from_tables(trial), "stop_reason": None}
    told = {name: value for name, value in trial.summary.items() if value is not None}
    figures.update({name: told[name] for name in figures if name in told})
    measured = trial.measured["metric"]
    if measured.size:  # a summary's best is the largest, which of a loss is the worst
        best = np.min if less_is_better(metric_name) else np.max
        figures["best_metric"] = float(best(measured))
    if figures["outcomes"]:
        figures["outcomes"] = {name: figures["outcomes"].get(name, 0) for name in OUTCOMES}
    figures["wasted_share"] = _ratio(figures["wasted_device_hours"], figures["device_hours"])
    figures["succeeded_share"] = _ratio(
        figures["outcomes"].get("succeeded"), figures["tasks_started"]
    )
    return figures


def _from_tables(trial: Trial) -> dict[str, Any]:
    """What the tables say, for runs whose summary does not.

    Sums are those over the tasks, which also know of what ended after the last version; where no
    tasks are recorded, those of the trajectory's last row.
    """
    columns, measured = trial.trajectory, trial.measured["metric"]
    figures = {
        "virtual_hours": _hours(_last(columns["virtual_s"])),
        "aggregations": _last(columns["version"]),
        "metric": _last(measured),
        "best_metric": None,
        "wall_s": None,
    }
    if not trial.outcome.size:
        counts = {name: _last(columns[name]) for name in OUTCOMES}
        return figures | {
            "tasks_started": _last(columns["tasks_started"]),
            "device_hours": _hours(_last(columns["device_s"])),
            "wasted_device_hours": _hours(_last(columns["wasted_device_s"])),
            "bytes_down": _last(columns["bytes_down"]),
            "bytes_up": _last(columns["bytes_up"]),
            "outcomes": {name: count for name, count in counts.items() if count is not None},
        }
    tasks, succeeded = trial.tasks, trial.outcome == OUTCOMES.index("succeeded")
    return figures | {
        "tasks_started": float(trial.outcome.size),
        "device_hours": _hours(_sum(tasks["device_s"])),
        "wasted_device_hours": _hours(_sum(np.where(succeeded, 0.0, tasks["device_s"]))),
        "bytes_down": _sum(tasks["bytes_down"]),
        "bytes_up": _sum(tasks["bytes_up"]),
        "outcomes": {
            name: float(np.count_nonzero(trial.outcome == code))
            for code, name in enumerate(OUTCOMES)
        },
    }


def _last(column: Reals) -> float | None:
    known = column[np.isfinite(column)]
    return float(known[-1]) if known.size else None


def _sum(column: Reals) -> float | None:
    known = column[np.isfinite(column)]
    return math.fsum(known) if known.size else None


def _hours(seconds: float | None) -> float | None:
    return seconds / 3600.0 if seconds is not None else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
