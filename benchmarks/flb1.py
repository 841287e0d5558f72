r"""Client tasks per second and core of the simulator on FLB-1, beside a plain loop and other systems.

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
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from flb1_machine import float32_peak_flops
from flb1_naive import naive_round
from flb1_peers import (
    ON_ALL_CORES,
    PEERS,
    Drivers,
    PeerFailed,
    PeerNotInstalled,
    Spent,
    python_of,
)
from flb1_workload import (
    MOST_RECORDS,
    WIDTHS,
    Workload,
    flops_a_task,
    make_workload,
    tasks_of,
    write_workload,
)
from numpy.typing import NDArray

from device_runtime.update_codec import flatten
from simulation.executors import Executor
from simulation.executors.local import LocalExecutor
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan

ROUNDS = 40
"""Cohorts that are drawn; those who do more begin anew."""
EQUAL_ROUNDS = 7
"""After which ours and the plain loop are compared."""
WARM_ROUNDS = 3
TURN_S = 1.0
"""About how long a turn of either side takes."""


def our_round(
    executor: Executor, work: Workload, at: int, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    executor.set_weights(at, weights)
    (partial,) = executor.reduce(tasks_of(work, at)).sums
    executor.forget_weights(at + 1)
    return weights + partial.total / np.float32(partial.weight)


def distance_to_naive(work: Workload, plan: LocalPlan, executor: Executor) -> float:
    """Of our weights to theirs after `EQUAL_ROUNDS`, by the way theirs went."""
    begin = flatten(work.start)
    ours, theirs = begin, begin
    for at in range(EQUAL_ROUNDS):
        ours = our_round(executor, work, at, ours)
        theirs = naive_round(work.spec, plan, work.records, tasks_of(work, at), theirs)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - begin))


class OurRounds:
    """Rounds of an executor, one after the other, as many as are asked for."""

    def __init__(self, executor: Executor, work: Workload) -> None:
        self._executor, self._work = executor, work
        self._at, self._weights = 0, flatten(work.start)

    def rounds(self, count: int) -> Spent:
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(count):
            self._weights = our_round(self._executor, self._work, self._at, self._weights)
            self._at += 1
        return Spent(time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)


def in_turn(
    theirs: Callable[[int], Spent], ours: Callable[[int], Spent], turns: int
) -> list[tuple[Spent, Spent]]:
    """Seconds a round, theirs and ours, of so many turns; both do as many as fill `TURN_S`."""
    counts = []
    for rounds in (theirs, ours):
        rounds(WARM_ROUNDS)
        tried = 1 if rounds(1).wall_s > TURN_S else 4
        counts.append(max(1, round(TURN_S * tried / rounds(tried).wall_s)))
    found = []
    for _ in range(turns):
        spent = [rounds(count) for rounds, count in zip((theirs, ours), counts, strict=True)]
        found.append(
            tuple(
                Spent(each.cpu_s / count, each.wall_s / count)
                for each, count in zip(spent, counts, strict=True)
            )
        )
    return found


def per_core(drivers: Drivers, work: Workload, executor: LocalExecutor, turns: int) -> dict:
    pairs = in_turn(drivers.rounds, OurRounds(executor, work).rounds, turns)
    cohort = len(work.cohorts[0])
    return {
        "tasks_per_core_s": round(cohort / median(ours.cpu_s for _, ours in pairs), 1),
        "peer_tasks_per_core_s": round(cohort / median(theirs.cpu_s for theirs, _ in pairs), 1),
        "ratio_per_core": round(median(theirs.cpu_s / ours.cpu_s for theirs, ours in pairs), 2),
    }


def whole_machine(drivers: Drivers, work: Workload, plan: LocalPlan, turns: int) -> dict:
    executor = ProcessExecutors(os.cpu_count() or 1, work.spec, plan, work.records)
    try:
        pairs = in_turn(drivers.rounds, OurRounds(executor, work).rounds, turns)
    finally:
        executor.close()
    cohort = len(work.cohorts[0])
    return {
        "ratio_whole_machine": round(median(t.wall_s / o.wall_s for t, o in pairs), 2),
        "tasks_per_s": round(cohort / median(ours.wall_s for _, ours in pairs), 1),
        "peer_tasks_per_s": round(cohort / median(theirs.wall_s for theirs, _ in pairs), 1),
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
    plan = LocalPlan(options.local_epochs, options.batch_size, MOST_RECORDS)
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
        "outputs": "losses before and after, norm",
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
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5, help="pairs that are timed")
    parser.add_argument("--seed", type=int, default=20_240_601)
    parser.add_argument("--one-core", action="store_true", help="without the whole machine")
    parser.add_argument("--peers-folder", type=Path, help="that has, or is to have, peers")
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    torch.set_num_threads(1)
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
