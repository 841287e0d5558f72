"""Features of an ads model: two tables of the cloud, and events that stay on the device.

    python examples/features/generate.py feature-data     # the tables
    flint catalog apply examples/features/features.py

features.yaml beside this file says the same in YAML.
"""

from datetime import timedelta

from feature_catalog.definitions import (
    Asset,
    Bool,
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

user = Entity(name="user", join_keys=["user_id"], owner="growth")
ad = Entity(name="ad", join_keys=["ad_id"], owner="ads")

# In the cloud, known ahead: fetched over Wi-Fi before it is needed, used for a day.
user_stats = FeatureView(
    name="user_stats",
    entities=[user],
    source=CloudSource(path="user_stats.parquet", created_ts="created_ts"),
    schema=[
        Field(name="country", dtype=String, default="unknown"),
        Field(name="clicks_7d", dtype=Int64),
        Field(name="account_age_days", dtype=Int64),
    ],
    ttl=timedelta(days=7),
    cache=CachePolicy(mode="prefetch", max_age=timedelta(days=1), max_bytes=64_000),
    owner="growth",
)

# In the cloud, not known ahead: fetched when an ad is first shown.
ad_stats = FeatureView(
    name="ad_stats",
    entities=[ad],
    source=CloudSource(path="ad_stats.parquet"),
    schema=[Field(name="category", dtype=String), Field(name="ctr_30d", dtype=Float32)],
    ttl=timedelta(days=2),
    cache=CachePolicy(mode="on_demand", max_bytes=200_000, network="any", on_miss="skip_example"),
    owner="ads",
)

# On the device, and never anywhere else.
ad_views = FeatureView(
    name="ad_views",
    entities=[user, ad],
    source=DeviceSource(
        event="ad_view",
        schema=[
            Field(name="dwell_s", dtype=Float32),
            Field(name="seen_before", dtype=Bool),
            Field(name="placement", dtype=String),
        ],
    ),
    ttl=timedelta(days=14),
    retention=Retention(max_age=timedelta(days=30), max_records=5_000, max_bytes=2_000_000),
    audience=["com.example.feed", "com.example.search"],
    owner="ads",
)

ad_categories = Asset(
    name="ad_categories",
    type="vocabulary",
    version=1,
    sha256="7ea8bea0203576a055be315a54420ae3b6b1dd6efecbbffaddfe83e62e65617d",
    size_bytes=50,
    entries=8,
    owner="ads",
)

ads_ctr_v1 = FeatureService(
    name="ads_ctr_v1",
    features=[
        ad_stats["ctr_30d"],
        Feature(
            "ad_stats:category",
            transforms=[
                Transform("vocab", "device_ingest", {"asset": "ad_categories", "unknown": 8})
            ],
        ),
        Feature("user_stats:country", [Transform("hash", "device_read", {"buckets": 64})]),
        Feature(
            "user_stats:clicks_7d",
            [Transform("bucketize", "cloud", {"boundaries": [1, 3, 10, 30]})],
        ),
        Feature(
            "ad_views:dwell_s",
            [
                Transform("clip", "device_ingest", {"min": 0, "max": 60}),
                Transform("normalize", "device_read", {"mean": 8.0, "stdev": 12.0}),
            ],
        ),
        Feature("ad_views:placement", [Transform("hash", "device_read", {"buckets": 16})]),
        "ad_views:seen_before",
    ],
    description="What the click model of the feed is trained and served with.",
    owner="ads",
)
