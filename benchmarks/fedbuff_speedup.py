"""How much sooner FedBuff reaches a target metric than over-committed FedAvg, on the virtual clock.

Compared to the same AUPRC on held-out clients: virtual hours, tasks started and device hours, each
FedAvg's over FedBuff's of the same seed, as median and range over the seeds (above 1: FedBuff needs
less). FedAvg: rounds of 39 tasks of which the first 30 updates count (over-commitment 1.3). FedBuff
with as many tasks at work (concurrency 39) and as many updates a version (buffer 30); and with a
buffer of 10, as in its paper. All train alike on the device (`CLIENT`). Each chooses its server
optimiser from the same `SERVER_OPTIMIZERS`: for a data set the one that is soonest at the target in
the generated world, over two seeds that are not measured (within 1,500 updates). A seed decides the
initial model, who holds which device and link, and every draw of the run.

Worlds and data: `dry_run_cases.py`; recorded ones with ``--data``. 20,000 clients, re-sampled
(FLINT, section 5), check in every 15 minutes while they are there.

The curve: durations as heavy-tailed as one likes and nothing else in the way. 800 devices always
there, a check-in a minute, equal links, 40 records a client, 60 s a task in the median; the
logarithm of seconds per example has a standard deviation of s between device models and s within
each, so sqrt(2) s in all. A task has 600 s, as has a round. FedAvg also without over-commitment.
``rate`` is FedBuff's updates an hour over FedAvg's, ``needed`` its updates to the target over
FedAvg's: the speed-up is their quotient, what the clock gives over what staleness and chance take.

What limits the figure. ``rate`` is sure to some percent, ``needed`` varies from seed to seed by a
factor of two, so five seeds tell a speed-up no better than their range, and two seeds choose a
server optimiser no better. With C tasks at work FedBuff gets C / mean duration updates a second.
Over-committed FedAvg waits for the 30th of 39 durations only, as it throws the slowest away;
without over-commitment it waits for the slowest of 30 or the deadline, which cuts the tail for all.
Where devices that check in are scarce (``at_work`` far below 39) both wait for them, and little is
left but the over-commitment itself. FLINT's 1.2, 6 and 2 (Table 3) are of its own tasks and
populations.

    python benchmarks/fedbuff_speedup.py
"""

import argparse
import functools
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dry_run_cases import (
    MODEL,
    RECORDED,
    RECORDED_SETS,
    Case,
    add_clicks,
    add_recorded,
    even_world,
    generated_world,
    make_case,
    recorded_world,
)
from plots import error_bars, save, two_axes

from flint.catalog_session import CatalogSession, open_catalog
from flint.demo.click_data import ClickDataShape
from server.job import Job
from simulation.evaluation import TorchEvaluation
from simulation.executors.make import make_executor
from simulation.trial import Trial

CLIENT: dict[str, Any] = {
    "local_epochs": 3,
    "batch_size": 20,
    "max_records": 200,
    "optimizer": {"name": "sgd", "learning_rate": 2.0},
    "task_timeout_s": 600.0,
}
_ADAM = {"name": "adam", "beta_1": 0.8, "epsilon": 1e-4}
SERVER_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd 1": {"name": "sgd", "learning_rate": 1.0},
    "adam 0.001": _ADAM | {"learning_rate": 0.001},
    "adam 0.003": _ADAM | {"learning_rate": 0.003},
    "adam 0.01": _ADAM | {"learning_rate": 0.01},
}
_ROUND = {"name": "fedavg", "cohort_size": 30, "round_deadline_s": 600.0, "min_updates": 15}
_BUFFER = {"name": "fedbuff", "concurrency": 39, "max_staleness": 10}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": _ROUND | {"over_commitment": 1.3, "weighting": "uniform"},
    "fedavg_bare": _ROUND | {"over_commitment": 1.0, "weighting": "uniform"},
    "fedbuff": _BUFFER | {"buffer_size": 30},
    "fedbuff_10": _BUFFER | {"buffer_size": 10},
}
IN_TABLE = ("fedavg", "fedbuff", "fedbuff_10")
IN_CURVE = ("fedavg", "fedavg_bare", "fedbuff")
TARGETS = {"clicks": 0.45, "ads_movielens": 0.32, "msg_irc": 0.55, "equal_clicks": 0.42}
UPDATES_A_MEASUREMENT = 30
MAX_UPDATES = {"measured": 3000, "tuning": 1500}
POPULATION = 20_000
CURVE_POPULATION = 800
# Spread over all of a period: else windows open at the start would check in in one wave.
CHECK_IN = {"period_s": 900.0, "jitter": 0.95}
CURVE_CHECK_IN = {"period_s": 60.0, "jitter": 0.95}
SEEDS = (1, 2, 3, 4, 5)
TUNING_SEEDS = (101, 102)
SPREADS = (0.0, 0.25, 0.5, 1.0, 1.5)
TUNED_SPREAD = 0.5
PLOT = Path(__file__).resolve().parent / "results" / "fedbuff_speedup.svg"


@dataclass(frozen=True, slots=True)
class Run:
    """How a dry-run came to its target; costs are all up to that moment.

    Attributes:
        hours: Virtual; None if it never got there.
        updates: Aggregated.
        staleness: Mean over versions.
        at_work: Devices that work on a task, mean over time.
        duration_s: Mean and percentiles of the planned durations of its tasks.
    """

    hours: float | None
    tasks: int
    device_hours: float
    updates: int
    staleness: float
    at_work: float
    duration_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Order:
    """One dry-run to do; a worker finds its case by name."""

    case: str
    strategy: str
    optimizer: str
    seed: int


_cases: dict[str, Case] = {}
"""Filled before workers are forked, who share it."""


def job_of(order: Order, dataset: str, target: float) -> Job:
    strategy = STRATEGIES[order.strategy]
    most = MAX_UPDATES["tuning" if order.seed in TUNING_SEEDS else "measured"]
    every = UPDATES_A_MEASUREMENT // strategy.get("buffer_size", UPDATES_A_MEASUREMENT)
    return Job.model_validate(
        {
            "name": "speedup",
            "model": MODEL,
            "client": CLIENT,
            "strategy": strategy | {"server_optimizer": SERVER_OPTIMIZERS[order.optimizer]},
            "evaluation": {"dataset": dataset, "every": every},
            "stop": {"target": target, "max_updates": most, "max_hours": 100.0},
            "seed": order.seed,
        },
        strict=True,
    )


@functools.cache
def evaluation_of(name: str) -> TorchEvaluation:
    prepared = _cases[name].prepared
    if prepared.evaluation is None:
        raise ValueError(f"{name} has no evaluation")
    return TorchEvaluation(prepared.dry_run.model, *prepared.evaluation.heldout(), "auprc")


def run(order: Order) -> Run:
    case = _cases[order.case]
    dry_run = case.dry_run(job_of(order, case.dataset, case.target))
    executor = make_executor("local", 1, dry_run.model, dry_run.job.client, case.prepared.records)
    result = Trial(dry_run, 0, executor, evaluation_of(order.case)).run()
    executor.close()
    tasks, trajectory = result.tasks, result.trajectory
    planned_s = sum(tasks[name].to_numpy() for name in ("download_s", "train_s", "upload_s"))
    device_s = float(np.sum(tasks["device_s"].to_numpy()))
    is_there = result.stop_reason.startswith("target")
    print(f"{order}: {result.stop_reason}, {result.virtual_s / 3600:.2f} h", file=sys.stderr)
    return Run(
        hours=result.virtual_s / 3600.0 if is_there else None,
        tasks=len(tasks),
        device_hours=device_s / 3600.0,
        updates=sum(trajectory["updates"].to_pylist()),
        staleness=float(np.mean(trajectory["staleness_mean"].drop_null())),
        at_work=device_s / result.virtual_s,
        duration_s={"mean": float(np.mean(planned_s))}
        | {f"p{p}": float(np.percentile(planned_s, p)) for p in (50, 77, 95, 99)},
    )


def run_all(orders: Sequence[Order], workers: int) -> dict[Order, Run]:
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        return dict(zip(orders, pool.map(run, orders), strict=True))


def make_cases(catalog: CatalogSession, folder: Path, data: Path | None) -> dict[str, str]:
    """Fill `_cases`; returns, by name of each that is in the table, the one it is tuned in."""

    def add(name: str, dataset: str, world: Mapping[str, Any], **rest: Any) -> None:  # noqa: ANN401
        target = TARGETS[dataset.partition("@")[0]]
        job = job_of(Order(name, "fedavg", "sgd 1", 0), dataset, target)
        _cases[name] = make_case(catalog, job, world, target=target, **rest)

    shape = ClickDataShape(median_records=25.0, max_records=500)
    sets = [add_clicks(catalog, folder, "clicks", shape)]
    worlds = {"generated": generated_world(folder / "generated")}
    if data is not None:
        sets += [add_recorded(catalog, data, name) for name in RECORDED_SETS]
        worlds["recorded"] = recorded_world(data)
    tuned_in = {}
    for dataset in sets:
        name = dataset.partition("@")[0]
        for world, traces in worlds.items():
            add(f"{name}, {world}", dataset, traces, clients=POPULATION, check_in=CHECK_IN)
            tuned_in[f"{name}, {world}"] = f"{name}, generated"
    alike = ClickDataShape(median_records=40.0, records_sigma=0.0)
    equal = add_clicks(catalog, folder, "equal_clicks", alike)
    for spread in SPREADS:
        traces = even_world(folder / f"spread-{spread}", spread=spread, per_example_s=0.5)
        settings = {"clients": CURVE_POPULATION, "check_in": CURVE_CHECK_IN}
        add(curve_case(spread), equal, traces, **settings)
    return tuned_in


def curve_case(spread: float) -> str:
    return f"curve {spread}"


def tuned(keys: Iterable[tuple[str, str]], workers: int) -> dict[tuple[str, str], str]:
    """By case and strategy, the server optimiser that is soonest at the target."""
    trials = {
        (key, optimizer): [Order(*key, optimizer, seed) for seed in TUNING_SEEDS]
        for key in keys
        for optimizer in SERVER_OPTIMIZERS
    }
    runs = run_all([order for orders in trials.values() for order in orders], workers)

    def cost(key: tuple[str, str], optimizer: str) -> tuple[int, float]:
        found = [runs[order].hours for order in trials[key, optimizer]]
        reached = [hours for hours in found if hours is not None]
        return -len(reached), sum(reached)

    chosen: dict[tuple[str, str], str] = {}
    for key, optimizer in trials:
        if key not in chosen or cost(key, optimizer) < cost(key, chosen[key]):
            chosen[key] = optimizer
    return chosen


def spread_of(values: Iterable[float]) -> dict[str, float] | None:
    found = [round(value, 3) for value in values]
    if not found:
        return None
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def in_short(runs: Sequence[Run], optimizer: str) -> dict[str, Any]:
    reached = [run for run in runs if run.hours is not None]
    names = ("hours", "tasks", "device_hours", "updates", "staleness", "at_work")
    return {"server_optimizer": optimizer, "reached": len(reached)} | {
        name: spread_of(getattr(run, name) for run in reached) for name in names
    }


def compared(sync: Sequence[Run], buffered: Sequence[Run]) -> dict[str, Any]:
    """What FedAvg needs of each over what FedBuff needs, seed by seed."""
    pairs = [
        (a, b, a.hours / b.hours)
        for a, b in zip(sync, buffered, strict=True)
        if a.hours is not None and b.hours is not None
    ]
    return {
        "seeds": len(pairs),
        "speed_up": spread_of(speed_up for _, _, speed_up in pairs),
        "tasks": spread_of(a.tasks / b.tasks for a, b, _ in pairs),
        "device_hours": spread_of(a.device_hours / b.device_hours for a, b, _ in pairs),
        "rate": spread_of(speed_up * b.updates / a.updates for a, b, speed_up in pairs),
        "needed": spread_of(b.updates / a.updates for a, b, _ in pairs),
    }


def measure(tuned_in: Mapping[str, str], workers: int) -> dict[str, Any]:
    middle = curve_case(TUNED_SPREAD)
    keys = [(case, strategy) for case in dict.fromkeys(tuned_in.values()) for strategy in IN_TABLE]
    chosen = tuned([*keys, *((middle, strategy) for strategy in IN_CURVE)], workers)
    optimizers = {(case, s): chosen[tuned_in[case], s] for case in tuned_in for s in IN_TABLE} | {
        (curve_case(spread), s): chosen[middle, s] for spread in SPREADS for s in IN_CURVE
    }
    orders = {key: [Order(*key, o, seed) for seed in SEEDS] for key, o in optimizers.items()}
    done = run_all([order for group in orders.values() for order in group], workers)
    runs = {key: [done[order] for order in group] for key, group in orders.items()}

    def figures(case: str, strategies: Sequence[str], pairs: Mapping[str, str]) -> dict[str, Any]:
        return {
            "duration_s": {k: round(v, 1) for k, v in runs[case, "fedavg"][0].duration_s.items()},
            **{f"{a}_over_{b}": compared(runs[case, a], runs[case, b]) for b, a in pairs.items()},
            **{s: in_short(runs[case, s], optimizers[case, s]) for s in strategies},
        }

    table_pairs = {"fedbuff": "fedavg", "fedbuff_10": "fedavg"}
    return {
        "cases": {case: figures(case, IN_TABLE, table_pairs) for case in tuned_in},
        "curve": [
            {"log_stdev": spread}
            | figures(curve_case(spread), IN_CURVE, {"fedbuff": "fedavg"})
            | {
                "fedavg_bare_over_fedbuff": compared(
                    runs[curve_case(spread), "fedavg_bare"], runs[curve_case(spread), "fedbuff"]
                )
            }
            for spread in SPREADS
        ],
    }


def plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw speed-ups of all cases, and the curve: median and range over the seeds."""
    frame, left, right = two_axes()
    cases, curve = figures["cases"], figures["curve"]
    for shift, pair, label, colour in (
        (-0.14, "fedavg_over_fedbuff", "FedBuff, buffer 30", "#1f77b4"),
        (0.14, "fedavg_over_fedbuff_10", "FedBuff, buffer 10", "#d95f02"),
    ):
        points = [(row + shift, case[pair]["speed_up"]) for row, case in enumerate(cases.values())]
        error_bars(left, points, colour, label, across=True)
    left.set_yticks(range(len(cases)), list(cases))
    left.invert_yaxis()
    left.set_xlim(left=0)
    left.set_xlabel("virtual hours to the target: over-committed FedAvg / FedBuff")
    left.axvline(1.0, color="#aaaaaa", linestyle=":")
    for pair, label, colour in (
        ("fedavg_over_fedbuff", "FedAvg with over-commitment 1.3", "#1f77b4"),
        ("fedavg_bare_over_fedbuff", "FedAvg without", "#444444"),
    ):
        at = [each["log_stdev"] * 2**0.5 for each in curve]
        speed_ups = [each[pair]["speed_up"] for each in curve]
        error_bars(right, zip(at, speed_ups, strict=True), colour, label, across=False)
        rates = [each[pair]["rate"]["median"] for each in curve]
        right.plot(at, rates, color=colour, linestyle="--", label=f"{label}: updates an hour")
    right.set_xlabel("standard deviation of the logarithm of seconds per example")
    right.set_ylabel("virtual hours: FedAvg / FedBuff, buffer 30")
    right.set_ylim(0, 1.4 * right.get_ylim()[1])  # room for the legend
    right.axhline(1.0, color="#aaaaaa", linestyle=":")
    save(frame, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=RECORDED, help="recorded traces and sets")
    parser.add_argument("--workers", type=int, default=2, help="dry-runs at once")
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    data = options.data if options.data.is_dir() else None
    if data is None:
        print(f"there is no {options.data}: generated world and clicks only", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="flint-speedup-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres has a system user of its own where root runs this
        with open_catalog(folder / "home") as catalog:
            tuned_in = make_cases(catalog, folder, data)
            figures = measure(tuned_in, options.workers)
    result = {
        "figure": "fedbuff_speedup",
        "model": MODEL,
        "recorded_data": data is not None,
        "seeds": len(SEEDS),
        "targets": TARGETS,
        "clients": POPULATION,
        "curve_clients": CURVE_POPULATION,
        **figures,
    }
    plot(result, options.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
