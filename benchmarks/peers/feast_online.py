"""Feast's side of `benchmarks/online_reads.py`, in Feast's own environment.

Reads a JSON command a line and answers with a line: it runs the timed loops itself, so that nothing
of what passes between the processes is in the figures.
"""

import contextlib
import datetime as dt
import json
import sys
import time
from pathlib import Path
from random import Random

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32, Int64, String
from feast.value_type import ValueType

TYPES = {"float32": Float32, "int64": Int64, "string": String}


def open_store(folder: Path, online_store: dict) -> FeatureStore:
    folder.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={"type": "duckdb"},
            online_store=online_store,
            entity_key_serialization_version=3,
        )
    )


def apply(store: FeatureStore, views: dict[str, dict]) -> None:
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    defined = [
        FeatureView(
            name=name,
            entities=[user],
            schema=[Field(name=f, dtype=TYPES[kind]) for f, kind in view["fields"].items()],
            source=FileSource(path=view["path"], timestamp_field="event_ts"),
            ttl=dt.timedelta(0),  # Feast's word for: values never age
        )
        for name, view in views.items()
    ]
    store.apply([user, *defined, FeatureService(name="served", features=defined)])


def main() -> None:
    answers = sys.stdout
    stores: dict[str, FeatureStore] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict = {}
        with contextlib.redirect_stdout(sys.stderr):
            name = asked["store"]
            match asked["do"]:
                case "apply":
                    stores[name] = open_store(Path(asked["folder"]), asked["online_store"])
                    apply(stores[name], asked["views"])
                case "materialize":
                    start, end = (dt.datetime.fromisoformat(asked[k]) for k in ("start", "end"))
                    started_s = time.perf_counter()
                    stores[name].materialize(start, end)
                    answer["seconds"] = time.perf_counter() - started_s
                case "read":
                    answer = read(stores[name], asked)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def read(store: FeatureStore, asked: dict) -> dict:
    service = store.get_feature_service("served")
    draw = Random(asked["seed"])
    durations_s, found = [], {}
    cpu_s = time.process_time()
    for _ in range(asked["reads"]):
        users = draw.sample(range(asked["users"]), asked["keys"])
        rows = [{"user_id": f"user-{user:07d}"} for user in users]
        started_s = time.perf_counter()
        found = store.get_online_features(features=service, entity_rows=rows).to_dict()
        durations_s.append(time.perf_counter() - started_s)
    return {"durations_s": durations_s, "cpu_s": time.process_time() - cpu_s, "last": found}


if __name__ == "__main__":
    main()
