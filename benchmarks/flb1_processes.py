"""From one executor process to two on FLB-1, with all they exchange: how much faster?

What is compared: rounds of FedAvg on `flb1_workload` by the executor that a dry-run has for one
(`LocalExecutor`, in the run's own process) and for ``--processes`` of them (`ProcessExecutors`, the
run's own and others), in turn. A round is what a dry-run does of it: a version set, tasks as
columns, statistics and sums, the average, the version forgotten; the next begins at once.

How: ``speedup_wall`` is the ratio of medians of wall seconds, and means what it says on idle cores
alone. ``others_busy`` is how much of that time a process beside the run's own has a core, be it
to train or to look for what is posted next.

The limit is the number of processes: work is taken, not dealt, so it is even but for the last task.
What keeps from it is what the run does alone while nobody trains: to set the version, to post
tasks and to put sums together.

    python benchmarks/flb1_processes.py --model B
"""

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from flb1_turns import our_round
from flb1_workload import MOST_RECORDS, WIDTHS, Workload, make_workload, tasks_of
from numpy.typing import NDArray

from device_runtime.update_codec import flatten
from simulation.executors.executor import Executor
from simulation.executors.local import LocalExecutor
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan


def round_s(executor: Executor, work: Workload, weights: NDArray[np.float32]) -> float:
    """Wall seconds of a round, the mean over all cohorts."""
    tasks = [tasks_of(work, at) for at in range(len(work.cohorts))]
    begun_s = time.perf_counter()
    for at, cohort in enumerate(tasks):
        weights = our_round(executor, cohort, at, weights)
    return (time.perf_counter() - begun_s) / len(tasks)


def children_cpu_s() -> float:
    """Of all processes that this one has started."""
    files = (Path(f"/proc/{c.pid}/schedstat") for c in psutil.Process().children())
    return sum(int(file.read_text().split()[0]) / 1e9 for file in files)


def measure(options: argparse.Namespace) -> dict[str, object]:
    rounds = options.rounds or (400 if options.model == "A" else 25)
    work = make_workload(options.model, cohort=options.cohort, rounds=rounds, seed=options.seed)
    plan = LocalPlan(1, 20, MOST_RECORDS)
    weights = flatten(work.start)
    many = ProcessExecutors(options.processes, work.spec, plan, work.records)
    sides: dict[int, Executor] = {
        1: LocalExecutor(work.spec, plan, work.records),
        options.processes: many,
    }
    found: dict[int, list[float]] = {count: [] for count in sides}
    others_s: list[float] = []
    for number in range(options.repeats + 1):
        for count, executor in sides.items():
            before_s = children_cpu_s()
            seconds = round_s(executor, work, weights)
            if number:  # the first has compiled what it needs
                found[count].append(seconds)
                if count > 1:
                    others_s.append((children_cpu_s() - before_s) / rounds)
    many.close()
    wall_s = {count: median(each) for count, each in found.items()}
    return {
        "figure": "flb1_processes",
        "model": options.model,
        "cohort": options.cohort,
        "rounds": rounds,
        "processes": options.processes,
        "speedup_wall": round(wall_s[1] / wall_s[options.processes], 3),
        "others_busy": round(
            median(others_s) / (options.processes - 1) / wall_s[options.processes], 3
        ),
        "round_ms": {count: round(seconds * 1e3, 3) for count, seconds in wall_s.items()},
        "tasks_per_s": {
            count: round(options.cohort / seconds) for count, seconds in wall_s.items()
        },
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--rounds", type=int, help="of a repeat; default: 25, 400 for model A")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=20_240_601)
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    options = parser.parse_args()
    if options.processes < 2:
        parser.error("--processes must be 2 or more: they are compared with one")
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
