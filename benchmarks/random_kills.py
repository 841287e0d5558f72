r"""Jobs in which processes are killed at random: does every job finish, and what was lost?

One small job after the other, FedBuff and FedAvg in turn, on the real thing: `flint up` with
Postgres, SuperLink, coordinator and TLS gateway, and device processes that train with LiteRT. In
each job one process or group of them gets SIGKILL at a moment drawn evenly over its versions and
the time that one takes undisturbed: coordinator, gateway, SuperLink, Postgres, a device process,
the supervisor (all it started goes with it), or all of it at once, guardian, Postgres and devices
included. Server processes and Postgres come back by themselves; after the last two kinds
`flint up` is run again, as systemd does. Some jobs get a second kill while they recover from the
first.

Counted from the catalog and from what device processes report, per job:

- finished: status, and versions without a gap;
- updates counted twice: updates a version was made of, less the tasks whose outcome is stored with
  it, which can be stored once only; summed over all versions. Must be 0;
- redone: updates that devices were asked for again, per kill; at most what one buffer or round
  holds and what came in while it was released. Aggregations redone are at most one a kill by
  construction: a coordinator has one release in progress;
- recovered: seconds from the kill to the version after the next one (the next may be under way at
  the kill), or the job's end. Undisturbed, a version takes a few tenths of a second;
- orphans: processes of the data directory that nobody supervises, looked for after each kill of a
  supervisor and at the end.

The limit is the restart itself: importing the server's Python takes one to three seconds a process
here, and the supervisor waits a second before it starts a killed process again.

    python benchmarks/random_kills.py --jobs 100
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from killable import BUFFER, STRATEGIES, KillableWorld, killable_world, small_job, wait_for
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from device_runtime.errors import FlintError
from feature_catalog.schema import JobRecord, ModelVersionRecord, TaskOutcomeRecord
from flint.submission import submit

KINDS = {
    "coordinator": 20,
    "gateway": 20,
    "superlink": 12,
    "postgres": 14,
    "device": 14,
    "supervisor": 10,
    "everything": 10,
}
ENDED = ("finished", "stopped", "failed")
AGGREGATIONS = 10
_JOB_TIMEOUT_S = 180.0
_TROUBLE = (DBAPIError, FlintError)


@dataclass
class Tally:
    """What all jobs together gave."""

    jobs: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    recovered_s: dict[str, list[float]] = field(default_factory=dict)
    redone: dict[str, list[int]] = field(default_factory=dict)
    counted_twice: int = 0
    updates: int = 0
    orphans: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unfinished: list[str] = field(default_factory=list)
    job_s: float = 0.0


def draw_kinds(count: int, source: random.Random) -> list[str]:
    """As many of each kind as its weight asks for, in random order."""
    kinds = [kind for kind, weight in KINDS.items() for _ in range(weight)]
    drawn = (kinds * -(-count // len(kinds)))[: max(count, len(kinds))]
    source.shuffle(drawn)
    return drawn[:count]


def status_of(world: KillableWorld, job_id: str) -> str:
    try:
        with world.deployment.engine.connect() as connection:
            statement = select(JobRecord.status).where(JobRecord.job_id == job_id)
            return str(connection.execute(statement).scalar_one())
    except _TROUBLE:
        return "unknown"


def newest_version(world: KillableWorld, job_id: str) -> int:
    """-1 when it cannot be told, or there is none."""
    record = ModelVersionRecord
    statement = select(func.max(record.job_version)).where(record.job_id == job_id)
    try:
        with world.deployment.engine.connect() as connection:
            found = connection.execute(statement).scalar_one()
            return -1 if found is None else int(found)
    except _TROUBLE:
        return -1


def kill(world: KillableWorld, kind: str, source: random.Random) -> None:
    server = world.server
    if kind == "everything":
        server.kill_everything()
        server.collect()
        return
    pids = list(world.fleet.pids) if kind == "device" else server.pids(kind)
    if pids:
        with suppress(ProcessLookupError):
            os.kill(source.choice(pids), signal.SIGKILL)
    wait_for(lambda: server.ended or kind != "supervisor", 5.0)


def mend(world: KillableWorld, tally: Tally) -> None:
    """What an operator, or systemd, or a phone does by itself."""
    if world.server.ended:
        # The guardian cleans up after a supervisor that was killed alone.
        wait_for(lambda: not of_the_server(world), 20.0, every_s=0.25)
        tally.orphans += of_the_server(world)
        world.server.start()
    world.fleet.revive()


def of_the_server(world: KillableWorld) -> int:
    devices = set(world.fleet.pids)
    return sum(process.pid not in devices for process in world.server.processes())


def ended(world: KillableWorld, job_id: str) -> bool:
    return status_of(world, job_id) in ENDED


def run_job(
    world: KillableWorld, number: int, kinds: list[str], version_s: float, source: random.Random
) -> Tally:
    """One job and its kills."""
    tally = Tally()
    strategy = list(STRATEGIES)[number % len(STRATEGIES)]
    job = small_job(f"kills-{strategy}", strategy, aggregations=AGGREGATIONS)
    job_id = submit(world.deployment, job, lambda _: None).job_id
    wait_for(lambda: newest_version(world, job_id) >= 0, 60.0)
    redone_before = world.fleet.progress().counts.get("upload_again", 0)
    begun_s = time.monotonic()
    for order, kind in enumerate(kinds):
        if order == 0:
            reached = source.randrange(AGGREGATIONS)
            wait_for(lambda v=reached: newest_version(world, job_id) >= v, 60.0, every_s=0.02)  # type: ignore[misc]
        time.sleep(source.uniform(0.0, version_s if order == 0 else 2.0))
        was_over = ended(world, job_id)
        tally.kills["after the job"] += was_over
        version = newest_version(world, job_id)
        killed_s = time.monotonic()
        kill(world, kind, source)
        tally.kills[kind] += 1
        if order + 1 < len(kinds) and kind not in ("supervisor", "everything"):
            continue  # the next one comes while this one is mended
        while time.monotonic() - killed_s < _JOB_TIMEOUT_S:
            mend(world, tally)
            if newest_version(world, job_id) > version + 1 or ended(world, job_id):
                break
            time.sleep(0.05)
        if not was_over:
            tally.recovered_s.setdefault(kind, []).append(time.monotonic() - killed_s)
    while not wait_for(lambda: ended(world, job_id), 5.0):
        mend(world, tally)
        if time.monotonic() - begun_s > _JOB_TIMEOUT_S:
            break
    tally.job_s = time.monotonic() - begun_s
    wait_for(lambda: world.server.is_ready, 60.0)
    status = status_of(world, job_id)
    tally.jobs[status if status in ENDED else "unfinished"] += 1
    # Devices tell what they were asked for a second later.
    wait_for(lambda: False, 1.2)
    redone = world.fleet.progress().counts.get("upload_again", 0) - redone_before
    tally.redone.setdefault("+".join(kinds), []).append(redone)
    judge(world, job_id, status, tally)
    return tally


def judge(world: KillableWorld, job_id: str, status: str, tally: Tally) -> None:
    """Versions without a gap, and each made of exactly the tasks that are stored with it."""
    record, task = ModelVersionRecord, TaskOutcomeRecord
    with world.deployment.engine.connect() as connection:
        rows = connection.execute(
            select(record.job_version, record.strategy_state)
            .where(record.job_id == job_id)
            .order_by(record.job_version)
        ).all()
        counted = connection.execute(
            select(task.version_number, func.count())
            .where(task.job_id == job_id, task.outcome == "succeeded")
            .group_by(task.version_number)
        ).all()
        outcomes = connection.execute(
            select(task.outcome, task.reason, func.count())
            .where(task.job_id == job_id)
            .group_by(task.outcome, task.reason)
        ).all()
    versions = [number for number, _ in rows]
    if versions != list(range(len(versions))) or status != "finished":
        tally.unfinished.append(f"{job_id}: {status}, versions {versions}")
    before, stored = 0, {number: count for number, count in counted}  # noqa: C416 - rows, not pairs
    for number, state in rows:
        updates = state["totals"]["updates"]
        if number:
            tally.counted_twice += abs(updates - before - stored.get(number, 0))
        before = updates
    tally.updates += before
    for outcome, reason, count in outcomes:
        tally.outcomes[outcome if outcome == "succeeded" else f"{outcome}: {reason}"] += count


def add(total: Tally, one: Tally) -> None:
    for name in ("jobs", "kills", "outcomes"):
        getattr(total, name).update(getattr(one, name))
    for kind, seconds in one.recovered_s.items():
        total.recovered_s.setdefault(kind, []).extend(seconds)
    for kind, counts in one.redone.items():
        total.redone.setdefault(kind, []).extend(counts)
    total.counted_twice += one.counted_twice
    total.updates += one.updates
    total.orphans += one.orphans
    total.unfinished += one.unfinished


def seconds(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "max": round(max(values), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--second-kill", type=float, default=0.15, help="share of jobs with two")
    parser.add_argument("--devices", type=int, default=24)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    source = random.Random(options.seed)
    total, begun_s = Tally(), time.monotonic()
    with killable_world(options.devices, options.processes, gateways=options.gateways) as world:
        undisturbed_s = 0.0
        for number in range(3):  # the first builds the artefact, and warms everything up
            undisturbed_s = run_job(world, number, [], 0.0, source).job_s
        version_s = undisturbed_s / AGGREGATIONS
        kinds = draw_kinds(2 * options.jobs, source)
        for number in range(options.jobs):
            several = source.random() < options.second_kill
            chosen = [kinds.pop() for _ in range(2 if several else 1)]
            one = run_job(world, number, chosen, version_s, source)
            add(total, one)
            recovered = {kind: round(times[-1], 1) for kind, times in one.recovered_s.items()}
            say = f"job {number + 1}: {dict(one.jobs)} {chosen} {recovered} {dict(one.outcomes)}"
            print(f"{say} redone {one.redone}", file=sys.stderr, flush=True)
    total.orphans += len(world.server.processes())
    kills = sum(total.kills[kind] for kind in KINDS)
    every = [s for times in total.recovered_s.values() for s in times]
    print(
        json.dumps(
            {
                "figure": "random_kills",
                "jobs": sum(total.jobs.values()),
                "jobs_finished": total.jobs["finished"],
                "kills": kills,
                "kills_by_process": {kind: total.kills[kind] for kind in KINDS},
                "kills_after_the_jobs_end": total.kills["after the job"],
                "updates": total.updates,
                "updates_counted_twice": total.counted_twice,
                "buffer": BUFFER,
                "updates_redone_most_in_a_job": {
                    kind: max(counts) for kind, counts in sorted(total.redone.items())
                },
                "orphans": total.orphans,
                "recovered_s": seconds(every)
                | {kind: seconds(times) for kind, times in sorted(total.recovered_s.items())},
                "outcomes": dict(total.outcomes.most_common()),
                "unfinished": total.unfinished,
                "devices": options.devices,
                "device_processes": options.processes,
                "gateways": options.gateways,
                "seconds": round(time.monotonic() - begun_s),
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
