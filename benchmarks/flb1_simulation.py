r"""What a dry-run's bookkeeping costs: a whole trial beside the kernel that trains for it.

What is compared: CPU seconds of one trial as `flint simulate` runs it (`experiment.run_trial`),
with its events, its table of tasks, its trajectory, a checkpoint every 25 aggregations and both
tables written as Parquet; and of the same executor alone on as many rounds of as many tasks. The
trial is FedAvg over FLB-1's data in the world of `system_only`: rounds of 100 of 130 asked, 10,000
clients, each there in one window a day, no evaluation. What is over-committed is never trained.

How: in turn, one process on one thread, medians; what is trained is the same number of tasks of the
same clients' data, though not in the same rounds.

The limit is the kernel: 100 %.

    python benchmarks/flb1_simulation.py --model A
"""

import argparse
import json
import os
import time
from statistics import median

import torch
from flb1_turns import OurRounds
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
from simulation.checkpoint import encode_checkpoint
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.event_path import choose_event_path
from simulation.executors.local import LocalExecutor
from simulation.experiment import Training, run_trial
from simulation.table_bytes import parquet_bytes
from simulation.trial import DryRun, TrialResult
from simulation.world import populate

CHECKPOINT_EVERY = 25
AGGREGATIONS = {"A": 1500, "B": 80, "C": 15}


def make_dry_run(work: Workload, options: argparse.Namespace) -> DryRun:
    client = {
        "optimizer": {"learning_rate": LEARNING_RATE},
        "batch_size": options.batch_size,
        "local_epochs": options.local_epochs,
        "max_records": MOST_RECORDS,
    }
    aggregations = options.aggregations or AGGREGATIONS[options.model]
    job = Job.model_validate(
        {
            "name": "flb1",
            "model": "tiny_mlp",  # which FLB-1's models stand in for below
            "client": client,
            "strategy": {"name": "fedavg", "cohort_size": options.cohort},
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


def trial_s(dry_run: DryRun, executor: LocalExecutor) -> tuple[float, TrialResult]:
    """CPU seconds of a trial with all that is kept of it, and the trial."""
    kept: list[bytes] = []
    begun_s = time.process_time()
    result = run_trial(
        dry_run,
        Training(executor, None, None, executor.path.sentence),
        0,
        save=lambda state: kept.append(encode_checkpoint("s-flb1", {"done": [], "trial": state})),
        checkpoint_every=CHECKPOINT_EVERY,
    )
    for table in (result.trajectory, result.tasks):
        parquet_bytes(table)
    spent_s = time.process_time() - begun_s
    assert kept, "no checkpoint was kept"
    executor.forget_weights(2**62)
    return spent_s, result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--turns", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--aggregations", type=int, help="of a trial; default: some seconds' worth")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(options)
    work = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    dry_run = make_dry_run(work, options)
    executor = LocalExecutor(work.spec, plan, work.records)
    kernel = OurRounds(executor, work)
    trials, kernels = [], []
    for turn in range(options.turns + 1):  # the first compiles, or loads, the engine
        spent_s, result = trial_s(dry_run, executor)
        rounds = len(result.trajectory) - 1
        kernel_s = kernel(rounds).cpu_s
        if turn:
            trials.append(spent_s)
            kernels.append(kernel_s)
    trained = rounds * options.cohort
    shares = [k / t for t, k in zip(trials, kernels, strict=True)]
    print(
        json.dumps(
            {
                "figure": "flb1_simulation",
                "model": options.model,
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
