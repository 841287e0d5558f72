r"""What share of the machine's float32 peak each way of training reaches, and where the rest goes.

What is compared: the plain loop, torch layer by layer, the compiled kernel with weights of every
client's own, and the way that a dry-run chooses, on FLB-1; the last with all outputs of each client
too. The peak is that of a large product of matrices on one thread, measured in the same run. Shares
are of the arithmetic of training alone.

How: in turn, one thread, medians, CPU seconds. Two figures tell of the rest:

- ``share_of_peak_in_steps``: the products of a step of 20 records by themselves, torch's BLAS, on
  weights that are in the caches: what small products cost anybody;
- ``passes``: a task's time by that of one pass over its weights (read and written, from where a
  model of that size lies). A client with weights of its own makes about four: the copy that it
  starts from, an update a step, and its share of the sum.

    python benchmarks/flb1_shares.py --model B
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable

import numpy as np
import torch
from flb1_machine import float32_peak_flops
from flb1_naive import NaiveLoop
from flb1_turns import NaiveRounds, OurRounds, in_turn, tasks_a_cpu_s
from flb1_workload import (
    ROUNDS,
    WIDTHS,
    Workload,
    add_plan_options,
    flops_a_task,
    make_workload,
    plan_of,
)

from simulation.executors.executor import ClientOutputs
from simulation.executors.local import LocalExecutor
from simulation.executors.paths import TrainingPath
from simulation.executors.training import LocalPlan

REPEATS = 200


def best_cpu_s(call: Callable[[], object]) -> float:
    """Least CPU seconds of a call, over some repeats of several."""
    found = []
    for _ in range(8):
        begun_s = time.process_time()
        for _ in range(REPEATS):
            call()
        found.append((time.process_time() - begun_s) / REPEATS)
    return min(found)


def step_flops(widths: tuple[int, ...], rows: int) -> float:
    """Floating-point operations a second of the products of one step by themselves."""
    products = []
    for place, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        x, kernel = torch.rand(rows, inputs), torch.rand(inputs, outputs)
        error = torch.rand(rows, outputs)
        products += [(x, kernel), (x.T, error)]
        if place:
            products.append((error, kernel.T))
    made = [torch.empty(left.shape[0], right.shape[1]) for left, right in products]

    def step() -> None:
        for (left, right), out in zip(products, made, strict=True):
            torch.mm(left, right, out=out)

    with torch.inference_mode():
        taken_s = best_cpu_s(step)
    return sum(2.0 * a.shape[0] * a.shape[1] * b.shape[1] for a, b in products) / taken_s


def pass_s(parameters: int) -> float:
    """CPU seconds of adding one model to another, weights of the next client every time."""
    clients = [torch.zeros(parameters) for _ in range(16)]
    total, place = torch.zeros(parameters), iter(range(10**9))
    with torch.inference_mode():
        return best_cpu_s(lambda: total.add_(clients[next(place) % 16], alpha=0.5))


def ways(work: Workload, plan: LocalPlan) -> dict[str, OurRounds | NaiveRounds]:
    """Rounds of each way; the chosen one is last."""
    nobody = np.zeros(len(work.records), np.bool_)
    outputs = dataclasses.replace(plan, outputs=ClientOutputs(losses=True, norms=True))

    def ours(path: TrainingPath | None, plan: LocalPlan = plan) -> OurRounds:
        return OurRounds(LocalExecutor(work.spec, plan, work.records, path), work)

    return {
        "naive": NaiveRounds(NaiveLoop(work.spec, plan, work.records), work),
        "layers": ours(TrainingPath("layers", "it is measured", nobody)),
        "compiled_own_weights": ours(TrainingPath("compiled", "it is measured", nobody)),
        "chosen_all_outputs": ours(None, outputs),
        "chosen": ours(None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--turns", type=int, default=3, help="that are timed")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(options)
    work = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    found = in_turn(dict(ways(work, plan)), options.turns)
    flops, peak_flops = flops_a_task(work, plan), float32_peak_flops()
    parameters = work.spec.parameter_count
    one_pass_s = pass_s(parameters)
    rates = {name: tasks_a_cpu_s(options.cohort, spent) for name, spent in found.items()}
    result = {
        "figure": "flb1_shares",
        "model": options.model,
        "parameters": parameters,
        "mflop_a_task": round(flops / 1e6, 2),
        "peak_gflops": round(peak_flops / 1e9, 1),
        "limit_tasks_per_core_s": round(peak_flops / flops),
        "share_of_peak_in_steps": round(
            step_flops(WIDTHS[options.model], options.batch_size) / peak_flops, 3
        ),
        "us_a_pass": round(one_pass_s * 1e6, 2),
        "ways": {
            name: {
                "tasks_per_core_s": rate,
                "share_of_peak": round(rate * flops / peak_flops, 4),
                "passes": round(1.0 / rate / one_pass_s, 1),
            }
            for name, rate in rates.items()
        },
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
