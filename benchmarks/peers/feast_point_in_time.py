"""Feast's side of ``benchmarks/point_in_time.py``; runs in feast's own environment.

    python feast_point_in_time.py FOLDER dask|duckdb known|default OUTPUT

Joins ``entities.parquet`` with ``source.parquet`` of FOLDER by ``get_historical_features``, writes
the result, and prints seconds, peak memory and versions as JSON. Seconds are from the entity rows'
file to the result in memory as an Arrow table, imports, the registry and a first small join being
done. ``known`` asks for ``filter_by_created_timestamp``, which is off by default.
"""

import json
import sys
import tempfile
import time
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64, Int64, String


def main() -> None:
    folder, engine, rule, output = Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])
    about = json.loads((folder / "about.json").read_text())
    with tempfile.TemporaryDirectory(prefix="feast-repo-") as repo:
        config = RepoConfig(
            project="joins",
            provider="local",
            registry=f"{repo}/registry.db",
            offline_store={"type": "file" if engine == "dask" else "duckdb"},
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        user = Entity(name="user", join_keys=["user_id"])
        types = {"double": Float64, "int64": Int64, "string": String}
        stats = FeatureView(
            name="stats",
            entities=[user],
            ttl=timedelta(seconds=about["ttl_s"]),
            source=FileSource(
                path=str(folder / "source.parquet"),
                timestamp_field="event_ts",
                created_timestamp_column="created_ts",
            ),
            schema=[Field(name=n, dtype=types[t]) for n, t in about["fields"].items()],
        )
        store.apply([user, stats, FeatureService(name="all", features=[stats])])
        service = store.get_feature_service("all")
        options = {"filter_by_created_timestamp": True} if rule == "known" else {}

        def join(rows: pd.DataFrame) -> pa.Table:
            return store.get_historical_features(rows, service, **options).to_arrow()

        join(pq.read_table(folder / "few.parquet").to_pandas())
        started_s, processor_s = time.perf_counter(), time.process_time()
        entities = pq.read_table(folder / "entities.parquet").to_pandas()
        found = join(entities.rename(columns={"event_ts": "event_timestamp"}))
        seconds = time.perf_counter() - started_s
        processor_s = time.process_time() - processor_s
    pq.write_table(found, output)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    versions = {name: version(name) for name in ("feast", "pandas", "dask", "duckdb")}
    told = {"seconds": seconds, "processor_s": processor_s, "peak_mib": peak_kib // 1024}
    print(json.dumps({**told, "versions": versions}))


if __name__ == "__main__":
    main()
