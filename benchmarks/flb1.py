r"""Client tasks a second and core of the simulator on FLB-1, beside a plain loop and other systems.

What is compared: rounds of FedAvg on the workload of `flb1_workload`. Ours is `LocalExecutor`: what
a dry-run calls, on its fastest path, computing what ``outputs`` says of each client. ``naive`` is
the loop one writes first (`flb1_naive`). pfl-research, FedJAX, FLSim and Flower's simulation do the
same rounds in environments of their own (`peer_environment`; their drivers are in ``peers/``), one
thread a process, data and model cached, no metrics; the records are the same, the clients of a
round too (Flower draws its own from the same clients), the order of a client's records is not.

How: in turn, rounds of theirs and rounds of ours, about a second each, once both are warm; medians.
``*_per_core`` is of CPU seconds of all processes of a side, so that other work on the machine
counts little. ``ratio_whole_machine`` is of wall seconds, both sides on all cores, ours with a
process a core and sums exchanged; how a peer is spread is said beside it. ``distance_to_naive`` is
how far our weights are from the plain loop's after the same rounds, as a share of the way they
went. A peer that cannot be installed is named as such, and the plain loop stands in for it.

The limit is arithmetic: a task of model B is 17 MFLOP. ``peak_gflops`` is measured in the same run,
a large product of matrices on one thread; ``share_of_peak`` is of the arithmetic of training alone.
Where the rest goes: `flb1_shares.py`.

    python benchmarks/flb1.py --model B --against naive
    python benchmarks/flb1.py --model B --against pfl --peers-folder /data/peers
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from flb1_machine import float32_peak_flops
from flb1_peers import ON_ALL_CORES, PEERS, Drivers, PeerFailed, PeerNotInstalled, python_of
from flb1_turns import (
    OurRounds,
    cpu_ratio,
    distance_to_naive,
    in_turn,
    tasks_a_cpu_s,
    tasks_a_s,
    wall_ratio,
)
from flb1_workload import (
    ROUNDS,
    WIDTHS,
    Workload,
    add_plan_options,
    flops_a_task,
    make_workload,
    outputs_of,
    plan_of,
    write_workload,
)

from simulation.executors.local import LocalExecutor
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan


def per_core(drivers: Drivers, work: Workload, executor: LocalExecutor, turns: int) -> dict:
    ours, theirs = OurRounds(executor, work), drivers.rounds
    found = in_turn({"theirs": theirs, "ours": ours}, turns)
    cohort = len(work.cohorts[0])
    return {
        "tasks_per_core_s": tasks_a_cpu_s(cohort, found["ours"]),
        "peer_tasks_per_core_s": tasks_a_cpu_s(cohort, found["theirs"]),
        "ratio_per_core": round(cpu_ratio(found["theirs"], found["ours"]), 2),
    }


def whole_machine(drivers: Drivers, work: Workload, plan: LocalPlan, turns: int) -> dict:
    executor = ProcessExecutors(os.cpu_count() or 1, work.spec, plan, work.records)
    try:
        ours, theirs = OurRounds(executor, work), drivers.rounds
        found = in_turn({"theirs": theirs, "ours": ours}, turns)
    finally:
        executor.close()
    cohort = len(work.cohorts[0])
    return {
        "ratio_whole_machine": round(wall_ratio(found["theirs"], found["ours"]), 2),
        "tasks_per_s": tasks_a_s(cohort, found["ours"]),
        "peer_tasks_per_s": tasks_a_s(cohort, found["theirs"]),
        "peer_on_all_cores": ON_ALL_CORES[drivers.name],
    }


def beside(name: str, options: argparse.Namespace, work: Workload, plan: LocalPlan) -> dict:
    """What is measured beside a peer.

    Raises:
        PeerNotInstalled: If it cannot be.
        PeerFailed: If it is and does not run.
    """
    python = python_of(name, options.peers_folder)
    with tempfile.TemporaryDirectory(prefix="flb1-") as folder:
        write_workload(work, plan, Path(folder))
        cores = os.cpu_count() or 1
        at_once = name == "flower"  # its runtime takes all cores in any case
        with Drivers(name, python, Path(folder), cores=cores if at_once else 1) as drivers:
            executor = LocalExecutor(work.spec, plan, work.records)
            found = per_core(drivers, work, executor, options.turns)
            found |= {"peer_versions": drivers.versions}
            if at_once and not options.one_core:
                found |= whole_machine(drivers, work, plan, options.turns)
        if not at_once and not options.one_core:
            with Drivers(name, python, Path(folder), cores=cores) as drivers:
                found |= whole_machine(drivers, work, plan, options.turns)
    return found


def measure(options: argparse.Namespace) -> dict[str, object]:
    work = make_workload(options.model, cohort=options.cohort, rounds=ROUNDS, seed=options.seed)
    plan = plan_of(options)
    executor = LocalExecutor(work.spec, plan, work.records)
    apart = distance_to_naive(work, plan, executor)
    peer = "ran"
    try:
        found = beside(options.against, options, work, plan)
    except (PeerNotInstalled, PeerFailed) as error:
        how = "not installed" if isinstance(error, PeerNotInstalled) else "failed"
        peer = f"{how}: {error}; the figures are beside naive"
        print(f"flb1: {options.against} {peer}", file=sys.stderr)
        found = beside("naive", options, work, plan)
    peak_flops = float32_peak_flops()
    share = found["tasks_per_core_s"] * flops_a_task(work, plan) / peak_flops
    return {
        "figure": "flb1",
        "model": options.model,
        "against": options.against,
        "peer": peer,
        "batch_size": options.batch_size,
        "local_epochs": options.local_epochs,
        "cohort": options.cohort,
        "seed": options.seed,
        "path": executor.path.name,
        "share_in_sample_space": round(float(executor.path.in_samples.mean()), 3),
        "outputs": outputs_of(plan),
        **found,
        "distance_to_naive": apart,
        "peak_gflops": round(peak_flops / 1e9, 1),
        "share_of_peak": round(share, 3),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--model", choices=WIDTHS, default="B")
    parser.add_argument("--against", choices=PEERS, default="naive")
    add_plan_options(parser)
    parser.add_argument("--turns", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--one-core", action="store_true", help="without the whole machine")
    parser.add_argument("--peers-folder", type=Path, help="that has, or is to have, peers")
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    torch.set_num_threads(1)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
