"""Small sources and entity rows."""

import pyarrow as pa

from feature_catalog.definitions import CloudSource, FeatureView, Field, Int64

START_US = 1_774_742_400_000_000  # 2026-03-29 00:00 UTC: Europe's clocks go forward that night
HOUR_US = 3_600_000_000
UTC_US = pa.timestamp("us", "UTC")


def times(*hours: float | None) -> pa.Array:
    """Moments, hours after the start."""
    return pa.array(
        [None if h is None else START_US + round(h * HOUR_US) for h in hours], pa.int64()
    ).cast(UTC_US)


def rows(keys: list[object], *hours: float, **columns: object) -> pa.Table:
    return pa.table({"user_id": keys, "event_ts": times(*hours), **columns})


def stats(fields: list[Field], **changes: object) -> FeatureView:
    options = {"created_ts": "created_ts", "ttl": None, "entities": ["user"], **changes}
    created = options.pop("created_ts")
    return FeatureView(
        name="stats",
        source=CloudSource(path="x.parquet", created_ts=created),
        schema=fields,
        **options,
    )


VALUE = [Field(name="value", dtype=Int64)]
