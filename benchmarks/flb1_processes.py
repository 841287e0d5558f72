"""From one executor process to two on FLB-1, with all they exchange: how much faster?

What is compared: rounds of FedAvg on `flb1_workload` by `ProcessExecutors` of one process and of
``--processes``, in turn; a round is what a dry-run does of it: the weights to all processes, tasks
as columns, statistics and sums back, the average, the version forgotten.

How: ``speedup_wall`` is the ratio of medians of wall seconds, and means what it says on idle cores
alone. ``speedup_cpu`` holds on busy ones too: a round then takes the CPU seconds of the leader and
those of the slowest process, which leaves out that messages take a while to arrive. ``balance`` is
the mean share of work over the largest.

The limit is the processes' number times ``balance``, less the leader: it deals out, and adds up
the sums in memory that all share (20 bytes a parameter and process), while nobody trains.

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
from flb1_workload import MOST_RECORDS, WIDTHS, Workload, make_workload, tasks_of
from numpy.typing import NDArray

from device_runtime.update_codec import flatten
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan

Seconds = tuple[float, float, list[float]]
"""Wall, CPU of the leader, CPU of each process."""


class Side:
    """Executors of some processes, and what these have used."""

    def __init__(self, processes: int, work: Workload, plan: LocalPlan) -> None:
        others = set(psutil.Process().children())
        self.executors = ProcessExecutors(processes, work.spec, plan, work.records)
        self._pids = [c.pid for c in psutil.Process().children() if c not in others]

    def cpu_s(self) -> list[float]:
        """Of each process, since its start."""
        files = (Path(f"/proc/{pid}/schedstat") for pid in self._pids)
        return [int(file.read_text().split()[0]) / 1e9 for file in files]


def rounds_of(side: Side, work: Workload, weights: NDArray[np.float32]) -> Seconds:
    """Seconds of a round, the mean over all cohorts."""
    tasks = [tasks_of(work, at) for at in range(len(work.cohorts))]
    before_s = side.cpu_s()
    wall_s, leader_s = time.perf_counter(), time.process_time()
    for at, cohort in enumerate(tasks):
        side.executors.set_weights(at, weights)
        (partial,) = side.executors.reduce(cohort).sums
        side.executors.forget_weights(at + 1)
        weights = weights + partial.total / np.float32(partial.weight)
    leader_s = time.process_time() - leader_s
    wall_s = time.perf_counter() - wall_s
    used_s = [after - before for after, before in zip(side.cpu_s(), before_s, strict=True)]
    count = len(tasks)
    return wall_s / count, leader_s / count, [each / count for each in used_s]


def measure(options: argparse.Namespace) -> dict[str, object]:
    rounds = options.rounds or (400 if options.model == "A" else 25)
    work = make_workload(options.model, cohort=options.cohort, rounds=rounds, seed=options.seed)
    plan = LocalPlan(1, 20, MOST_RECORDS)
    weights = flatten(work.start)
    sides = {1: Side(1, work, plan), options.processes: Side(options.processes, work, plan)}
    found: dict[int, list[Seconds]] = {count: [] for count in sides}
    for number in range(options.repeats + 1):
        for count, side in sides.items():
            seconds = rounds_of(side, work, weights)
            if number:  # the first has compiled what it needs
                found[count].append(seconds)
    for side in sides.values():
        side.executors.close()
    wall_s = {count: median(wall for wall, _, _ in each) for count, each in found.items()}
    cpu_s = {count: median(own + max(p) for _, own, p in each) for count, each in found.items()}
    many = found[options.processes]
    return {
        "figure": "flb1_processes",
        "model": options.model,
        "cohort": options.cohort,
        "rounds": rounds,
        "processes": options.processes,
        "speedup_wall": round(wall_s[1] / wall_s[options.processes], 3),
        "speedup_cpu": round(cpu_s[1] / cpu_s[options.processes], 3),
        "balance": round(median(sum(p) / len(p) / max(p) for _, _, p in many), 3),
        "leader_share": round(median(own / (own + max(p)) for _, own, p in many), 3),
        "round_ms": {count: round(seconds * 1e3, 3) for count, seconds in wall_s.items()},
        "round_cpu_ms": {count: round(seconds * 1e3, 3) for count, seconds in cpu_s.items()},
        "leader_cpu_ms": {
            count: round(1e3 * median(own for _, own, _ in each), 3)
            for count, each in found.items()
        },
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
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
