"""Several runs up to the same metric: the arithmetic of FLINT's Table 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flint.reports.run_data import RunData
from flint.reports.trials import Spread, Trial, less_is_better

_COSTS = ("virtual_s", "version", "tasks_started", "device_s", "bytes_up")


@dataclass(frozen=True, slots=True)
class CostToTarget:
    """What a run had spent when it first measured the target, over its trials.

    Attributes:
        speed_up: Virtual time of the first run over this run's; None where either is zero.
        tasks_ratio: Tasks started, this run's over the first run's.
        device_hours_ratio: Device hours, this run's over the first run's.
    """

    virtual_hours: Spread | None
    aggregations: Spread | None
    tasks_started: Spread | None
    device_hours: Spread | None
    bytes_up: Spread | None
    speed_up: float | None
    tasks_ratio: float | None
    device_hours_ratio: float | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            name: value.as_json() if isinstance(value, Spread) else value
            for name in CostToTarget.__slots__
            for value in (getattr(self, name),)
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs compared at the best metric that every trial of each of them reached.

    Attributes:
        target: That metric.
        costs: In the order of the runs; the first is what the others are compared with.
    """

    metric_name: str
    target: float
    costs: tuple[CostToTarget, ...]


@dataclass(frozen=True, slots=True)
class Incomparable:
    """Why runs cannot be compared at a target, in a sentence."""

    reason: str


def compare(
    runs: Sequence[tuple[RunData, Sequence[Trial]]],
) -> Comparison | Incomparable:
    """Compare two or more runs at the best metric all reached."""
    names = {run.metric_name for run, _ in runs}
    if len(names) > 1:
        told = ", ".join(sorted(str(name or "none") for name in names))
        return Incomparable(f"These runs measure different metrics ({told}).")
    (name,) = names
    every = [trial for _, trials in runs for trial in trials]
    if name is None or any(not trial.measured["metric"].size for trial in every):
        return Incomparable("Not every run measured a metric.")
    is_loss = less_is_better(name)
    bests = [(np.min if is_loss else np.max)(trial.measured["metric"]) for trial in every]
    target = float(max(bests) if is_loss else min(bests))
    sums = [_costs(trials, target, is_loss=is_loss) for _, trials in runs]
    first = sums[0]
    costs = tuple(
        CostToTarget(
            virtual_hours=_scaled(cost["virtual_s"], 1 / 3600),
            aggregations=cost["version"],
            tasks_started=cost["tasks_started"],
            device_hours=_scaled(cost["device_s"], 1 / 3600),
            bytes_up=cost["bytes_up"],
            speed_up=_ratio(first["virtual_s"], cost["virtual_s"]),
            tasks_ratio=_ratio(cost["tasks_started"], first["tasks_started"]),
            device_hours_ratio=_ratio(cost["device_s"], first["device_s"]),
        )
        for cost in sums
    )
    return Comparison(name, target, costs)


def _costs(trials: Sequence[Trial], target: float, *, is_loss: bool) -> dict[str, Spread | None]:
    """What each trial had spent at the first version that measured the target."""
    spent = []
    for trial in trials:
        metric = trial.measured["metric"]
        first = int(np.argmax(metric <= target if is_loss else metric >= target))
        spent.append({name: float(trial.measured[name][first]) for name in _COSTS})
    return {name: Spread.of(one[name] for one in spent) for name in _COSTS}


def _scaled(spread: Spread | None, factor: float) -> Spread | None:
    if spread is None:
        return None
    return Spread(spread.mean * factor, spread.least * factor, spread.most * factor, spread.count)


def _ratio(above: Spread | None, below: Spread | None) -> float | None:
    if above is None or below is None or not above.mean or not below.mean:
        return None
    return above.mean / below.mean
