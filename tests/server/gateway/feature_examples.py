"""A small catalog as devices read it: definitions, their sources and their assets' files."""

import datetime as dt
import hashlib
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.transform_assets import EmbeddingTable, Vocabulary
from feature_catalog.definitions import (
    Asset,
    CachePolicy,
    CloudSource,
    DeviceSource,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Int64,
    Retention,
    String,
    Transform,
)
from feature_catalog.definitions.catalog_set import DefinitionSet, check_set, key_of

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
USERS, ADS = 600, 40
COUNTRIES = Vocabulary.of(("FR", "IT", "DE"))
CATEGORIES = Vocabulary.of(("sport", "news", "games"))
TOKENS = Vocabulary.of(
    tuple(f"token-{number}-{random.Random(number).random()}" for number in range(90_000))
)
ROWS = EmbeddingTable.of(np.random.default_rng(3).standard_normal((4_000, 64)).astype(np.float32))

user = Entity("user", join_keys=["user_id"])
ad = Entity("ad", join_keys=["ad_id"], dtype=Int64)


def user_id(number: int) -> str:
    return f"u{number}"


def country(number: int) -> str | None:
    return [None, "FR", "IT", "XX"][number % 4]


def event_ts(number: int) -> dt.datetime:
    """Every fifth user's row is too old to be true."""
    return NOW - (dt.timedelta(days=9) if number % 5 == 0 else dt.timedelta(hours=3 + number % 7))


def asset(name: str, file: Vocabulary | EmbeddingTable, **more: object) -> Asset:
    content = file.to_bytes()
    kind = "vocabulary" if isinstance(file, Vocabulary) else "embedding"
    return Asset(
        name=name,
        type=kind,
        version=1,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        **more,
    )


def definitions() -> DefinitionSet:
    """All of it, checked."""
    user_stats = FeatureView(
        "user_stats",
        entities=[user],
        source=CloudSource(path="user_stats.parquet"),
        schema=[
            Field("country", String, default="FR"),
            Field("clicks", Int64, default=0),
            Field("score", Float32, default=0.5),
            Field("vector", Float32, shape=(3,), default=0.25),
        ],
        ttl=dt.timedelta(days=7),
        cache=CachePolicy(
            mode="prefetch", max_age=dt.timedelta(days=1), max_bytes=400_000, network="any"
        ),
        audience=["com.example.search"],
        owner="the-growth-team",
    )
    ad_stats = FeatureView(
        "ad_stats",
        entities=[ad, user],
        source=CloudSource(path="ad_stats.parquet"),
        schema=[Field("category", String)],
        cache=CachePolicy(mode="on_demand", max_bytes=100_000, on_miss="skip_example"),
    )
    ad_views = FeatureView(
        "ad_views",
        entities=[user, ad],
        source=DeviceSource(
            event="ad_view",
            schema=[Field("dwell_s", Float32), Field("placement", String), Field("extra", Int64)],
        ),
        schema=[Field("dwell_s", Float32), Field("placement", String)],
        retention=Retention(max_age=dt.timedelta(days=30), max_records=1_000),
    )
    vocab = {"asset": "countries", "unknown": 3, "missing": 4}
    services = [
        FeatureService(
            "ads_a",
            features=[
                Feature("user_stats:country", [Transform("vocab", "cloud", vocab)]),
                Feature("user_stats:clicks", [Transform("bucketize", "device_read", B)]),
                Feature("user_stats:score"),
                Feature("user_stats:vector"),
                Feature(
                    "ad_stats:category",
                    [Transform("vocab", "device_read", {"asset": "categories", "unknown": 3})],
                ),
                Feature(
                    "ad_views:dwell_s",
                    [Transform("clip", "device_ingest", {"min": 0, "max": 60})],
                ),
                Feature(
                    "ad_views:placement",
                    [
                        Transform("vocab", "device_ingest", {"asset": "tokens", "unknown": 0}),
                        Transform("embed_lookup", "device_read", {"asset": "rows"}),
                    ],
                ),
            ],
        ),
        FeatureService("ads_b", features=[Feature("user_stats:country"), "user_stats:score"]),
        FeatureService("secret", features=["user_stats:clicks"]),
    ]
    members = [
        *(user, ad, user_stats, ad_stats, ad_views),
        asset("countries", COUNTRIES),
        asset("categories", CATEGORIES),
        asset("tokens", TOKENS, fallback="categories"),
        asset("rows", ROWS, dimension=64),
        *services,
    ]
    found = DefinitionSet({key_of(each): each for each in members})
    check_set(found)
    return found


B = {"boundaries": [2, 5, 100]}


def write_sources(folder: Path) -> None:
    """The two tables."""
    numbers = range(USERS)
    pq.write_table(
        pa.table(
            {
                "user_id": [user_id(n) for n in numbers],
                "country": [country(n) for n in numbers],
                "clicks": pa.array(list(numbers), pa.int64()),
                "score": pa.array([n / 3 for n in numbers], pa.float32()),
                "vector": pa.array([[n, n + 1, n + 2] for n in numbers], pa.list_(pa.float32(), 3)),
                "event_ts": [event_ts(n) for n in numbers],
            }
        ),
        folder / "user_stats.parquet",
    )
    pairs = [(a, u) for a in range(ADS) for u in range(2)]
    pq.write_table(
        pa.table(
            {
                "ad_id": pa.array([a for a, _ in pairs], pa.int64()),
                "user_id": [user_id(u) for _, u in pairs],
                "category": [["sport", "news", "cars"][(a + u) % 3] for a, u in pairs],
                "event_ts": [NOW - dt.timedelta(hours=1) for _ in pairs],
            }
        ),
        folder / "ad_stats.parquet",
    )
