r"""One long job under kills: it finishes, and no process grows.

A FedBuff job runs for the whole time on the real server with devices that train with LiteRT, and
every so often one process is killed with SIGKILL: coordinator, gateway, SuperLink, Postgres and
device processes in turn. Every few seconds resident memory (RSS) and open file descriptors of every
process are noted. A process that is killed begins anew, so growth is looked for within lives: per
role, the slope of a line through all its samples, each taken relative to its own life's mean, as
memory and as descriptors per hour; the first seconds of a life (``--settling-s``) are left out. The
supervisor and Postgres' postmaster live on between their kills. Caches fill for longer than other
lives last between kills, so what grows for good is told by a run without kills, from the moment on
at which they are full.

Flat means: the growth a day at that slope is less than a tenth of what the process holds, or the
slope is not told apart from zero (its two-sided 95 % interval contains it; samples of one process
are correlated, so that interval is somewhat too narrow).

    python benchmarks/soak.py                   # ten minutes
    python benchmarks/soak.py --minutes 120     # what an operator may have to live through
    python benchmarks/soak.py --minutes 40 --kill-every-s 1e6 --settling-s 900   # what grows
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from killable import KillableWorld, killable_world, small_job, wait_for
from random_kills import ENDED, Tally, judge, kill, mend, newest_version, status_of

from flint.submission import submit

KINDS = ("coordinator", "gateway", "device", "superlink", "postgres")
STRATEGY = {"name": "fedbuff", "buffer_size": 60, "concurrency": 100}
SAMPLE_EVERY_S = 5.0
_ROLES = ("supervisor", "superlink", "coordinator", "gateway", "postgres")


@dataclass
class Life:
    """Samples of one process: seconds since the soak began, RSS in bytes, descriptors."""

    role: str
    begun_s: float
    seconds: list[float] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


class Watch:
    """Samples every process of the deployment."""

    def __init__(self, world: KillableWorld) -> None:
        self.lives: dict[int, Life] = {}
        self._world = world
        self._begun_s = time.monotonic()

    def sample(self) -> None:
        """Note memory and descriptors of all that live."""
        now_s = time.monotonic() - self._begun_s
        found = {role: self._world.server.pids(role) for role in _ROLES}
        found["device"] = list(self._world.fleet.pids)
        for role, pids in found.items():
            for pid in pids:
                try:
                    process = psutil.Process(pid)
                    rss, descriptors = process.memory_info().rss, process.num_fds()
                    begun_s = process.create_time()
                except psutil.Error:
                    continue
                life = self.lives.get(pid)
                if life is None or life.begun_s != begun_s:
                    life = self.lives[pid] = Life(role, begun_s)
                life.seconds.append(now_s)
                life.rss_bytes.append(rss)
                life.descriptors.append(descriptors)

    def growth(self, settling_s: float) -> dict[str, Any]:
        """Per role: what a process holds, and how fast that grows within lives."""
        by_role: dict[str, list[Life]] = defaultdict(list)
        for life in self.lives.values():
            by_role[life.role].append(life)
        return {role: _growth(by_role[role], settling_s) for role in sorted(by_role)}


def _growth(lives: list[Life], settling_s: float) -> dict[str, Any]:
    settled = [kept for life in lives if (kept := _settled(life, settling_s)) is not None]
    shown: dict[str, Any] = {"lives": len(lives), "samples": sum(len(t) for t, _, _ in settled)}
    if not settled:
        return shown
    shown["longest_life_minutes"] = round(max(t[-1] - t[0] for t, _, _ in settled) / 60, 1)
    for name, index, scale in (("rss_mb", 1, 1e-6), ("descriptors", 2, 1.0)):
        held = float(np.mean(np.concatenate([life[index] for life in settled]))) * scale
        slope, error = _slope([(life[0], life[index] * scale) for life in settled])
        per_day = 24 * slope
        flat = abs(slope) <= 1.96 * error or per_day < 0.1 * held
        shown[name] = {
            "mean": round(held, 1),
            "per_hour": round(slope, 3),
            "plus_minus": round(1.96 * error, 3),
            "flat": bool(flat),
        }
    return shown


def _settled(life: Life, settling_s: float) -> tuple[Any, Any, Any] | None:
    seconds = np.array(life.seconds)
    kept = seconds >= seconds[0] + settling_s
    if kept.sum() < 3:
        return None
    return seconds[kept], np.array(life.rss_bytes)[kept], np.array(life.descriptors)[kept]


def _slope(lives: list[tuple[Any, Any]]) -> tuple[float, float]:
    """Least squares within lives, per hour, with its standard error."""
    hours = np.concatenate([(t - t.mean()) / 3600.0 for t, _ in lives])
    values = np.concatenate([v - v.mean() for _, v in lives])
    spread = float(hours @ hours)
    slope = float(hours @ values) / spread
    free = max(1, len(hours) - len(lives) - 1)
    residual = values - slope * hours
    return slope, float(np.sqrt(residual @ residual / free / spread))


def soak(
    world: KillableWorld, minutes: float, kill_every_s: float, settling_s: float, seed: int
) -> dict[str, Any]:
    source, tally, watch = random.Random(seed), Tally(), Watch(world)
    job = small_job("soak", STRATEGY, aggregations=None, max_hours=minutes / 60.0)
    job_id = submit(world.deployment, job, lambda _: None).job_id
    begun_s = time.monotonic()
    next_kill_s, next_sample_s = begun_s + kill_every_s, begun_s
    kills: Counter[str] = Counter()
    recovered_s: list[float] = []
    while status_of(world, job_id) not in ENDED:
        now_s = time.monotonic()
        # Time without a coordinator is none on the job's clock.
        if now_s > begun_s + 66.0 * minutes + 300.0:
            break
        if now_s >= next_sample_s:
            watch.sample()
            next_sample_s = now_s + SAMPLE_EVERY_S
        if now_s >= next_kill_s and now_s < begun_s + 60.0 * minutes - 30.0:
            kind = KINDS[sum(kills.values()) % len(KINDS)]
            version = newest_version(world, job_id)
            kill(world, kind, source)
            kills[kind] += 1
            next_kill_s += kill_every_s
            while newest_version(world, job_id) <= version + 1:
                mend(world, tally)
                if time.monotonic() - now_s > 90.0 or status_of(world, job_id) in ENDED:
                    break
                time.sleep(0.2)
            recovered_s.append(time.monotonic() - now_s)
            print(f"{kind}: {recovered_s[-1]:.1f} s", file=sys.stderr, flush=True)
        mend(world, tally)
        time.sleep(0.5)
    wait_for(lambda: world.server.is_ready, 60.0)
    status = status_of(world, job_id)
    judge(world, job_id, status, tally)
    row = world.deployment.jobs.get(job_id)
    growth = watch.growth(settling_s)
    return {
        "minutes": minutes,
        "job": status,
        "job_detail": row.detail,
        "versions": newest_version(world, job_id),
        "updates": tally.updates,
        "updates_counted_twice": tally.counted_twice,
        "buffer": STRATEGY["buffer_size"],
        "updates_asked_for_again": world.fleet.progress().counts.get("upload_again", 0),
        "kills": dict(kills),
        "recovered_s": {
            "median": round(statistics.median(recovered_s), 1) if recovered_s else None,
            "max": round(max(recovered_s), 1) if recovered_s else None,
        },
        "outcomes": dict(tally.outcomes.most_common()),
        "orphans": tally.orphans,
        "flat": all(
            growth[role].get(name, {}).get("flat", True)
            for role in growth
            for name in ("rss_mb", "descriptors")
        ),
        "growth": growth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kill-every-s", type=float, default=120.0)
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--check-ins-per-s", type=float, default=60.0)
    parser.add_argument("--settling-s", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with killable_world(
        options.devices,
        options.processes,
        gateways=options.gateways,
        check_ins_per_s=options.check_ins_per_s,
    ) as world:
        found = soak(world, options.minutes, options.kill_every_s, options.settling_s, options.seed)
    orphans = found["orphans"] + len(world.server.processes())
    more = {
        "devices": options.devices,
        "kill_every_s": options.kill_every_s,
        "settling_s": options.settling_s,
        "check_ins_per_s": options.check_ins_per_s,
    }
    figure = {"figure": "soak", **found, "orphans": orphans, **more, "cores": os.cpu_count()}
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
