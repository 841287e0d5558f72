"""The figures that head a report, one run at a time, over its trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    """What the trajectory says at its end, for runs whose summary does not."""
    columns, measured = trial.trajectory, trial.measured["metric"]

    def last(name: str) -> float | None:
        known = columns[name][np.isfinite(columns[name])]
        return float(known[-1]) if known.size else None

    def hours(seconds: float | None) -> float | None:
        return seconds / 3600.0 if seconds is not None else None

    counts = {name: last(name) for name in OUTCOMES}
    return {
        "virtual_hours": hours(last("virtual_s")),
        "aggregations": last("version"),
        "metric": float(measured[-1]) if measured.size else None,
        "best_metric": None,
        "tasks_started": last("tasks_started"),
        "device_hours": hours(last("device_s")),
        "wasted_device_hours": hours(last("wasted_device_s")),
        "bytes_down": last("bytes_down"),
        "bytes_up": last("bytes_up"),
        "wall_s": None,
        "outcomes": {name: count for name, count in counts.items() if count is not None},
    }


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
