r"""The device's feature file: killed over 10^5 steps, and a replayed day of sessions.

Kills: a process puts, gets, evicts, removes and appends at random, checks every step, and is killed
with SIGKILL at random moments (`tests/device_runtime/feature_worker.py`). Counted are limits
exceeded (by the process itself, by another that looks on, and in the file after each kill), values
returned that are torn, another key's or expired, and totals that are not the sum. All must be 0.

Replay: devices live through the sessions of one day (a Parquet file of client_id, start_s and
end_s, spans in which a phone is idle, charging and on Wi-Fi; without one, sessions are drawn). In a
session two tasks take turns every ten minutes, each reads an item view for 100 examples; between 7
and 23 h an inference on the mobile network reads it for 20 candidates every half hour. Items are
drawn half from the user's own favourites, half by popularity (Zipf). The same day is lived under
each mode:

- on_demand: fetched when a read misses, on Wi-Fi; kept six hours;
- prefetch: at each session's start the favourites and the most popular are fetched ahead;
- bundled: the most popular came with the app.

Per mode: share of keys served from the cache, by a fetch, by default; bytes fetched a device; bytes
held at the end of the day; milliseconds of a read (measured, without network) and what the network
would add to a read that fetches (modelled: 100 ms and 5 Mbit/s, the median of FedScale's clients).
Cross-task reuse: the same day on_demand with one cache for both tasks and with one cache each.

The limit of a read is SQLite and Python around it: a look-up of 100 keys is one statement, its rows
take some 20 microseconds each to find, check (SHA-256) and decode, and a key of this view has three
processed fields. A change is one transaction, and one insert with its indexes, totals and eviction
some 150 microseconds.

    python benchmarks/feature_cache.py --steps 100000 --sessions FILE
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq

from device_runtime.columns import Column, Kind
from device_runtime.feature_cache import CacheLimits, FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CacheMode, CachePolicy, OnMiss
from device_runtime.feature_reader import DeviceView, FeatureReader, FetchedRow, ViewField
from device_runtime.feature_values import encode_key, encode_row
from device_runtime.transform_assets import Assets, EmbeddingTable, Vocabulary
from device_runtime.transform_chain import TransformChain
from tests.device_runtime.feature_kills import run_kills
from tests.device_runtime.set_time import SetTime

DAY_S = 86_400
ITEMS, FAVOURITES, POPULAR = 20_000, 150, 300
EXAMPLES, CANDIDATES = 100, 20
TASK_EVERY_S, INFER_EVERY_S = 600, 1_800
MAX_AGE_S = 6 * 3600.0
ROUND_TRIP_S, BANDWIDTH_BPS = 0.1, 5e6
LIMITS = CacheLimits(max_bytes=512 * 1024, max_rows=4_000)
POLICIES = {
    "on_demand": CachePolicy(CacheMode.ON_DEMAND, MAX_AGE_S, on_miss=OnMiss.FETCH),
    "prefetch": CachePolicy(CacheMode.PREFETCH, MAX_AGE_S, on_miss=OnMiss.DEFAULT),
    "bundled": CachePolicy(CacheMode.BUNDLED, on_miss=OnMiss.DEFAULT),
}


def assets() -> Assets:
    table = np.random.default_rng(3).standard_normal((1_000, 8)).astype(np.float32)
    return {
        "topics": Vocabulary.of(tuple(f"topic {n}" for n in range(500))),
        "items": EmbeddingTable.of(table),
    }


def item_view(policy: CachePolicy) -> DeviceView:
    def chain(**step: object) -> TransformChain:
        return TransformChain.from_json(json.dumps([step]))

    fields = (
        ViewField("topic", Kind.STRING, (), "", chain(op="vocab", asset="topics", unknown=0)),
        ViewField("price", Kind.FLOAT, (), 10.0, chain(op="normalize", mean=10, stdev=4)),
        ViewField("cluster", Kind.INT, (), -1, chain(op="embed_lookup", asset="items")),
    )
    return DeviceView("item", 1, fields, policy)


class Cloud:
    """Serves items from memory and counts keys, calls and bytes."""

    def __init__(self) -> None:
        draws = np.random.default_rng(4)
        topics, clusters = draws.integers(0, 600, ITEMS), draws.integers(0, 1_000, ITEMS)
        prices = draws.gamma(4, 2.5, ITEMS)
        self.keys = [encode_key([f"item-{n}"]) for n in range(ITEMS)]
        self.rows = {
            key: FetchedRow({"topic": f"topic {t}", "price": float(p), "cluster": int(c)})
            for key, t, p, c in zip(self.keys, topics, prices, clusters, strict=True)
        }
        self.counts: Counter[str] = Counter()

    def fetch(self, _view: str, _version: int, keys: Sequence[bytes]) -> dict[bytes, FetchedRow]:
        """Rows of keys, as the device-facing service gives them."""
        rows = {key: self.rows[key] for key in keys}
        sent_bytes = sum(len(key) + len(encode_row(row.values)) for key, row in rows.items())
        self.counts.update(calls=1, keys=len(keys), bytes=sent_bytes)
        return rows


@dataclass
class DayFigures:
    """What all devices' days gave under one mode."""

    devices: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    read_ms: list[float] = field(default_factory=list)
    network_ms: list[float] = field(default_factory=list)
    held_bytes: list[int] = field(default_factory=list)
    transformed: int = 0
    fetched: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """As the record tells it."""
        keys = sum(self.statuses.values())
        return {
            "reads": len(self.read_ms),
            "share_of_keys": {s: round(n / keys, 4) for s, n in sorted(self.statuses.items())},
            "fetched_bytes_a_device": round(self.fetched["bytes"] / self.devices),
            "round_trips_a_device": round(self.fetched["calls"] / self.devices, 1),
            "held_bytes_median": int(np.median(self.held_bytes)),
            "held_bytes_max": max(self.held_bytes),
            "read_ms_p50": round(float(np.percentile(self.read_ms, 50)), 2),
            "read_ms_p99": round(float(np.percentile(self.read_ms, 99)), 2),
            "network_ms_mean": round(float(np.mean(self.network_ms)), 1),
            "values_transformed": self.transformed,
        }


@contextmanager
def counted_transforms(figures: DayFigures) -> Iterator[None]:
    """Count the values that go through any chain."""
    apply = TransformChain.apply

    def counted(self: TransformChain, column: Column, found: Assets | None = None) -> Column:
        figures.transformed += len(column)
        return apply(self, column, found)

    with patch.object(TransformChain, "apply", counted):
        yield


def draw_reads(draws: np.random.Generator, sessions: list[tuple[int, int]]) -> list[Any]:
    """A device's day: (second, what, item numbers) in order; what is session, task or inference."""
    favourites = draws.integers(0, ITEMS, FAVOURITES)
    ahead = np.unique(np.concatenate([favourites, np.arange(POPULAR)]))
    happenings: list[Any] = []
    for start_s, end_s in sessions:
        happenings.append((start_s, "session", ahead))
        happenings += [(at_s, "task", None) for at_s in range(start_s + 1, end_s, TASK_EVERY_S)]
    awake = range(7 * 3600, 23 * 3600, INFER_EVERY_S)
    happenings += [(at_s + 2, "inference", None) for at_s in awake]
    done = []
    for at_s, what, numbers in sorted(happenings, key=lambda happening: happening[0]):
        drawn = numbers
        if drawn is None:
            count = EXAMPLES if what == "task" else CANDIDATES
            popular = (draws.zipf(1.3, count) - 1) % ITEMS
            drawn = np.where(draws.random(count) < 0.5, draws.choice(favourites, count), popular)
        done.append((at_s, what, drawn.tolist()))
    return done


def live(
    folder: Path, mode: str, day: list[Any], cloud: Cloud, figures: DayFigures, *, caches: int = 1
) -> None:
    """One device's day; tasks take turns on ``caches`` cache files."""
    clock = SetTime(wall_ms=1_800_000_000_000)
    began_ms = clock.since_boot_ms
    view = item_view(POLICIES[mode])
    databases = [FeatureDatabase(folder / f"{n}.sqlite", read_time=clock) for n in range(caches)]
    readers = [
        FeatureReader(
            FeatureCache(database, "app", [view.cached()], LIMITS), [view], cloud.fetch, assets()
        )
        for database in databases
    ]
    if mode == "bundled":
        rows = {key: cloud.rows[key].values for key in cloud.keys[:POPULAR]}
        readers[0].load_bundle("item", rows, as_of_ms=clock.wall_ms - DAY_S * 1000)
    turn = 0
    for at_s, what, numbers in day:
        clock.since_boot_ms = began_ms + at_s * 1000
        keys = [cloud.keys[number] for number in numbers]
        if what == "session":
            if mode == "prefetch":
                readers[0].prefetch("item", keys, unmetered=True)
            continue
        turn += what == "task"
        before = cloud.counts.copy()
        started_s = time.perf_counter()
        read = readers[turn % caches].read("item", keys, unmetered=what == "task")
        figures.read_ms.append((time.perf_counter() - started_s) * 1e3)
        fetched = cloud.counts - before
        network_s = fetched["calls"] * ROUND_TRIP_S + fetched["bytes"] * 8 / BANDWIDTH_BPS
        figures.network_ms.append(network_s * 1e3)
        figures.statuses.update(str(status) for status in read.statuses)
    figures.held_bytes.append(sum(database.totals("entries")[1] for database in databases))
    figures.devices += 1
    for database in databases:
        database.close()


def days(path: Path | None, devices: int, seed: int) -> list[list[Any]]:
    draws = np.random.default_rng(seed)
    if path is None:
        spans = [
            sorted((int(s), int(min(s + draws.exponential(4800), DAY_S))) for s in starts)
            for starts in (draws.integers(0, DAY_S, draws.poisson(2.5) + 1) for _ in range(devices))
        ]
    else:
        table = pq.read_table(path).to_pydict()
        by_client: dict[int, list[tuple[int, int]]] = {}
        criteria = table.get("criteria") or ["strict"] * len(table["client_id"])
        for client, start_s, end_s, which in zip(
            table["client_id"], table["start_s"], table["end_s"], criteria, strict=True
        ):
            if which == "strict" and start_s < DAY_S:
                by_client.setdefault(client, []).append((start_s, min(end_s, DAY_S)))
        chosen = draws.choice(sorted(by_client), min(devices, len(by_client)), replace=False)
        spans = [sorted(by_client[client]) for client in chosen.tolist()]
    return [draw_reads(draws, span) for span in spans]


def replay(path: Path | None, devices: int, seed: int) -> dict[str, Any]:
    lived = days(path, devices, seed)
    figures = {}
    configurations = [(mode, mode, 1) for mode in POLICIES] + [("a_cache_a_task", "on_demand", 2)]
    for name, mode, caches in configurations:
        cloud, of_mode = Cloud(), DayFigures()
        with counted_transforms(of_mode):
            for day in lived:
                with tempfile.TemporaryDirectory() as folder:
                    live(Path(folder), mode, day, cloud, of_mode, caches=caches)
        of_mode.fetched = cloud.counts
        figures[name] = of_mode.summary()
    one, two = figures["on_demand"], figures["a_cache_a_task"]
    saving = {
        what: round(1 - one[what] / two[what], 3)
        for what in ("fetched_bytes_a_device", "values_transformed", "held_bytes_median")
    }
    return {
        "sessions": path.name if path else "drawn",
        "devices": len(lived),
        "modes": figures,
        "cross_task_reuse_saves": saving,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--steps-a-kill", type=int, default=800)
    parser.add_argument("--devices", type=int, default=25)
    parser.add_argument("--sessions", type=Path)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started_s = time.perf_counter()
        kills = run_kills(
            Path(folder), steps=options.steps, seed=options.seed, steps_a_kill=options.steps_a_kill
        )
        kills_s = time.perf_counter() - started_s
    result = {
        "figure": "feature_cache",
        "kills": vars(kills) | {"wrongs": len(kills.wrongs), "took_s": round(kills_s, 1)},
        "replay": replay(options.sessions, options.devices, options.seed),
    }
    if kills.wrongs:
        raise SystemExit(f"wrong after {kills.steps} steps: {kills.wrongs}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
