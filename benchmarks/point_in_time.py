r"""A million entity rows joined as of their moments: equal to brute force, no leaks, and how fast?

What is compared: `get_historical_features` over Parquet (DuckDB) and over a Postgres table, with
each other, with a brute force in plain Python (per key a sorted list and a bisection, written from
the rule and not from our code), and with feast's on the same files: its ``file`` store (Dask) and
its ``duckdb`` store, each as it is by default and with ``filter_by_created_timestamp``.

The data are hard on purpose: a third of the source rows come up to two days late, one in ten is
equally new as another, some of those alike in all times; nulls; entity rows whose moment is exactly
that of a row, or exactly the ttl after it; unknown keys; the same key and moment twice.

A *leak* is a value of a row that was not true yet, or not written yet. What differs from the rule
otherwise is counted by its cause.

Seconds are from the entity rows' file to an Arrow table in memory, each in a process of its own
that has imported and joined a few rows before; engines take turns, medians count. Processor seconds
are of all threads, and say more than seconds where others use the machine. Postgres holds the
source in a table without index, and the entity rows are sent to it; its own processor time
(``server_processor_s``, of the whole connection) comes on top of the client's. Peak memory is that
of the process, of Postgres the client's only.

The limit: both sides must be read and brought together by key and time, an O(n log n) sort; sorting
two million (key, time) pairs with numpy takes about 0.3 s here (``sort_s`` in the result).

    python benchmarks/point_in_time.py --rows 1000000 --peers-folder /data/peers/feast
"""

import argparse
import datetime as dt
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peer_environment import peer_python

START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_S, DAYS, TTL_S = 86_400, 30, 3 * 86_400
UTC_US = pa.timestamp("us", "UTC")
FIELDS = {
    **{f"f{place}": "double" for place in range(6)},
    "row_id": "int64",
    "segment": "string",
}
OURS = ("parquet", "postgres")
FEAST = tuple((store, rule) for store in ("duckdb", "dask") for rule in ("default", "known"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="entity rows, and source rows")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peers-folder", type=Path, help="feast's environment")
    parser.add_argument("--without-feast", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # engine, folder, output
    options = parser.parse_args()
    if options.one:
        run_ours(options.one[0], Path(options.one[1]), Path(options.one[2]))
        return
    with tempfile.TemporaryDirectory(prefix="flint-joins-") as name:
        print(json.dumps(measure(Path(name), options)))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    draw(folder, options.rows, options.keys, options.seed)
    entities = pq.read_table(folder / "entities.parquet")
    source = pq.read_table(folder / "source.parquet").to_pydict()
    expected = brute_force(entities, source)
    python = None if options.without_feast else peer_python("feast", options.peers_folder)
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    compared: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="flint-joins-") as home, postgres(Path(home)) as server:
        url = server.url
        load_postgres(url, folder)
        commands = [
            (f"flint_{engine}", [sys.executable, __file__, "--one", engine, str(folder)])
            for engine in OURS
        ]
        script = Path(__file__).parent / "peers" / "feast_point_in_time.py"
        for store, rule in FEAST if python is not None else ():
            commands.append(
                (f"feast_{store}_{rule}", [str(python), str(script), str(folder), store, rule])
            )
        for turn in range(options.repeats):
            for label, command in commands:
                output = folder / f"{label}.parquet"
                print(f"turn {turn + 1}: {label}", file=sys.stderr, flush=True)
                before_s = server.reaped_s()
                told = subprocess.run(
                    [*command, str(output)],
                    check=True,
                    stdout=subprocess.PIPE,
                    stderr=None if label.startswith("flint") else subprocess.DEVNULL,
                    text=True,
                    env={**os.environ, "JOINS_DATABASE_URL": url},
                )
                run = json.loads(told.stdout.splitlines()[-1])
                if label == "flint_postgres":
                    run["server_processor_s"] = server.reaped_s() - before_s
                runs[label].append(run)
                if turn == 0:
                    compared[label] = compare(pq.read_table(output), entities, source, expected)
    return {
        "figure": "point_in_time",
        "entity_rows": len(entities),
        "source_rows": len(source["row_id"]),
        "keys": options.keys,
        "features": len(FIELDS),
        "late_source_rows": sum(
            created > event
            for event, created in zip(source["event_ts"], source["created_ts"], strict=True)
        ),
        "rows_with_a_value": sum(each is not None for each in expected),
        "sort_s": sort_s(options.rows),
        "engines": {
            label: {
                "seconds": round(statistics.median(r["seconds"] for r in of), 2),
                "all_seconds": [round(r["seconds"], 2) for r in of],
                **{
                    name: round(statistics.median(r[name] for r in of), 2)
                    for name in ("processor_s", "server_processor_s")
                    if name in of[0]
                },
                "peak_mib": max(r["peak_mib"] for r in of),
                **compared[label],
            }
            for label, of in runs.items()
        },
        "peer_versions": next(
            (of[0]["versions"] for label, of in runs.items() if label.startswith("feast")), {}
        ),
    }


def draw(folder: Path, rows: int, keys: int, seed: int) -> None:
    """Write the source, the entity rows, a few of these, and what is said of them."""
    draws = np.random.default_rng(seed)
    key = draws.integers(0, keys, rows)
    event_s = draws.integers(0, DAYS * DAY_S, rows)
    late_s = np.where(draws.random(rows) < 0.33, draws.integers(1, 2 * DAY_S, rows), 0)
    created_s = event_s + late_s
    twin = np.flatnonzero(draws.random(rows) < 0.1)
    twin = twin[twin > 0]
    key[twin], event_s[twin] = key[twin - 1], event_s[twin - 1]
    alike = twin[draws.random(len(twin)) < 0.5]
    created_s[alike] = created_s[alike - 1]
    created_s = np.maximum(created_s, event_s)
    columns: dict[str, Any] = {
        "user_id": user_ids(key),
        "event_ts": moments(event_s),
        "created_ts": moments(created_s),
    }
    for place in range(6):
        columns[f"f{place}"] = pa.array(
            np.round(draws.random(rows), 1 if place == 0 else 6), mask=draws.random(rows) < 0.05
        )
    columns["row_id"] = draws.permutation(rows)
    columns["segment"] = [f"segment {n}" for n in draws.integers(0, 50, rows).tolist()]
    pq.write_table(pa.table(columns), folder / "source.parquet")

    asked_key = draws.integers(0, keys + keys // 20, rows)
    asked_s = draws.integers(0, (DAYS + 3) * DAY_S, rows)
    for share, offset_s in ((0.01, 0), (0.01, TTL_S)):
        exact = np.flatnonzero(draws.random(rows) < share)
        of = draws.integers(0, rows, len(exact))
        asked_key[exact], asked_s[exact] = key[of], event_s[of] + offset_s
    again = np.flatnonzero(draws.random(rows) < 0.01)
    again = again[again > 0]
    asked_key[again], asked_s[again] = asked_key[again - 1], asked_s[again - 1]
    asked = pa.table(
        {
            "user_id": user_ids(asked_key),
            "event_ts": moments(asked_s),
            "number": np.arange(rows),
            "label": draws.integers(0, 2, rows),
        }
    )
    pq.write_table(asked, folder / "entities.parquet")
    few = asked.slice(0, 10).rename_columns(["user_id", "event_timestamp", "number", "label"])
    pq.write_table(few, folder / "few.parquet")
    (folder / "about.json").write_text(json.dumps({"ttl_s": TTL_S, "fields": FIELDS}))


def user_ids(numbers: Any) -> list[str]:  # noqa: ANN401
    return [f"user-{number:07d}" for number in numbers.tolist()]


def moments(seconds: Any) -> pa.Array:  # noqa: ANN401
    return pa.array(START_US + seconds * 1_000_000, pa.int64()).cast(UTC_US)


def brute_force(entities: pa.Table, source: dict[str, list[Any]]) -> list[int | None]:
    """Place of the source row whose values each entity row gets, by the rule alone."""
    names = sorted(FIELDS)
    by_key: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for place, user in enumerate(source["user_id"]):
        # None is less than any value.
        values = tuple((source[n][place] is not None, source[n][place] or 0) for n in names)
        times = (source["event_ts"][place], source["created_ts"][place])
        by_key[user].append((*times, values, place))
    for of in by_key.values():
        of.sort()
    found: list[int | None] = []
    asked = zip(entities["user_id"].to_pylist(), entities["event_ts"].to_pylist(), strict=True)
    for user, moment in asked:
        of = by_key.get(user, [])
        oldest = moment - dt.timedelta(seconds=TTL_S)
        end = bisect_right(of, moment, key=lambda row: row[0])
        known = (row for row in reversed(of[:end]) if row[1] <= moment)
        newest = next(known, None)
        found.append(None if newest is None or newest[0] <= oldest else newest[3])
    return found


def compare(
    result: pa.Table,
    entities: pa.Table,
    source: dict[str, list[Any]],
    expected: list[int | None],
) -> dict[str, Any]:
    """How a result differs from the rule, and whether anything of the future is in it."""
    place_of = {row_id: place for place, row_id in enumerate(source["row_id"])}
    moments_of = entities["event_ts"].to_pylist()
    columns = {name: result[name].to_pylist() for name in ("number", *FIELDS)}
    counts: Counter[str] = Counter()
    seen = set()
    for row, number in enumerate(columns["number"]):
        seen.add(number)
        moment, wanted = moments_of[number], expected[number]
        row_id = columns["row_id"][row]
        place = None if is_missing(row_id) else place_of[int(row_id)]
        if place is not None:
            counts["leaks_not_true_yet"] += source["event_ts"][place] > moment
            counts["leaks_not_written_yet"] += source["created_ts"][place] > moment
        if place == wanted:
            counts["equal"] += place is None or all(
                same(columns[name][row], source[name][place]) for name in FIELDS
            )
        else:
            counts[f"differs_{cause(source, place, wanted, moment)}"] += 1
    missing = [number for number in range(len(entities)) if number not in seen]
    return {
        "equals_brute_force": counts["equal"] == len(entities) == len(result),
        "rows": len(result),
        "rows_lost": len(missing),
        "rows_lost_that_have_a_value": sum(expected[number] is not None for number in missing),
        "in_order": columns["number"] == list(range(len(entities))),
        "leaks": counts["leaks_not_true_yet"] + counts["leaks_not_written_yet"],
        **{name: counts[name] for name in sorted(counts)},
    }


def cause(
    source: dict[str, list[Any]], place: int | None, wanted: int | None, moment: dt.datetime
) -> str:
    """Why a result is of another row than the rule's."""
    if place is None:
        return "as_a_value_is_missing"
    event, created = source["event_ts"][place], source["created_ts"][place]
    if created > moment:
        return "as_not_written_yet"
    if event == moment - dt.timedelta(seconds=TTL_S):
        return "as_exactly_ttl_old"
    if wanted is not None and event == source["event_ts"][wanted]:
        is_alike = created == source["created_ts"][wanted]
        return "in_a_tie_of_all_times" if is_alike else "as_another_was_written_last"
    return "otherwise"


def same(found: Any, wanted: Any) -> bool:  # noqa: ANN401
    return is_missing(found) if wanted is None else bool(found == wanted)


def is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # pandas' null


def run_ours(engine: str, folder: Path, output: Path) -> None:
    from feature_catalog.database import connect
    from feature_catalog.definitions import (
        CloudSource,
        Entity,
        FeatureService,
        FeatureView,
        Field,
        Float64,
        Int64,
        String,
    )
    from feature_catalog.definitions.catalog_set import DefinitionSet, key_of
    from feature_catalog.offline import OfflineFeatures

    types = {"double": Float64, "int64": Int64, "string": String}
    is_file = engine == "parquet"
    user = Entity(name="user", join_keys=["user_id"])
    stats = FeatureView(
        name="stats",
        entities=[user],
        ttl=dt.timedelta(seconds=TTL_S),
        source=CloudSource(
            path="source.parquet" if is_file else None,
            table=None if is_file else "source",
            created_ts="created_ts",
        ),
        schema=[Field(name=name, dtype=types[kind]) for name, kind in FIELDS.items()],
    )
    service = FeatureService(name="all", features=[stats])
    offline = OfflineFeatures(
        DefinitionSet({key_of(each): each for each in (user, stats, service)}),
        data_folder=folder,
        engine=None if is_file else connect(os.environ["JOINS_DATABASE_URL"]),
    )
    few = pq.read_table(folder / "few.parquet")
    offline.get_historical_features(entity_rows=few, service="all", event_ts="event_timestamp")
    started_s, processor_s = time.perf_counter(), time.process_time()
    entities = pq.read_table(folder / "entities.parquet")
    found = offline.get_historical_features(
        entity_rows=entities, service="all", untransformed=True
    ).table
    seconds = time.perf_counter() - started_s
    processor_s = time.process_time() - processor_s
    pq.write_table(found, output)
    told = {"seconds": seconds, "processor_s": processor_s, "peak_mib": peak_mib()}
    print(json.dumps(told))


def peak_mib() -> int:
    """Most memory that this process has held; getrusage would say that of its parent, if more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


def load_postgres(url: str, folder: Path) -> None:
    from sqlalchemy import Column, MetaData, Table, create_engine, types

    from feature_catalog.offline.postgres_copy import copy_in

    rows = pq.read_table(folder / "source.parquet")
    kinds = {"double": types.Double, "int64": types.BigInteger, "string": types.Text}
    columns = [
        Column(f.name, types.DateTime(timezone=True))
        if pa.types.is_timestamp(f.type)
        else Column(f.name, kinds[str(f.type)])
        for f in rows.schema
    ]
    table = Table("source", MetaData(), *columns)
    engine = create_engine(url)
    with engine.begin() as connection:
        table.create(connection)
        copy_in(connection, table, rows)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE source")
    engine.dispose()


class postgres:  # noqa: N801 - a context
    """An embedded Postgres while the block lasts."""

    def __init__(self, home: Path) -> None:
        from feature_catalog.embedded import EmbeddedPostgres

        home.chmod(0o755)
        self._home = home
        self._server = EmbeddedPostgres(home / "postgres")

    def __enter__(self) -> "postgres":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """Of a database for the figure."""
        return self._server.url("postgres")

    def reaped_s(self) -> float:
        """Processor seconds of its processes that have ended."""
        time.sleep(1.0)  # the process of a connection that was just closed ends
        pid = (self._home / "postgres" / "pgdata" / "postmaster.pid").read_text().split()[0]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def sort_s(rows: int) -> float:
    """Seconds to sort the keys and times of both sides with numpy, the least of three."""
    draws = np.random.default_rng(0)
    keys, at = draws.integers(0, rows // 10, 2 * rows), draws.integers(0, 10**9, 2 * rows)
    taken = []
    for _ in range(3):
        started_s = time.perf_counter()
        np.lexsort((at, keys))
        taken.append(time.perf_counter() - started_s)
    return round(min(taken), 2)


if __name__ == "__main__":
    main()
