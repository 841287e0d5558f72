"""A feature service of two views, and a cloud that answers for one, for tests of joins."""

from device_runtime.columns import Kind
from device_runtime.feature_inputs import InputForm
from device_runtime.feature_manifest import (
    EventField,
    FeatureManifest,
    JoinKey,
    ManifestFeature,
    ManifestView,
    Place,
)
from device_runtime.feature_policies import CachePolicy, OnMiss, Retention
from device_runtime.feature_reader import FetchedRow, FetchFailed
from device_runtime.feature_values import encode_key
from device_runtime.transform_chain import TransformChain

BAG = InputForm("bag", places=6, ids=512)
AS_IS = TransformChain()
HOURS = TransformChain.from_json('[{"op": "bucketize", "boundaries": [6, 12, 18]}]')
HASHED = TransformChain.from_json('[{"op": "hash", "buckets": 16}]')


def feature(name, view, kind, gives, *, ingest=AS_IS, read=AS_IS, column=None):
    return ManifestFeature(
        name, view, name, column or name, kind, (), None, ingest, read, gives, ()
    )


def manifest(*, on_miss=OnMiss.FETCH, retention=None, hour_column="hour.1"):
    return FeatureManifest(
        "ads",
        b"c" * 32,
        (
            feature("hour", "shown", Kind.FLOAT, Kind.INT, ingest=HOURS, column=hour_column),
            feature("place", "shown", Kind.STRING, Kind.INT, read=HASHED),
            feature("topic", "ad", Kind.STRING, Kind.STRING),
        ),
        {
            "ad": ManifestView(
                "ad",
                1,
                Place.CLOUD,
                (JoinKey("ad_id", "int64"),),
                cache=CachePolicy(on_miss=on_miss),
            ),
            "shown": ManifestView(
                "shown",
                1,
                Place.DEVICE,
                (JoinKey("user_id", "string"), JoinKey("ad_id", "int64")),
                event="shown",
                event_fields=(EventField("hour", Kind.FLOAT), EventField("place", Kind.STRING)),
                retention=retention or Retention(max_records=100),
            ),
        },
        {},
    )


class Cloud:
    """Topics of ads 0 to 9; can be out of reach."""

    def __init__(self):
        self.is_reachable = True
        self.calls = 0

    def __call__(self, view, version, keys):
        if not self.is_reachable:
            raise FetchFailed
        self.calls += 1
        topics = {encode_key([ad]): FetchedRow({"topic": f"t{ad % 3}"}) for ad in range(10)}
        return {key: topics[key] for key in keys if key in topics}
