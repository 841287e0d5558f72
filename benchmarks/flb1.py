"""Client tasks per second and core of the simulator on FLB-1, beside the loop one writes first.

What is compared: rounds of FedAvg on the workload of `flb1_workload`. Ours is `LocalExecutor`: what
a dry-run calls, on its fastest path, with what it keeps of a task (its training loss, whether it
stayed in numbers; with ``--client-outputs`` also losses before and after, and norms). ``naive`` is
one torch module, parameters copied in for each client, autograd and `torch.optim.SGD`, whole deltas
summed, no losses kept. Both see the records of a client in the same order.

How: one thread each, in turn, a round of theirs and several of ours; medians of CPU seconds, so
that other work on the machine counts little. ``distance_to_naive`` is how far our weights are from
theirs after the same rounds, as a share of the way they went.

``groups`` is the same tasks in ten groups, each from a version of its own, as FedBuff has them:
``groups_to_whole`` is the tasks a second in groups over those in one.

The limit is arithmetic: a task of model B is 17 MFLOP, and a core does 118 GFLOP/s in 512-bit
registers at 3.7 GHz; ``share_of_peak`` is of that. The rest goes to products of few rows, to
products of a client's rows with each other, and to the sum, 20 bytes a parameter and group.

    python benchmarks/flb1.py --model B --against naive
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from flb1_workload import LEARNING_RATE, WIDTHS, Workload, make_workload
from numpy.typing import NDArray

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import flatten, unflatten
from modeling.torch_models import build_torch, dump_parameters, load_parameters, weighted_loss
from server.aggregation.aggregator import PartialSum
from simulation.executors import ClientOutputs, TrainingTask
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan

EQUAL_ROUNDS = 7
"""After which the two are compared."""
PEAK_FLOPS = 118e9
GROUPS = 10


def tasks_of(work: Workload, at: int) -> list[TrainingTask]:
    return [
        TrainingTask(
            task_id=f"t-{at}-{i}",
            data_client=int(client),
            base_version=at,
            weight=float(work.records.records[client]),
            learning_rate=LEARNING_RATE,
            shuffle_seed=at * 1_000_003 + i,
        )
        for i, client in enumerate(work.cohorts[at])
    ]


def stepped(weights: NDArray[np.float32], partial: PartialSum) -> NDArray[np.float32]:
    """The next version; it takes the place of the sum."""
    total = partial.total
    total /= np.float32(partial.weight)
    total += weights
    return total


def our_round(
    executor: LocalExecutor, work: Workload, at: int, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    executor.set_weights(at, weights)
    (partial,) = executor.reduce(tasks_of(work, at)).sums
    executor.forget_weights(at)
    return stepped(weights, partial)


def in_groups(
    executor: LocalExecutor, work: Workload, at: int, weights: NDArray[np.float32]
) -> None:
    """The tasks of a round in `GROUPS`, one after the other."""
    tasks = tasks_of(work, at)
    for group in range(GROUPS):
        executor.set_weights(at, weights)
        (partial,) = executor.reduce(tasks[group::GROUPS]).sums
        executor.forget_weights(at)
        weights = stepped(weights, partial)


def naive_round(
    work: Workload, plan: LocalPlan, at: int, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    spec = work.spec
    model = build_torch(spec)
    start = unflatten(spec.parameters, weights)
    total, records = np.zeros_like(weights), 0.0
    for task in tasks_of(work, at):
        x, y = map(torch.from_numpy, work.records.of(task.data_client))
        load_parameters(model, start)
        optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
        for epoch in range(plan.local_epochs):
            order = torch.from_numpy(epoch_order(len(x), task.shuffle_seed, epoch))
            for chosen in torch.split(order, plan.batch_size):
                optimizer.zero_grad()
                weighted_loss(model(x[chosen]), y[chosen], torch.ones(len(chosen))).backward()
                optimizer.step()
        total += np.float32(task.weight) * (flatten(dump_parameters(model)) - weights)
        records += task.weight
    return weights + total / np.float32(records)


def cpu_s(call: Callable[[], object]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def distance(work: Workload, plan: LocalPlan, executor: LocalExecutor) -> float:
    """Of our weights to theirs after `EQUAL_ROUNDS`, by the way theirs went."""
    begin = flatten(work.start)
    ours, theirs = begin, begin
    for at in range(EQUAL_ROUNDS):
        ours = our_round(executor, work, at, ours)
        theirs = naive_round(work, plan, at, theirs)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - begin))


def flops_a_task(work: Workload, plan: LocalPlan) -> float:
    """Of training alone: forward, and backward to kernels and to all inputs but the first."""
    kernels = [a.size for a in work.start if a.ndim == 2]
    count = np.concatenate([work.records.records[cohort] for cohort in work.cohorts])
    return 2.0 * (3 * sum(kernels) - kernels[0]) * float(count.mean()) * plan.local_epochs


def measure(options: argparse.Namespace) -> dict[str, object]:
    rounds = EQUAL_ROUNDS + options.rounds
    work = make_workload(options.model, cohort=options.cohort, rounds=rounds, seed=options.seed)
    outputs = ClientOutputs(losses=options.client_outputs, norms=options.client_outputs)
    plan = LocalPlan(options.local_epochs, options.batch_size, max_records=400, outputs=outputs)
    executor = LocalExecutor(work.spec, plan, work.records)
    apart = distance(work, plan, executor)
    weights = flatten(work.start)
    ours_s, theirs_s, groups_s = [], [], []
    for at in range(EQUAL_ROUNDS, rounds):
        repeats = 20 if options.model == "A" else 4

        def ours(at: int = at, repeats: int = repeats) -> None:
            for _ in range(repeats):
                our_round(executor, work, at, weights)

        def groups(at: int = at, repeats: int = repeats) -> None:
            for _ in range(repeats):
                in_groups(executor, work, at, weights)

        ours_s.append(cpu_s(ours) / repeats / options.cohort)
        groups_s.append(cpu_s(groups) / repeats / options.cohort)
        theirs_s.append(cpu_s(lambda at=at: naive_round(work, plan, at, weights)) / options.cohort)
    ratios = [theirs / ours for theirs, ours in zip(theirs_s, ours_s, strict=True)]
    of_groups = [ours / groups for ours, groups in zip(ours_s, groups_s, strict=True)]
    rate = 1.0 / median(ours_s)
    return {
        "figure": "flb1",
        "model": options.model,
        "against": options.against,
        "batch_size": options.batch_size,
        "local_epochs": options.local_epochs,
        "cohort": options.cohort,
        "client_outputs": options.client_outputs,
        "seed": options.seed,
        "path": executor.path.name,
        "share_in_sample_space": round(float(executor.path.in_samples.mean()), 3),
        "tasks_per_core_s": round(rate),
        "peer_tasks_per_core_s": round(1.0 / median(theirs_s)),
        "ratio_per_core": round(median(ratios), 2),
        "groups_to_whole": round(median(of_groups), 3),
        "share_of_peak": round(rate * flops_a_task(work, plan) / PEAK_FLOPS, 3),
        "distance_to_naive": apart,
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--against", choices=["naive"], default="naive")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--seed", type=int, default=20_240_601)
    parser.add_argument("--client-outputs", action="store_true", help="ask for all of them")
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    torch.set_num_threads(1)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
