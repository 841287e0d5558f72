r"""Client tasks per second and core with the models of FLINT's Table 5, beside a plain loop.

What is compared: rounds of FedAvg of 100 clients by `LocalExecutor`, on the way that it chooses,
and by the loop one writes first (`flb1_naive`). Clients hold as many records as FLB-1's; records
have the shape that a model asks for: numbers are normal, ids as skewed as words are (Zipf, 1.1) and
half of a record's slots are empty, labels chance.

How: as `flb1.py`; in turn, one thread each, medians, CPU seconds.

The limit is arithmetic for D and E; of B and C a task changes few rows of a table, so a plain
loop's time is the table's, copied in and out for each client.

    python benchmarks/flb1_zoo.py --model D
"""

import argparse
import json
import os

import torch
from flb1_naive import NaiveLoop
from flb1_turns import (
    NaiveRounds,
    OurRounds,
    cpu_ratio,
    distance_to_naive,
    in_turn,
    tasks_a_cpu_s,
)
from flb1_workload import ROUNDS, add_plan_options, make_zoo_workload, outputs_of, plan_of

from modeling.zoo import MODELS
from simulation.executors.local import LocalExecutor

LETTERS = dict(zip("ABCDE", MODELS, strict=True))
EQUAL_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=LETTERS, default="C")
    parser.add_argument("--turns", type=int, default=5, help="pairs that are timed")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = LETTERS[options.model]
    work = make_zoo_workload(MODELS[name], options.cohort, ROUNDS, options.seed)
    plan = plan_of(options)
    executor = LocalExecutor(work.spec, plan, work.records)
    apart = distance_to_naive(work, plan, executor, EQUAL_ROUNDS)
    naive = NaiveRounds(NaiveLoop(work.spec, plan, work.records), work)
    found = in_turn({"naive": naive, "ours": OurRounds(executor, work)}, options.turns)
    result = {
        "figure": "flb1_zoo",
        "model": options.model,
        "name": name,
        "batch_size": plan.batch_size,
        "local_epochs": plan.local_epochs,
        "cohort": options.cohort,
        "path": executor.path.name,
        "outputs": outputs_of(plan),
        "tasks_per_core_s": tasks_a_cpu_s(options.cohort, found["ours"]),
        "peer_tasks_per_core_s": tasks_a_cpu_s(options.cohort, found["naive"]),
        "ratio_per_core": round(cpu_ratio(found["naive"], found["ours"]), 2),
        "distance_to_naive": apart,
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
