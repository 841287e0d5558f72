"""Client tasks per second that one thread trains in a dry-run, beside a plain torch loop.

What is compared: `LocalExecutor.reduce` with the loop one writes first (a `TorchModel`, autograd,
`torch.optim.SGD` and the sum of whole deltas) on the same tasks, one epoch in batches of 20, no
losses but those of the training. Clients are heavy-tailed: lengths of a log-normal, median 20
records, at most 500; a record of sparse_mlp has 30 of 64 slots on average, ids as skewed as words
are (Zipf, 1.1). Both on one thread, each version of the workload run in turn, medians of CPU
seconds.

    python benchmarks/simulation_training.py
"""

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import flatten, unflatten
from modeling.spec import ModelSpec
from modeling.torch_models import build_torch, dump_parameters, load_parameters, weighted_loss
from modeling.zoo import MODELS
from simulation.executors import TrainingTask
from simulation.executors.local import LocalExecutor
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan

CLIENTS = 300
FEWER_CLIENTS = {"text_cnn": 20, "multitask_mlp": 100}
"""Of models whose records take a thousand times longer."""
REPEATS = 5
PLAN = LocalPlan(local_epochs=1, batch_size=20, max_records=500)


def draw_clients(spec: ModelSpec) -> ClientRecords:
    draws = np.random.default_rng(0)
    clients = FEWER_CLIENTS.get(spec.name, CLIENTS)
    counts = np.clip(draws.lognormal(np.log(20), 1.0, clients), 1, 500).astype(np.int64)
    rows = int(counts.sum())
    if spec.ids is not None:
        x = (draws.zipf(1.1, (rows, *spec.input.shape)) % spec.ids).astype(np.int32)
        lengths = draws.integers(1, 60, (rows, 1))
        x[np.arange(x.shape[1]) >= lengths] = -1
    else:
        x = draws.standard_normal((rows, *spec.input.shape), np.float32)
    y = (draws.random((rows, *spec.label_shape)) < 0.2).astype(np.float32)
    return ClientRecords(x, y, np.cumsum(counts) - counts, counts)


def plain_torch(
    spec: ModelSpec, weights: NDArray[np.float32], tasks: list[TrainingTask], records: ClientRecords
) -> NDArray[np.float32]:
    total = np.zeros_like(weights)
    model = build_torch(spec)
    for task in tasks:
        x, y = map(torch.tensor, records.of(task.data_client, PLAN.max_records))
        load_parameters(model, unflatten(spec.parameters, weights))
        optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)
        order = epoch_order(len(x), task.shuffle_seed, 0)
        for start in range(0, len(x), PLAN.batch_size):
            chosen = torch.from_numpy(order[start : start + PLAN.batch_size])
            optimizer.zero_grad()
            weighted_loss(model(x[chosen]), y[chosen], torch.ones(len(chosen))).backward()
            optimizer.step()
        total += flatten(dump_parameters(model)) - weights
    return total


def timed_s(call: Callable[[], object]) -> float:
    started_s = time.process_time()
    call()
    return time.process_time() - started_s


def measure(spec: ModelSpec) -> dict[str, object]:
    records = draw_clients(spec)
    weights = flatten(spec.initial_parameters(0))
    tasks = [TrainingTask(f"t-{i}", i, 1, 1.0, 0.05, i) for i in range(len(records.records))]
    executor = LocalExecutor(spec, PLAN, records)
    executor.set_weights(1, weights)
    ours, theirs = executor.reduce(tasks).sums[0].total, plain_torch(spec, weights, tasks, records)
    executor_s, plain_s = [], []
    for _ in range(REPEATS):
        executor_s.append(timed_s(lambda: executor.reduce(tasks)))
        plain_s.append(timed_s(lambda: plain_torch(spec, weights, tasks, records)))
    steps = int(np.sum(-(-records.records // PLAN.batch_size)))
    return {
        "records_per_task": round(float(records.records.mean()), 1),
        "steps_per_task": round(steps / len(tasks), 2),
        "executor_tasks_per_s": round(len(tasks) / median(executor_s)),
        "plain_torch_tasks_per_s": round(len(tasks) / median(plain_s)),
        "executor_us_per_step": round(median(executor_s) / steps * 1e6),
        "speed_up": round(median(plain_s) / median(executor_s), 1),
        "largest_difference_of_the_sums": float(np.abs(ours - theirs).max()),
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", choices=MODELS, help="this one alone")
    only = parser.parse_args().model
    figures = {spec.name: measure(spec) for spec in MODELS.values() if only in (None, spec.name)}
    print(
        json.dumps(
            {
                "figure": "simulation_training",
                "torch": torch.__version__,
                "clients": CLIENTS,
                "models": figures,
            }
        )
    )


if __name__ == "__main__":
    main()
