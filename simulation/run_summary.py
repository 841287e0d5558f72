"""What came of a dry-run, in numbers: per trial, and over all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.trajectory import OUTCOMES, events_sha256, trajectory_sha256
from simulation.trial import TrialResult
from simulation.update_log import diverged_as_json
from simulation.world import SimulatedPopulation

TIERS = ("fast", "middle", "slow")
_GRID_POINTS = 1000
_GRID_STEP_S = 900.0

MetricByTier = Callable[
    [NDArray[np.float32], NDArray[np.int64], Sequence[str]], Mapping[str, float | None]
]
"""Metric by tier of a model's weights, given each client's data client and its tier."""


def population_table(population: SimulatedPopulation, data_client_ids: pa.Array) -> pa.Table:
    """Who is who, with device model, records, median seconds per example and tier.

    Args:
        data_client_ids: By index in the data set.
    """
    world = population.world
    named = population.mapping.to_table(data_client_ids, world.trace.client_ids)
    models = pa.array(world.profiles.device_models)
    return (
        named.append_column("device_model", models.take(pa.array(population.devices.device_model)))
        .append_column("records", pa.array(population.records, pa.int64()))
        .append_column("per_example_s", pa.array(population.median_per_example_s()))
        .append_column("tier", pa.array([TIERS[tier] for tier in tiers(population)]))
    )


def tiers(population: SimulatedPopulation) -> NDArray[np.int64]:
    """Index into `TIERS` of each client: terciles of its device's median seconds per example."""
    return speed_tiers(population.median_per_example_s())


def speed_tiers(median_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into `TIERS` by terciles of seconds per example; equal ones stay together."""
    bounds = np.quantile(median_s, [1 / 3, 2 / 3], method="inverted_cdf")
    return np.searchsorted(bounds, median_s, side="left").astype(np.int64)


def availability_table(population: SimulatedPopulation, until_s: float) -> pa.Table:
    """Clients inside a window over a run: columns ``virtual_s, available``."""
    step_s = max(_GRID_STEP_S, until_s / _GRID_POINTS)
    times_s = np.arange(0.0, until_s + step_s, step_s)
    return pa.table({"virtual_s": times_s, "available": population.count_available(times_s)})


def summarise(
    population: SimulatedPopulation, result: TrialResult, by_tier: MetricByTier | None
) -> dict[str, Any]:
    """Figures of one trial, as they are recorded.

    The best metric is the highest: all of `modeling.metrics` are better when higher, and what
    `simulation.flower.rounds` takes for a Flower app's metric is no loss and no error.

    Args:
        by_tier: Measures the last version per tier; None when the job asks for no evaluation.
    """
    tasks, trajectory = result.tasks, result.trajectory
    measured = trajectory["metric"].drop_null()
    outcomes = _counts(tasks["outcome"])
    wasted = pc.not_equal(tasks["outcome"], "succeeded")
    return {
        "trial": result.trial,
        "stop_reason": result.stop_reason,
        "trajectory_sha256": trajectory_sha256(trajectory),
        "events_sha256": events_sha256(trajectory, tasks),
        "virtual_hours": result.virtual_s / 3600.0,
        "aggregations": int(trajectory["version"][-1].as_py()),
        "metric": measured[-1].as_py() if len(measured) else None,
        "best_metric": pc.max(measured).as_py(),
        "tasks_started": len(tasks),
        "outcomes": {outcome: outcomes.get(outcome, 0) for outcome in OUTCOMES},
        "diverged": diverged_as_json(result.diverged),
        "device_hours": _sum(tasks["device_s"]) / 3600.0,
        "wasted_device_hours": _sum(tasks.filter(wasted)["device_s"]) / 3600.0,
        "bytes_up": int(_sum(tasks["bytes_up"])),
        "bytes_down": int(_sum(tasks["bytes_down"])),
        "wall_s": result.wall_s,
        "tiers": _by_tier(population, result, by_tier),
    }


def over_trials(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of every figure over trials, by name."""
    spread = {}
    for name, value in trials[0].items():
        values = [trial[name] for trial in trials]
        if name == "trial" or isinstance(value, (str, dict, list)) or None in values:
            continue
        stdev = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        spread[name] = {"mean": float(np.mean(values)), "stdev": stdev}
    return spread


def _by_tier(
    population: SimulatedPopulation, result: TrialResult, by_tier: MetricByTier | None
) -> list[dict[str, Any]]:
    tier = tiers(population)
    clients = np.bincount(tier, minlength=len(TIERS))
    task_tier = tier[result.tasks["client"].to_numpy()]
    succeeded = pc.equal(result.tasks["outcome"], "succeeded").to_numpy(zero_copy_only=False)
    metrics: Mapping[str, float | None] = {}
    if by_tier is not None:
        names = [TIERS[each] for each in tier]
        metrics = by_tier(result.weights, population.mapping.data_client.astype(np.int64), names)
    return [
        {
            "tier": name,
            "clients": int(clients[index]),
            "tasks": int((task_tier == index).sum()),
            "succeeded": int((task_tier[succeeded] == index).sum()),
            "metric": metrics.get(name),
        }
        for index, name in enumerate(TIERS)
    ]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _sum(column: pa.ChunkedArray) -> float:
    total = pc.sum(column).as_py()
    return 0.0 if total is None else total
