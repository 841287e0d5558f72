r"""What a second process brings: tasks a second of one executor process and of two.

What is compared: `ProcessExecutors` with itself on FLB-1, one process and two (``--processes``), in
rounds of ``--cohort`` tasks, each of which needs the sum of the last: new weights go out, sums come
back and are added, and the next begins. `LocalExecutor`, which exchanges nothing, stands beside.

How: in turn, medians of seconds by the clock; the machine must have that many cores to itself.
``cpu_ratio_model`` needs no quiet machine: CPU seconds a round of one process, by those that two
would wait for, the leader's and half of the executors'.

The limit is twice, less what is done in one place: the leader's work, and the wait for the process
that has the larger clients, since a task is not divided.

    python benchmarks/flb1_processes.py --model B
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
from flb1_turns import OurRounds, Spent, in_turn, tasks_a_s, wall_ratio
from flb1_workload import ROUNDS, WIDTHS, add_plan_options, make_workload, outputs_of, plan_of

from simulation.executors.local import LocalExecutor
from simulation.executors.processes import ProcessExecutors

sys.path.append(str(Path(__file__).parent / "peers"))
from flb1_rounds import tree_cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7, help="that are timed")
    add_plan_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = plan_of(options)
    work = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    one = ProcessExecutors(1, work.spec, plan, work.records)
    several = ProcessExecutors(options.processes, work.spec, plan, work.records)
    local = OurRounds(LocalExecutor(work.spec, plan, work.records), work)
    try:
        ours = {"one": OurRounds(one, work), "several": OurRounds(several, work)}
        found = in_turn({"local": local, **ours}, options.turns)
        leader, executors = by_process(ours["several"])
    finally:
        one.close()
        several.close()
    result = {
        "figure": "flb1_processes",
        "model": options.model,
        "processes": options.processes,
        "cohort": options.cohort,
        "outputs": outputs_of(plan),
        "tasks_per_s_of_one": tasks_a_s(options.cohort, found["one"]),
        "tasks_per_s": tasks_a_s(options.cohort, found["several"]),
        "tasks_per_s_in_this_process": tasks_a_s(options.cohort, found["local"]),
        "ratio_to_one": round(wall_ratio(found["one"], found["several"]), 2),
        "ratio_to_this_process": round(wall_ratio(found["local"], found["several"]), 2),
        "leader_cpu_ms_a_round": round(leader * 1e3, 3),
        "executors_cpu_ms_a_round": round(executors * 1e3, 3),
        "cpu_ratio_model": round(
            (leader + executors) / (leader + executors / options.processes), 2
        ),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


def by_process(rounds: OurRounds, at_least_s: float = 2.0) -> tuple[float, float]:
    """CPU seconds a round of this process, and of those under it."""
    done, spent, begun_s = 0, Spent(0.0, 0.0), time.perf_counter()
    under_s = tree_cpu_s(os.getpid()) - time.process_time()
    while time.perf_counter() - begun_s < at_least_s:
        more = rounds(10)
        spent = Spent(spent.cpu_s + more.cpu_s, spent.wall_s + more.wall_s)
        done += 10
    under_s = tree_cpu_s(os.getpid()) - time.process_time() - under_s
    return spent.cpu_s / done, under_s / done


if __name__ == "__main__":
    main()
