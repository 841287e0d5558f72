"""One and two executors of a Ray cluster measured; what twenty nodes would do, projected.

What is measured: rounds of FedAvg on `flb1_workload`, models A and B, cohorts of 20, 100 and 400,
by `RayExecutors` of one and of two actors on this machine: CPU seconds of the leader, of Ray's own
processes and of the actors, a round. CPU, because cores are busy with others.

What is fitted to that, by least squares without negative terms: a message, a byte, a task and a
round at the leader; a message and a byte in Ray; a message, a byte and a task of each model at an
executor. ``fit_error`` is the median relative error of the fit over what was measured.

What is projected, **and was not run**: a round on ``--nodes`` nodes, one executor each. Leader, all
of Ray, slowest executor and network follow one another, nothing overlaps: the cautious side. Shares
are those that the executors would have of drawn cohorts. Network: ``--gbit_s`` at the leader and a
millisecond there and back, both assumed. Beside it stands how often FLINT's own figure that is,
60,000 tasks an hour on 20 executors, on other models and machines: an order of magnitude, no more.

The limit is at the leader: a message and 12 bytes a parameter for each executor and round.

    python benchmarks/ray_scaling.py
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from flb1_workload import LEARNING_RATE, Workload, make_workload
from numpy.typing import NDArray
from scipy.optimize import nnls

from device_runtime.update_codec import flatten
from simulation.cluster_settings import ClusterSettings
from simulation.executors.ray_cluster import ClusterConnection
from simulation.executors.ray_executors import RayExecutors
from simulation.executors.task_columns import TaskColumns, TaskIds
from simulation.executors.training import LocalPlan

MODELS = ("A", "B")
ACTORS = (1, 2)
COHORTS = (20, 100, 400)
BYTES_A_PARAMETER = 12  # a weight there, a float64 of the sum back
LATENCY_MS = 1.0
FLINT_TASKS_PER_S = 60_000 / 3600
PLAN = LocalPlan(1, 20, max_records=400)


@dataclass(frozen=True, slots=True)
class Point:
    """A round, measured; milliseconds of CPU.

    Attributes:
        megabytes: To and from one executor.
        wall_ms: As it was, on cores that others use too.
    """

    model: str
    actors: int
    cohort: int
    megabytes: float
    leader_ms: float
    ray_ms: float
    actors_ms: float
    wall_ms: float


def columns_of(work: Workload, at: int) -> TaskColumns:
    clients = work.cohorts[at]
    numbers = at * 1_000_003 + np.arange(len(clients))
    return TaskColumns(
        TaskIds(numbers),
        clients,
        np.full(len(clients), at),
        work.records.records[clients].astype(np.float64),
        np.full(len(clients), LEARNING_RATE),
        numbers.astype(np.uint64),
        clients,
    )


def processes(actors: int) -> tuple[list[int], list[int]]:
    """Ray's own processes below this one, and those of so many actors.

    A process bears its actor's name some milliseconds after it answers.
    """
    end_s = time.monotonic() + 10.0
    while time.monotonic() < end_s:
        ray, trained = [], []
        for process in psutil.Process().children(recursive=True):
            command = " ".join(process.cmdline())
            if "ray::PartitionActor" in command:
                trained.append(process.pid)
            elif "raylet" in command or "gcs_server" in command:
                ray.append(process.pid)
        if len(trained) == actors:
            return ray, trained
    raise RuntimeError(f"{len(trained)} processes of actors, not {actors}")


def cpu_ms(pids: Sequence[int]) -> float:
    """All threads, user and system."""
    ticks = 0.0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            ticks += int((thread / "schedstat").read_text().split()[0]) / 1e6
    return ticks


def measure(executors: RayExecutors, actors: int, work: Workload, model: str) -> Point:
    """The mean over all cohorts, after a round that is not counted."""
    weights = flatten(work.start)
    tasks = [columns_of(work, at) for at in range(len(work.cohorts))]
    before: tuple[float, ...] = ()
    for at, cohort in enumerate(tasks):
        if at == 1:
            ray, trained = processes(actors)
            before = (time.process_time() * 1e3, cpu_ms(ray), cpu_ms(trained), time.perf_counter())
        executors.set_weights(at, weights)
        (partial,) = executors.reduce(cohort).sums
        executors.forget_weights(at + 1)
        weights = weights + partial.total / np.float32(partial.weight)
    wall_ms = (time.perf_counter() - before[3]) * 1e3
    after = (time.process_time() * 1e3, cpu_ms(ray), cpu_ms(trained))
    used = [(now - then) / (len(tasks) - 1) for now, then in zip(after, before[:3], strict=True)]
    megabytes = BYTES_A_PARAMETER * work.spec.parameter_count / 1e6
    cohort_size = len(work.cohorts[0])
    return Point(model, actors, cohort_size, megabytes, *used, wall_ms / (len(tasks) - 1))


@dataclass(frozen=True, slots=True)
class Costs:
    """Milliseconds; see the module."""

    leader: NDArray[np.float64]  # a round, a message, a megabyte, a task
    ray: NDArray[np.float64]  # a message, a megabyte
    executor: NDArray[np.float64]  # a message, a megabyte, a task of each model
    error: float

    @classmethod
    def fitted(cls, points: Sequence[Point]) -> "Costs":
        """The costs that come nearest to what was measured."""
        messages = np.array([p.actors for p in points], np.float64)
        moved = messages * [p.megabytes for p in points]
        tasks = np.array([p.cohort for p in points], np.float64)
        of_model = [tasks * [p.model == model for p in points] for model in MODELS]
        once = np.ones(len(points))
        leader, leader_off = _fit([once, messages, moved, tasks], [p.leader_ms for p in points])
        ray, ray_off = _fit([messages, moved], [p.ray_ms for p in points])
        executor, off = _fit([messages, moved, *of_model], [p.actors_ms for p in points])
        return cls(leader, ray, executor, median([*leader_off, *ray_off, *off]))

    def round_ms(
        self, model: str, nodes: int, cohort: int, megabytes: float, largest: float, gbit_s: float
    ) -> dict[str, float]:
        """A round's parts, one after the other.

        Args:
            largest: Share of the work that the busiest executor has.
        """
        task_ms = self.executor[2 + MODELS.index(model)]
        return {
            "leader": float(self.leader @ [1, nodes, nodes * megabytes, cohort]),
            "ray": float(self.ray @ [nodes, nodes * megabytes]),
            "executor": float(self.executor[:2] @ [1, megabytes] + task_ms * cohort * largest),
            "network": nodes * megabytes * 8 / gbit_s + LATENCY_MS,
        }


def _fit(
    columns: Sequence[NDArray[np.float64]], found: Sequence[float]
) -> tuple[NDArray[np.float64], list[float]]:
    """Least squares of relative errors; coefficients, and the errors."""
    matrix = np.stack(columns, axis=1) / np.array(found)[:, None]
    coefficients, _ = nnls(matrix, np.ones(len(found)))
    return coefficients, np.abs(matrix @ coefficients - 1).tolist()


def largest_share(work: Workload, executors: RayExecutors, nodes: int) -> float:
    """Of the records of drawn cohorts, that of the busiest of ``nodes`` executors; the mean."""
    owner = executors.path.executor_of(nodes)
    shares = [
        np.bincount(owner[cohort], work.records.records[cohort], nodes) for cohort in work.cohorts
    ]
    return float(np.mean([share.max() / share.sum() for share in shares]))


def run(options: argparse.Namespace) -> dict[str, object]:
    points: list[Point] = []
    shares: dict[tuple[str, int], tuple[float, float]] = {}
    # Whatever is measured first finds the cluster; it goes with this process.
    cluster = ClusterConnection("local", max(ACTORS))
    try:
        for model in MODELS:
            for actors in ACTORS:
                rounds = (100 if model == "A" else 10) + 1
                executors = None
                for cohort in COHORTS:
                    work = make_workload(model, cohort=cohort, rounds=rounds, seed=options.seed)
                    if executors is None:
                        executors = RayExecutors(
                            actors, work.spec, PLAN, work.records, ClusterSettings("local")
                        )
                    points.append(measure(executors, actors, work, model))
                assert executors is not None
                for cohort in options.cohorts:
                    work = make_workload(model, cohort=cohort, rounds=20, seed=options.seed)
                    megabytes = points[-1].megabytes
                    shares[model, cohort] = largest_share(work, executors, options.nodes), megabytes
                executors.close()
    finally:
        cluster.close()
    costs = Costs.fitted(points)
    projected = []
    for (model, cohort), (largest, megabytes) in shares.items():
        parts = costs.round_ms(model, options.nodes, cohort, megabytes, largest, options.gbit_s)
        tasks_per_s = cohort / sum(parts.values()) * 1e3
        projected.append(
            {
                "model": model,
                "cohort": cohort,
                "largest_share": round(largest, 3),
                "tasks_per_s": round(tasks_per_s),
                "tasks_per_h": round(tasks_per_s * 3600),
                "times_flint_60000_per_h": round(tasks_per_s / FLINT_TASKS_PER_S),
                "round_ms": {name: round(value, 2) for name, value in parts.items()},
            }
        )
    return {
        "figure": "ray_scaling",
        "ray": version("ray"),
        "measured": [
            {
                "model": p.model,
                "actors": p.actors,
                "cohort": p.cohort,
                "tasks_per_cpu_s": round(p.cohort / (p.leader_ms + p.ray_ms + p.actors_ms) * 1e3),
                "tasks_per_wall_s": round(p.cohort / p.wall_ms * 1e3),
                "leader_ms": round(p.leader_ms, 3),
                "ray_ms": round(p.ray_ms, 3),
                "actors_ms": round(p.actors_ms, 3),
            }
            for p in points
        ],
        "fitted_ms": {
            "leader": _named(costs.leader, ("round", "message", "megabyte", "task")),
            "ray": _named(costs.ray, ("message", "megabyte")),
            "executor": _named(costs.executor, ("message", "megabyte", "task_a", "task_b")),
            "fit_error": round(costs.error, 3),
        },
        "projection": True,
        "projected": {
            "nodes": options.nodes,
            "executors": options.nodes,
            "assumed_gbit_s": options.gbit_s,
            "assumed_latency_ms": LATENCY_MS,
            "was_run": False,
            "rounds": projected,
        },
        "load": round(os.getloadavg()[0], 1),
    }


def _named(values: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in zip(names, values, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--gbit_s", type=float, default=10.0)
    parser.add_argument("--cohorts", type=int, nargs="+", default=[100, 1000, 4000])
    parser.add_argument("--seed", type=int, default=20_240_601)
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
