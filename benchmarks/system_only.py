"""Dry-runs that train nothing: events per second, and time and memory with millions of clients.

What is compared: the compiled engine, the engine that asks a strategy written in Python (what
FedBuff decides), and the plain event loop, which runs the production coordinator itself, on the
same trial of FedBuff (the runs must be equal to the bit); then the engine alone on larger
populations. Each client is available in one window a day (lognormal, median
35 minutes, at most six hours), checks in every 15 minutes in it (`events`: 5), and has one of 20
device models with lognormal speeds and one of 1,000 links; it drops out of a task with a hazard of
0.5 an hour.
An event is a check-in, or a task's end. Seconds are of the processor (user and system) where the
name says `cpu_s`, so that other work on the machine counts less.

- `events`: events per second of all three, on a small population; nearly every event is one of a
  task, so the strategy is asked at nearly every event, for two decisions;
- `million`: 1 M clients, from a new process (imports, machine code of an earlier process) to the
  first aggregation, and memory from aggregation 100 to 1,000;
- `week`: 16.4 M clients (FLINT's largest trace has 16,422,290 sessions) over a virtual week, with
  their population's assignment and without.

What limits these (AMD EPYC of Zen 4, one core; in brackets, what an engine took that drew for one
check-in after the other and kept a heap of tasks):

- In `events` half of all are ends of tasks, and the data fit into the caches. Draws are arithmetic,
  made for up to 64 check-ins in vectors: 1.7 ns each (16), 3 to 4 for a lognormal speed more (25).
  A task takes four draws and three speeds, and two draws for its device's next check-in, 25 ns or
  so: 13 ns an event, and 80 M events/s if that were all. An event takes 80 to 90 ns (128), so the
  rest is bookkeeping, spread thinly: sorting check-ins and ends into slots, sightings, the ledger,
  a turn of the coordinator for each piece of news, fresh memory for the tasks.
- In `week` it is memory: an event looks in five places of arrays that do not fit the caches
  (client, device, offset, start and end of its window), and notes the next check-in in a sixth. One
  look takes 100 to 240 ns when the next waits for it, and 6 (huge pages; 11 without) when many are
  under way: 30 to 60 ns an event at best, of 190 (230). Fetches are spread evenly, two check-ins at
  a time: with sixteen at a time an event took a third longer. SHA-256 of each client's key of pace,
  once, takes 30 ns in lanes of vectors (250). Of the memory, 32 bytes a client are the engine's
  record and 8 its next check-in; 44 are the world's (identifier, windows, device, model, link,
  records), and 88 a task.
- Memory that no process of a virtual machine has used yet comes at 0.4 GB/s there, and at 10 GB/s
  otherwise: seconds of `week`, which are in its figures.

    python benchmarks/system_only.py [--case events|million|week] [--clients N]
"""

import argparse
import dataclasses
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from modeling.zoo import get_model
from server.job import Job
from server.strategies import FedBuff, RoundState, Step
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.executors.no_training import NoTraining
from simulation.timeline.engine import PAUSED
from simulation.timeline.timeline import Timeline, set_up
from simulation.timeline.trial import run_compiled
from simulation.traces.bandwidth import Bandwidth, LinkSpeeds
from simulation.traces.device_profiles import DevicePopulation, DeviceProfiles
from simulation.traces.sessions import AvailabilityTrace
from simulation.traces.spans import SpanRepairs
from simulation.trajectory import events_sha256
from simulation.trial import DryRun, Trial
from simulation.world import World, populate

CASES = ("events", "million", "week")
TURNS = 9
SMALL, MILLION, MANY = 20_000, 1_000_000, 16_422_290
FEDBUFF = {"name": "fedbuff", "buffer_size": 50, "concurrency": 200, "max_staleness": 10}
MODELS, LINKS = 20, 1000
BYTES = 10_000_000
GRID_PER_S = 2.0**20


def make_dry_run(clients: int, stop: dict, **check_in: float) -> tuple[DryRun, float]:
    """A dry-run in a generated world, and the CPU seconds that assigning its population took."""
    environment = Environment.model_validate(
        {
            "availability": "sessions.parquet",
            "device_profiles": "profiles.parquet",
            "device_population": "population.parquet",
            "bandwidth": "bandwidth.parquet",
            "dropout": {"hazard_per_hour": 0.5},
            "check_in": check_in,
        }
    )
    job = Job.model_validate(
        {
            "name": "system-only",
            "model": "tiny_mlp",
            "client": {"optimizer": {"learning_rate": 0.1}},
            "strategy": FEDBUFF,
            "stop": stop,
        }
    )
    world = make_world(clients)
    draws = np.random.default_rng(2)
    records = np.clip(np.rint(draws.lognormal(math.log(10), 1.2, clients)), 1, 400).astype(np.int32)
    begun_s = time.process_time()
    mapping, devices = populate(world, environment, records)
    spent_s = time.process_time() - begun_s
    model = get_model("tiny_mlp")
    weights = np.zeros(model.parameter_count, np.float32)
    held = mapping.held(records)
    work = TaskWork(1, 500, BYTES, BYTES)
    return DryRun(job, model, environment, world, mapping, devices, held, work, weights, 7), spent_s


def make_world(clients: int) -> World:

    draws = np.random.default_rng(1)
    start_s = np.floor(draws.uniform(0, 86_400, clients) * GRID_PER_S) / GRID_PER_S
    length_s = np.clip(draws.lognormal(math.log(2100), 1.0, clients), 60, 6 * 3600)
    end_s = start_s + np.floor(length_s * GRID_PER_S) / GRID_PER_S
    offsets = np.arange(clients + 1, dtype=np.int32)
    period_s = np.broadcast_to(86_400.0, clients)
    ids = pa.array(np.arange(clients, dtype=np.int32))
    trace = AvailabilityTrace(
        ids, offsets, start_s, end_s, period_s, None, (), SpanRepairs(clients)
    )
    names = tuple(f"model-{n:02}" for n in range(MODELS))
    median_s = 0.02 * np.exp(0.8 * draws.standard_normal(MODELS))
    none = np.zeros(MODELS + 1, np.int64)
    profiles = DeviceProfiles(names, none, np.empty(0), median_s, np.full(MODELS, 0.4))
    kbps = 5500.0 * np.exp(1.1 * draws.standard_normal(LINKS))
    speeds = LinkSpeeds(kbps, np.full(LINKS, 0.3))
    shares = DevicePopulation(names, np.full(MODELS, 1.0 / MODELS))
    return World(trace, profiles, shares, Bandwidth(speeds, speeds, paired=True), {})


class OwnFedBuff(FedBuff):
    """What FedBuff decides, as somebody would write it in Python."""

    def tasks_to_start(self, state: RoundState) -> int:  # noqa: D102 - FedBuff's, as what follows
        return max(0, self.concurrency - state.offered - state.running)

    def next_step(self, state: RoundState) -> Step:  # noqa: D102
        return Step.AGGREGATE if state.held >= self.buffer_size else Step.WAIT

    def oldest_live_version(self, version: int) -> int:  # noqa: D102
        return max(0, version - self.max_staleness)


def events(clients: int) -> dict:
    """All on the same trial, machine code made or loaded: medians of turns, as a run is short."""
    dry_run, _ = make_dry_run(clients, {"max_hours": 24.0}, period_s=300.0)
    sizes = (FEDBUFF[name] for name in ("buffer_size", "concurrency", "max_staleness"))
    asking = dataclasses.replace(dry_run, own_strategy=OwnFedBuff(*sizes))
    engines, askings = [], []
    for _ in range(TURNS):
        timeline = set_up(dry_run, 0)
        engines.append(to_the_end(timeline))
        askings.append(to_the_end(set_up(asking, 0)))
    engine_s, asking_s = median(engines), median(askings)
    begun_s = time.process_time()
    compiled = run_compiled(dry_run, 0)
    compiled_s = time.process_time() - begun_s
    begun_s = time.process_time()
    plain = Trial(dry_run, 0, NoTraining(dry_run.model.parameter_count), None).run()
    plain_s = time.process_time() - begun_s
    count = timeline.number("events")
    runs = (compiled, run_compiled(asking, 0), plain)
    digests = {events_sha256(run.trajectory, run.tasks) for run in runs}
    return {
        "clients": clients,
        "events": count,
        "tasks": len(plain.tasks),
        "engine_events_per_cpu_s": round(count / engine_s),
        "with_tables_events_per_cpu_s": round(count / compiled_s),
        "asking_events_per_cpu_s": round(count / asking_s),
        "plain_events_per_cpu_s": round(count / plain_s),
        "ratio_to_plain": round(plain_s / compiled_s, 1),
        "equal": len(digests) == 1,
    }


def to_the_end(timeline: Timeline) -> float:
    """CPU seconds until the trial's end."""
    begun_s = time.process_time()
    while timeline.go_on() == PAUSED:
        pass
    return time.process_time() - begun_s


def million(clients: int) -> dict:
    """Start of the process to the first aggregation, less the making of the world; then memory."""
    imports_cpu_s = time.process_time()
    dry_run, assigned_cpu_s = make_dry_run(clients, {"max_aggregations": 1})
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    to_the_end(set_up(dry_run, 0))
    first_s, first_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    resident_mb = {}
    for aggregations in (100, 1000):
        stop = dry_run.job.stop.model_copy(update={"max_aggregations": aggregations})
        job = dry_run.job.model_copy(update={"stop": stop})
        longer = type(dry_run)(**{**vars(dry_run), "job": job})
        timeline = set_up(longer, 0)
        to_the_end(timeline)
        resident_mb[aggregations] = round(resident_now_mb())
        del timeline
    return {
        "clients": clients,
        "imports_cpu_s": round(imports_cpu_s, 2),
        "assignment_cpu_s": round(assigned_cpu_s, 2),
        "to_first_aggregation_s": round(first_s, 2),
        "to_first_aggregation_cpu_s": round(first_cpu_s, 2),
        "start_to_first_aggregation_cpu_s": round(imports_cpu_s + assigned_cpu_s + first_cpu_s, 2),
        "resident_mb_after_100_aggregations": resident_mb[100],
        "resident_mb_after_1000_aggregations": resident_mb[1000],
    }


def week(clients: int) -> dict:
    """A virtual week, without the tables of tasks and versions that a run records at its end."""
    stop = {"max_hours": 168.0}
    dry_run, assigned_cpu_s = make_dry_run(clients, stop)
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    timeline = set_up(dry_run, 0)
    to_the_end(timeline)
    cpu_s = time.process_time() - begun_cpu_s
    return {
        "clients": clients,
        "events": timeline.number("events"),
        "tasks": timeline.number("started"),
        "versions": timeline.number("version"),
        "assignment_cpu_s": round(assigned_cpu_s, 1),
        "engine_s": round(time.perf_counter() - begun_s, 1),
        "engine_cpu_s": round(cpu_s, 1),
        "events_per_cpu_s": round(timeline.number("events") / cpu_s),
        "most_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def resident_now_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--case", choices=CASES, help="one of them; default: all, one by one")
    parser.add_argument("--clients", type=int, help="in place of the case's own number")
    options = parser.parse_args()
    if options.case is not None:
        clients = {"events": SMALL, "million": MILLION, "week": MANY}[options.case]
        run = {"events": events, "million": million, "week": week}[options.case]
        print(json.dumps(run(options.clients or clients)))
        return
    found = {}
    for case in CASES:  # in processes of their own, so that memory is each one's
        command = [sys.executable, __file__, "--case", case]
        if options.clients:
            command += ["--clients", str(options.clients)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[case] = json.loads(done.stdout)
        print(f"{case}: {done.stdout.strip()}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
