r"""What a dry-run's bookkeeping costs: a whole trial beside the kernel that trains for it.

What is compared: CPU seconds of one trial as `flint simulate` runs it (`experiment.run_trial`),
with its events, its table of tasks, its trajectory, a checkpoint a second and both tables written
as Parquet; and of the same executor alone on as many rounds of as many tasks. The trial is over
FLB-1's data in the world of `system_only`: 10,000 clients, each there in one window a day, no
evaluation. FedAvg has rounds of 100 of 130 asked; what is over-committed is never trained.
FedBuff has buffers of 10 and 75 tasks at a time, so an aggregation comes after a tenth of the
training, of several base versions.

How: in turn, one process on one thread, medians. What is trained is the same number of tasks of the
same clients' data, for FedAvg in rounds of the same size, for FedBuff in the trial's own groups.

The limit is the kernel: 100 %.

    python benchmarks/flb1_simulation.py --model A --strategy fedbuff
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from statistics import median

import pyarrow.compute as pc
import torch
from flb1_turns import AskRounds, OurRounds, Spent
from flb1_workload import (
    CLIENTS,
    LEARNING_RATE,
    MOST_RECORDS,
    ROUNDS,
    WIDTHS,
    Workload,
    add_plan_options,
    make_workload,
    outputs_of,
    plan_of,
)
from system_only import make_world

from device_runtime.update_codec import flatten
from server.job import Job
from simulation.checkpoint import CheckpointPace, encode_checkpoint
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.event_path import choose_event_path
from simulation.executors.executor import Reduced, TrainingTask
from simulation.executors.local import LocalExecutor
from simulation.executors.task_columns import TaskColumns
from simulation.experiment import Training, run_trial
from simulation.table_bytes import parquet_bytes
from simulation.trial import DryRun, TrialResult
from simulation.world import populate

AGGREGATIONS = {"A": 1500, "B": 80, "C": 15}
BUFFER = 10
CONCURRENCY = 75


def make_dry_run(work: Workload, options: argparse.Namespace) -> DryRun:
    client = {
        "optimizer": {"learning_rate": LEARNING_RATE},
        "batch_size": options.batch_size,
        "local_epochs": options.local_epochs,
        "max_records": MOST_RECORDS,
    }
    aggregations = options.aggregations or AGGREGATIONS[options.model]
    strategy = {"name": "fedavg", "cohort_size": options.cohort}
    if options.strategy == "fedbuff":
        strategy = {"name": "fedbuff", "buffer_size": BUFFER, "concurrency": CONCURRENCY}
        aggregations *= options.cohort // BUFFER  # as many tasks
    job = Job.model_validate(
        {
            "name": "flb1",
            "model": "tiny_mlp",  # which FLB-1's models stand in for below
            "client": client,
            "strategy": strategy,
            "stop": {"max_aggregations": aggregations},
        }
    )
    environment = Environment.model_validate(
        {
            "availability": "sessions.parquet",
            "device_profiles": "profiles.parquet",
            "device_population": "population.parquet",
            "bandwidth": "bandwidth.parquet",
        }
    )
    world = make_world(CLIENTS)
    mapping, devices = populate(world, environment, work.records.records)
    spec, held = work.spec, work.records.records[mapping.data_client]
    model_bytes = 4 * spec.parameter_count
    return DryRun(
        job,
        spec,
        environment,
        world,
        mapping,
        devices,
        held,
        TaskWork(options.local_epochs, MOST_RECORDS, model_bytes, model_bytes),
        flatten(work.start),
        7,
    )


class Recorded(LocalExecutor):
    """Notes what a trial asks of it, for `Replayed`."""

    asked: list[TaskColumns] | None = None

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """As always."""
        if self.asked is not None:
            self.asked.append(TaskColumns.of(tasks))
        return super().reduce(tasks)


class Replayed:
    """The groups of a trial again, with nothing around them; every version has the same weights."""

    def __init__(self, executor: LocalExecutor, work: Workload, asked: list[TaskColumns]) -> None:
        self._executor, self._weights, self._asked = executor, flatten(work.start), asked
        self._oldest = [int(tasks.base_version.min()) for tasks in asked]
        for at in range(len(asked) - 2, -1, -1):
            self._oldest[at] = min(self._oldest[at], self._oldest[at + 1])

    def __call__(self, count: int) -> Spent:
        """Do so many groups."""
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        self._executor.set_weights(0, self._weights)
        for at, tasks in enumerate(self._asked[:count]):
            self._executor.forget_weights(self._oldest[at])
            self._executor.reduce(tasks)
            self._executor.set_weights(at + 1, self._weights)
        spent = Spent(time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)
        self._executor.forget_weights(2**62)
        return spent


def trial_s(dry_run: DryRun, executor: LocalExecutor) -> tuple[float, TrialResult]:
    """CPU seconds of a trial with all that is kept of it, and the trial."""
    kept: list[bytes] = []
    pace = CheckpointPace()
    begun_s = time.process_time()
    result = run_trial(
        dry_run,
        Training(executor, None, None, executor.path.sentence),
        0,
        save=lambda state: pace.keep(
            lambda: kept.append(encode_checkpoint("s-flb1", {"done": [], "trial": state}))
        ),
        checkpoint_every=1,
        is_due=pace.is_due,
    )
    for table in (result.trajectory, result.tasks):
        parquet_bytes(table)
    spent_s = time.process_time() - begun_s
    executor.forget_weights(2**62)
    return spent_s, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--strategy", choices=("fedavg", "fedbuff"), default="fedavg")
    parser.add_argument("--turns", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--aggregations", type=int, help="of a trial; default: some seconds' worth")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(options)
    work = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    dry_run = make_dry_run(work, options)
    executor = Recorded(work.spec, plan, work.records)
    kernel: AskRounds = OurRounds(executor, work)
    trials, kernels = [], []
    for turn in range(options.turns + 1):  # the first compiles, or loads, the engine
        if turn == 0 and options.strategy == "fedbuff":
            executor.asked = []
        spent_s, result = trial_s(dry_run, executor)
        rounds = len(result.trajectory) - 1
        if executor.asked is not None:
            kernel, executor.asked = Replayed(executor, work, executor.asked), None
        kernel_s = kernel(rounds).cpu_s
        if turn:
            trials.append(spent_s)
            kernels.append(kernel_s)
    trained = int(pc.sum(result.trajectory["updates"]).as_py())
    shares = [k / t for t, k in zip(trials, kernels, strict=True)]
    print(
        json.dumps(
            {
                "figure": "flb1_simulation",
                "model": options.model,
                "strategy": options.strategy,
                "events": choose_event_path(dry_run.job, trains=True).sentence,
                "outputs": outputs_of(plan),
                "aggregations": rounds,
                "tasks": len(result.tasks),
                "trained_tasks": trained,
                "tasks_per_core_s": round(trained / median(trials), 1),
                "kernel_tasks_per_core_s": round(trained / median(kernels), 1),
                "share_of_kernel": round(median(shares), 3),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
