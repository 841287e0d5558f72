r"""What FedBuff's small groups cost the kernel: ten tasks at a time against a hundred.

What is compared: `LocalExecutor` with itself on FLB-1: rounds of ``--groups`` tasks (10) and rounds
of ``--cohort`` (100), each with a new version of the weights to start from and a sum to be made of
its tasks. That is FedBuff in its steady state, where about as many tasks start from a version as a
buffer holds, and a dry-run trains them together. ``ratio_mixed_versions`` is harder: the ten tasks
of an aggregation start from `VERSIONS` different versions, two or three from each.

How: as `flb1.py`; in turn, one thread, medians, CPU seconds of a task.

The limit is what a group pays once, weights made ready for the kernel and a sum of as many numbers
as parameters, and smaller products of matrices.

    python benchmarks/flb1_groups.py --model B
"""

import argparse
import dataclasses
import json
import os
import time

import numpy as np
import torch
from flb1_turns import OurRounds, Spent, cpu_ratio, in_turn, tasks_a_cpu_s
from flb1_workload import (
    ROUNDS,
    WIDTHS,
    Workload,
    add_plan_options,
    make_workload,
    outputs_of,
    plan_of,
    tasks_of,
)

from device_runtime.update_codec import flatten
from simulation.executors import Executor
from simulation.executors.local import LocalExecutor

VERSIONS = 4


class MixedRounds:
    """Aggregations of tasks that start from the newest `VERSIONS` versions in turn, as it comes."""

    def __init__(self, executor: Executor, work: Workload) -> None:
        self._executor, self._weights = executor, flatten(work.start)
        self._tasks = [tasks_of(work, at) for at in range(len(work.cohorts))]
        self._done = 0

    def __call__(self, count: int) -> Spent:
        """Do so many aggregations."""
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        self._executor.set_weights(self._done, self._weights)
        for _ in range(count):
            tasks = self._tasks[self._done % len(self._tasks)]
            age = np.minimum(np.arange(len(tasks)) % VERSIONS, self._done)
            reduced = self._executor.reduce(
                dataclasses.replace(tasks, base_version=self._done - age)
            )
            total = sum(partial.total for partial in reduced.sums)
            weight = np.float32(sum(partial.weight for partial in reduced.sums))
            self._weights = self._weights + total / weight
            self._done += 1
            self._executor.set_weights(self._done, self._weights)
            self._executor.forget_weights(self._done - VERSIONS)
        return Spent(time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--groups", type=int, default=10, help="tasks of a small group")
    parser.add_argument("--turns", type=int, default=7, help="that are timed")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(options)
    whole = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    # The very clients of the large cohorts, so that both train the same records.
    parts = [
        part for each in whole.cohorts for part in np.split(each, options.cohort // options.groups)
    ]
    small = dataclasses.replace(whole, cohorts=parts)
    executors = [LocalExecutor(whole.spec, plan, whole.records) for _ in range(3)]
    sides = {
        "large": OurRounds(executors[0], whole),
        "small": OurRounds(executors[1], small),
        "mixed": MixedRounds(executors[2], small),
    }
    found = in_turn(sides, options.turns)
    scale = options.cohort / options.groups
    result = {
        "figure": "flb1_groups",
        "model": options.model,
        "group": options.groups,
        "cohort": options.cohort,
        "outputs": outputs_of(plan),
        "tasks_per_core_s": tasks_a_cpu_s(options.groups, found["small"]),
        "tasks_per_core_s_of_the_cohort": tasks_a_cpu_s(options.cohort, found["large"]),
        "tasks_per_core_s_mixed_versions": tasks_a_cpu_s(options.groups, found["mixed"]),
        "ratio_to_the_cohort": round(cpu_ratio(found["large"], found["small"]) / scale, 3),
        "ratio_mixed_versions": round(cpu_ratio(found["large"], found["mixed"]) / scale, 3),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
