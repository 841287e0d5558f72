"""What the truth benchmark holds against each other: figures of each side, and their errors."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LEAST_SHARE = 0.01
"""Outcomes rarer than this on both sides are left out: their shares are noise."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One side of the comparison.

    Attributes:
        outcomes: Tasks by how they ended.
        bytes_down: Of tasks devices are done with, as is ``bytes_up``.
        device_hours: That devices worked on them.
    """

    aggregations: float
    seconds_per_aggregation: float
    updates_per_s: float
    outcomes: Mapping[str, float]
    bytes_down: float
    bytes_up: float
    device_hours: float
    metric: float | None

    def compared(self) -> dict[str, float]:
        """What is held against the other side."""
        total = sum(self.outcomes.values())
        shares = {f"share_{name}": count / total for name, count in self.outcomes.items()}
        return {
            "seconds_per_aggregation": self.seconds_per_aggregation,
            "updates_per_s": self.updates_per_s,
            **shares,
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
        }

    def as_json(self) -> dict[str, object]:
        """Rounded for a record."""
        return {
            "aggregations": round(self.aggregations, 1),
            "seconds_per_aggregation": round(self.seconds_per_aggregation, 4),
            "updates_per_s": round(self.updates_per_s, 4),
            "outcomes": {name: round(count, 1) for name, count in self.outcomes.items() if count},
            "bytes_down": round(self.bytes_down),
            "bytes_up": round(self.bytes_up),
            "device_hours": round(self.device_hours, 4),
            "metric": None if self.metric is None else round(self.metric, 4),
        }


def relative_errors(real: Figures, virtual: Figures) -> dict[str, float]:
    """Error of each virtual figure, relative to the real one (1 where only one side has any)."""
    errors = {}
    reality, dry_run = real.compared(), virtual.compared()
    for name in sorted(reality.keys() | dry_run.keys()):
        a, b = reality.get(name, 0.0), dry_run.get(name, 0.0)
        if name.startswith("share_") and max(a, b) < LEAST_SHARE:
            continue
        errors[name] = abs(b - a) / a if a else 1.0
    return errors


def mean_of(trials: Sequence[Figures]) -> Figures:
    """Each figure's mean over trials."""

    def mean(values: Iterable[float]) -> float:
        return statistics.fmean(values)

    metrics = [trial.metric for trial in trials if trial.metric is not None]
    return Figures(
        aggregations=mean(trial.aggregations for trial in trials),
        seconds_per_aggregation=mean(trial.seconds_per_aggregation for trial in trials),
        updates_per_s=mean(trial.updates_per_s for trial in trials),
        outcomes={
            name: mean(trial.outcomes.get(name, 0.0) for trial in trials)
            for name in trials[0].outcomes
        },
        bytes_down=mean(trial.bytes_down for trial in trials),
        bytes_up=mean(trial.bytes_up for trial in trials),
        device_hours=mean(trial.device_hours for trial in trials),
        metric=mean(metrics) if metrics else None,
    )


def deviations(trials: Sequence[Figures]) -> dict[str, float]:
    """Standard deviation of each figure over trials, relative to its mean."""
    compared = [trial.compared() for trial in trials]
    found = {}
    for name in compared[0]:
        values = [trial[name] for trial in compared]
        mean = statistics.fmean(values)
        if len(values) > 1 and mean >= (LEAST_SHARE if name.startswith("share_") else 0.0) and mean:
            found[name] = statistics.stdev(values) / mean
    return found
