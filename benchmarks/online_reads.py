r"""Online reads and materialisation beside Feast's: how long a read of 1, 10, 100 keys takes.

What is compared: ``get_online_features(...).to_dict()`` of 20 features (12 floats, 6 integers, 2
texts) for keys drawn at random, in one process with the client library, against Feast's Python SDK
doing the same with its Postgres and its SQLite online store. Both use the same Postgres, which this
script starts, and were filled from the same Parquet files; the values of the last read of every
round are compared. Feast runs in its own environment as a process that times its own loop. Rounds
are interleaved (ours, Feast on Postgres, Feast on SQLite); p50 and p99 are over all reads, and the
ratio is the median over rounds of the ratio of medians, so that a busy moment of the machine meets
all. Processor time a read is that of the reading process, without the database's own.

The limit: one round trip to Postgres over a local socket takes 0.02 ms, an index look-up 2 us a
key, and psycopg2 decodes a row of 200 bytes in 3 us. SQLite has no round trip: it is read by the
process itself, from its memory. Feast's precomputed vectors are no part of this: 0.67 makes them
for Redis only.

    python benchmarks/online_reads.py --peers-folder /data/peers/feast
"""

import argparse
import datetime as dt
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peer_environment import peer_python
from sqlalchemy import text

from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect, upgrade
from feature_catalog.definitions import CloudSource, Entity, FeatureService, FeatureView, Field
from feature_catalog.definitions.catalog_set import DefinitionSet, check_set, key_of
from feature_catalog.embedded import EmbeddedPostgres
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.online.materialization import Sources, materialize
from feature_catalog.online.serving import OnlineFeatures

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
ROWS_A_KEY = 3
KINDS = ["float32"] * 12 + ["int64"] * 6 + ["string"] * 2
SEED = 7


def view_fields(views: int) -> dict[str, dict[str, str]]:
    """Twenty fields, dealt out to views."""
    found: dict[str, dict[str, str]] = {f"view_{v}": {} for v in range(views)}
    for place, kind in enumerate(KINDS):
        found[f"view_{place % views}"][f"f{place:02d}"] = kind
    return found


def write_sources(folder: Path, users: int, views: Mapping[str, Mapping[str, str]]) -> None:
    draw = np.random.default_rng(SEED)
    rows = users * ROWS_A_KEY
    user = np.repeat(np.arange(users), ROWS_A_KEY)
    hours = draw.integers(1, 24 * 20, rows)
    for name, fields in views.items():
        columns: dict[str, Any] = {
            "user_id": [f"user-{u:07d}" for u in user],
            "event_ts": pa.array(
                (int(START.timestamp()) + hours * 3600) * 1_000_000, pa.timestamp("us", tz="UTC")
            ),
        }
        for field, kind in fields.items():
            if kind == "float32":
                columns[field] = draw.standard_normal(rows).astype(np.float32)
            elif kind == "int64":
                columns[field] = draw.integers(0, 10**6, rows)
            else:
                columns[field] = [f"topic-{n}" for n in draw.integers(0, 500, rows)]
        # One row a user and hour, so that both sides agree on which is the newest.
        table = pa.table(columns).to_pandas().drop_duplicates(["user_id", "event_ts"])
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False), folder / f"{name}.parquet"
        )


def definitions(views: Mapping[str, Mapping[str, str]]) -> DefinitionSet:
    defined = [
        FeatureView(
            name=name,
            entities=["user"],
            source=CloudSource(path=f"{name}.parquet"),
            schema=[Field(field, kind) for field, kind in fields.items()],
        )
        for name, fields in views.items()
    ]
    every = [
        Entity("user", join_keys=["user_id"]),
        *defined,
        FeatureService("served", defined),
    ]
    found = DefinitionSet({key_of(each): each for each in every})
    check_set(found)
    return found


class Feast:
    """Feast's process."""

    def __init__(self, python: Path) -> None:
        script = Path(__file__).parent / "peers" / "feast_online.py"
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **command: object) -> dict[str, Any]:
        """Have it do something; its answer."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("feast's process has no pipes")
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(f"feast's process ended with {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)


def our_reads(
    online: OnlineFeatures, *, users: int, keys: int, reads: int, seed: int
) -> dict[str, Any]:
    draw = Random(seed)
    durations_s: list[float] = []
    found: dict[str, Any] = {}
    cpu_s = time.process_time()
    for _ in range(reads):
        chosen = draw.sample(range(users), keys)
        rows = [{"user_id": f"user-{user:07d}"} for user in chosen]
        started_s = time.perf_counter()
        found = online.get_online_features("served", rows).to_dict()
        durations_s.append(time.perf_counter() - started_s)
    return {"durations_s": durations_s, "cpu_s": time.process_time() - cpu_s, "last": found}


def check_equal(ours: Mapping[str, Sequence[Any]], theirs: Mapping[str, Sequence[Any]]) -> None:
    for place in range(len(KINDS)):
        name = f"f{place:02d}"
        if list(ours[name]) != list(theirs[name]) or ours["user_id"] != theirs["user_id"]:
            sys.exit(f"feast and we read different values of {name}")


def figures(durations_s: Sequence[float], keys: int) -> dict[str, float]:
    ordered = sorted(durations_s)
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 3),
        "keys_per_s": round(keys / statistics.fmean(ordered)),
    }


def measure_reads(
    online: OnlineFeatures, feast: Feast, *, users: int, keys: int, reads: int, rounds: int
) -> dict[str, Any]:
    sides: dict[str, list[list[float]]] = {"ours": [], "feast_postgres": [], "feast_sqlite": []}
    cpu_s = dict.fromkeys(sides, 0.0)
    for number in range(-1, rounds):  # the first is to warm up
        asked = {"users": users, "keys": keys, "reads": reads, "seed": SEED + number}
        found = {
            "ours": our_reads(online, **asked),
            "feast_postgres": feast.ask(do="read", store="postgres", **asked),
            "feast_sqlite": feast.ask(do="read", store="sqlite", **asked),
        }
        for side in ("feast_postgres", "feast_sqlite"):
            check_equal(found["ours"]["last"], found[side]["last"])
        if number >= 0:
            for side, answer in found.items():
                sides[side].append(answer["durations_s"])
                cpu_s[side] += answer["cpu_s"]
    result: dict[str, Any] = {
        side: figures([d for each in parts for d in each], keys)
        | {"client_cpu_ms": round(cpu_s[side] / (reads * rounds) * 1e3, 3)}
        for side, parts in sides.items()
    }
    for side in ("feast_postgres", "feast_sqlite"):
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for ours, theirs in zip(sides["ours"], sides[side], strict=True)
        ]
        result[f"times_faster_than_{side}"] = round(statistics.median(ratios), 1)
    return result


def measure(folder: Path, server: EmbeddedPostgres, feast: Feast, views: int, o: Any) -> Any:  # noqa: ANN401
    data = folder / f"data-{views}"
    data.mkdir()
    fields = view_fields(views)
    write_sources(data, o.users, fields)
    end = START + dt.timedelta(days=30)
    names = {"ours": f"ours_{views}", "feast": f"feast_{views}"}
    admin = connect(server.url("postgres")).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in names.values():
            connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    engine = connect(server.url(names["ours"]))
    upgrade(engine)
    defined = definitions(fields)
    FeatureRegistry(engine).apply(defined, actor="benchmark")
    url = engine.url
    stores = {
        "postgres": {
            "type": "postgres",
            "host": url.query["host"],
            "port": int(str(url.query["port"])),
            "database": names["feast"],
            "user": url.username,
            "password": "none",
            "sslmode": "disable",
        },
        "sqlite": {"type": "sqlite", "path": str(folder / f"online-{views}.db")},
    }
    described = {
        name: {"path": str(data / f"{name}.parquet"), "fields": kinds}
        for name, kinds in fields.items()
    }
    written: dict[str, float] = {}
    rows = o.users * views
    started_s = time.perf_counter()
    done = materialize(engine, defined, start=START, end=end, sources=Sources(data))
    written["ours"] = time.perf_counter() - started_s
    if sum(each.written for each in done) != rows:
        sys.exit("not every key came online")
    for store, settings in stores.items():
        at = {"store": store, "folder": str(folder / f"{store}-{views}")}
        feast.ask(do="apply", online_store=settings, views=described, **at)
        answer = feast.ask(
            do="materialize", store=store, start=START.isoformat(), end=end.isoformat()
        )
        written[f"feast_{store}"] = answer["seconds"]
    online = OnlineFeatures(engine, BlobStore(str(folder / "blobs")))
    try:
        reads = {
            str(keys): measure_reads(
                online, feast, users=o.users, keys=keys, reads=o.reads, rounds=o.rounds
            )
            for keys in o.keys
        }
    finally:
        online.close()
        engine.dispose()
    return {
        "reads_of_keys": reads,
        "materialized_rows": rows,
        "materialized_rows_per_s": {side: round(rows / s) for side, s in written.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--reads", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-folder", type=Path, help="where feast's environment is or is made")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="flint-online-reads-"))
    folder.chmod(0o755)  # the database may have a system user of its own
    server = EmbeddedPostgres(folder / "postgres")
    feast = Feast(peer_python("feast", options.peers_folder))
    try:
        server.start()
        found = {
            f"{views}_views": measure(folder, server, feast, views, options)
            for views in options.views
        }
    finally:
        feast.close()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        json.dumps(
            {
                "figure": "online_reads",
                "feast": "0.67.0",
                "users": options.users,
                "features": len(KINDS),
                "reads": options.reads * options.rounds,
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
