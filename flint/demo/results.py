"""What a demo run gave, as stored by the coordinator: one record a strategy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_catalog.model_store import ModelVersion

Count = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One evaluated version.

    Attributes:
        updates: Aggregated up to this version.
        elapsed_s: Since the job's start, on the coordinator's clock.
    """

    version: int
    updates: int
    elapsed_s: float
    value: float


@dataclass(frozen=True, slots=True)
class StrategyRun:
    """One job of the demo, ended.

    Attributes:
        devices: Enrolled identities.
        versions: Stored after the initial one.
        outcomes: Tasks by how they ended.
        seconds: From the job's start to its end.
        model_path: The best version as a TFLite file.
    """

    strategy: str
    devices: int
    measurements: tuple[Measurement, ...]
    versions: int
    updates: int
    outcomes: Count
    reasons: Count
    seconds: float
    model_path: Path

    @property
    def best(self) -> Measurement:
        """The version with the highest metric: what `name@best` means and what is exported."""
        return max(self.measurements, key=lambda m: m.value)

    def reached(self, target: float) -> Measurement | None:
        """The first evaluated version at or above ``target``."""
        return next((m for m in self.measurements if m.value >= target), None)

    def as_json(
        self, metric: str, *, central: float, chance: float, target: float | None
    ) -> dict[str, Any]:
        """The record `flint demo --json` prints for a run."""
        record: dict[str, Any] = {
            "metric": {"name": metric, "value": self.best.value, "central": central},
            "strategy": self.strategy,
            "versions": self.versions,
            "outcomes": dict(self.outcomes),
            "seconds": round(self.seconds, 2),
            "model_path": str(self.model_path),
            "devices": self.devices,
            "chance": chance,
            "updates": self.updates,
            "best_version": self.best.version,
            "last_value": self.measurements[-1].value,
        }
        if target is not None:
            reached = self.reached(target)
            record["target"] = target
            record["updates_to_target"] = reached.updates if reached else None
            record["seconds_to_target"] = round(reached.elapsed_s, 2) if reached else None
        return record


def read_measurements(versions: Sequence[ModelVersion]) -> tuple[Measurement, ...]:
    """Evaluated versions of one job, in order."""
    return tuple(
        Measurement(
            int(version.job_version or 0),
            int(version.strategy_state.get("totals", {}).get("updates", 0)),
            float(version.strategy_state.get("totals", {}).get("elapsed_s", 0.0)),
            float(version.metrics["metric"]),
        )
        for version in sorted(versions, key=lambda v: int(v.job_version or 0))
        if "metric" in version.metrics
    )


def summary_json(
    runs: Sequence[StrategyRun],
    *,
    metric: str,
    central: float,
    chance: float,
    target: float | None,
) -> dict[str, Any]:
    """What `flint demo --json` prints: the best run's record, and all of them as ``runs``."""
    records = [run.as_json(metric, central=central, chance=chance, target=target) for run in runs]
    best = max(records, key=lambda record: float(record["metric"]["value"]))
    keys = ("metric", "strategy", "versions", "outcomes", "seconds", "model_path")
    return {key: best[key] for key in keys} | {"runs": records}
