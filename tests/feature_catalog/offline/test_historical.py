"""Training data of a whole service: views of the cloud and of devices, transforms, assets."""

import datetime as dt
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.transform_assets import EmbeddingTable, InvalidAsset, Vocabulary
from feature_catalog.definitions import (
    Asset,
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
from feature_catalog.definitions.contracts import freeze
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.offline import OfflineFeatures, asset_folder, blob_assets
from feature_catalog.offline.errors import (
    AmbiguousColumns,
    InvalidEntityRows,
    MismatchedKeys,
    MissingAsset,
    MissingEntityColumn,
    NaiveTimestamps,
    UnfitValues,
)
from tests.feature_catalog.offline.examples import START_US, UTC_US, rows, times

CITIES = Vocabulary.of(("Oslo", "Paris"))
TABLE = EmbeddingTable.of(np.array([[0.5, 1.0], [2.0, -4.0]], np.float32))

user = Entity(name="user", join_keys=["user_id"])
cities = Asset(
    name="cities",
    type="vocabulary",
    version=1,
    sha256=CITIES.sha256.hex(),
    size_bytes=len(CITIES.to_bytes()),
)
vectors = Asset(
    name="vectors",
    type="embedding",
    version=1,
    sha256=TABLE.sha256.hex(),
    size_bytes=len(TABLE.to_bytes()),
    dimension=2,
)
stats = FeatureView(
    name="stats",
    entities=[user],
    source=CloudSource(path="stats.parquet", created_ts="created_ts"),
    schema=[Field(name="city", dtype=String), Field(name="clicks", dtype=Int64)],
    ttl=dt.timedelta(hours=10),
)
KEPT = Retention(max_age=dt.timedelta(days=30), max_records=10)
views = FeatureView(
    name="views",
    entities=[user],
    retention=KEPT,
    source=DeviceSource(event="view", schema=[Field(name="dwell_s", dtype=Float32)]),
)
likes = FeatureView(
    name="likes",
    entities=[user],
    retention=KEPT,
    source=DeviceSource(event="like", schema=[Field(name="dwell_s", dtype=Float32)]),
)
place = Feature(
    "stats:city",
    [
        Transform("vocab", "device_ingest", {"asset": "cities", "unknown": -1}),
        Transform("embed_lookup", "device_read", {"asset": "vectors"}),
    ],
    name="place",
)
clicks = Feature(
    "stats:clicks",
    [
        Transform("clip", "cloud", {"max": 100}),
        Transform("normalize", "device_ingest", {"mean": 1.0, "stdev": 2.0}),
        Transform("bucketize", "device_read", {"boundaries": [0.0, 10.0], "missing": 9}),
    ],
)
dwell = Feature("views:dwell_s", [Transform("clip", "device_ingest", {"min": 0, "missing": -1})])

SOURCE = rows(
    ["a", "b"],
    1,
    1,
    created_ts=times(1, 2),
    city=["Paris", "Rome"],
    clicks=pa.array([7, None], pa.int64()),
)
ASKED = rows(["b", "a", "a"], 3, 3, 20, label=[1, 0, 1], dwell_s=[1.5, -2.0, None])


def defined(*features: Feature, also: tuple[object, ...] = ()) -> DefinitionSet:
    service = FeatureService(name="all", features=features)
    each = (user, cities, vectors, stats, views, likes, *also, service)
    definitions = DefinitionSet({key_of(one): one for one in each})
    check_set(definitions)
    return definitions


@pytest.fixture
def data(tmp_path):
    pq.write_table(SOURCE, tmp_path / "stats.parquet")
    (tmp_path / "any-name").write_bytes(CITIES.to_bytes())
    (tmp_path / "vectors.npy").write_bytes(TABLE.to_bytes())
    return tmp_path


@pytest.fixture
def join(data):
    def run(*features: Feature, asked: object = ASKED, **options: object):
        offline = OfflineFeatures(defined(*features), data_folder=data, assets=asset_folder(data))
        return offline.get_historical_features(entity_rows=asked, service="all", **options)

    return run


def test_every_transform_runs_in_its_order_wherever_its_place_is(join):
    found = join(place, clicks, dwell)
    assert found.table.column_names == [
        "user_id",
        "event_ts",
        "label",
        "clicks",
        "dwell_s",
        "place",
    ]
    assert found.table["clicks"].to_pylist() == [9, 1, 9]  # (7 - 1) / 2 is between 0 and 10
    assert found.table["dwell_s"].to_pylist() == [1.5, 0.0, -1.0]
    assert found.table["place"].to_pylist() == [[0.0, 0.0], [2.0, -4.0], [0.0, 0.0]]
    assert found.table.schema.field("place").type == pa.list_(pa.float64(), 2)


def test_untransformed_values_are_as_their_fields_say(join):
    found = join(place, clicks, dwell, untransformed=True)
    assert found.table["place"].to_pylist() == ["Rome", "Paris", None]
    assert found.table["clicks"].to_pylist() == [None, 7, None]
    assert found.table["dwell_s"].to_pylist() == [1.5, -2.0, None]
    assert found.table.schema.field("dwell_s").type == pa.float32()


def test_counts_say_how_each_feature_was_found(join):
    (of_clicks, of_dwell) = join(clicks, dwell).features
    assert (of_clicks.name, of_clicks.ref) == ("clicks", "stats:clicks")
    assert (of_clicks.present, of_clicks.null) == (1, 1)
    assert (of_clicks.not_found, of_clicks.too_old) == (0, 1)
    assert (of_dwell.present, of_dwell.null) == (2, 1)


def test_the_result_says_under_which_contract_it_was_made(join):
    definitions = defined(clicks)
    expected = freeze(definitions, definitions.service("all")).sha256
    assert join(clicks).contract_sha256 == expected


def test_values_of_devices_are_taken_by_view_and_field_where_several_have_one_name(join):
    both = (Feature("views:dwell_s", name="viewed_s"), Feature("likes:dwell_s", name="liked_s"))
    with pytest.raises(AmbiguousColumns, match=r"views or likes|likes or views"):
        join(*both)
    asked = ASKED.drop_columns(["dwell_s"])
    asked = asked.append_column("views__dwell_s", pa.array([1.0, 2.0, 3.0]))
    with pytest.raises(MissingEntityColumn, match="no column likes__dwell_s"):
        join(*both, asked=asked)
    asked = asked.append_column("likes__dwell_s", pa.array([4.0, 5.0, 6.0]))
    found = join(*both, asked=asked).table
    assert found["viewed_s"].to_pylist() == [1.0, 2.0, 3.0]
    assert found["liked_s"].to_pylist() == [4.0, 5.0, 6.0]
    assert "views__dwell_s" in found.column_names


def test_a_device_value_gives_place_to_its_feature_and_stays_beside_one_of_another_name(join):
    assert join(dwell).table.column_names == ["user_id", "event_ts", "label", "dwell_s"]
    renamed = Feature("views:dwell_s", name="seconds")
    assert join(renamed).table.column_names == [*ASKED.column_names, "seconds"]


def test_a_column_of_the_name_of_a_cloud_feature_is_refused(join):
    with pytest.raises(AmbiguousColumns, match="have a column label"):
        join(Feature("stats:clicks", name="label"))


def test_data_frames_and_other_columns_of_moments_are_taken(join):
    frame = ASKED.rename_columns(["user_id", "clicked_at", "label", "dwell_s"]).to_pandas()
    found = join(clicks, asked=frame, event_ts="clicked_at").table
    assert found["clicks"].to_pylist() == [9, 1, 9]
    assert found["label"].to_pylist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ([1, 2], InvalidEntityRows, "type list are no table"),
        (ASKED.drop_columns(["user_id"]), MissingEntityColumn, "no column user_id"),
        (ASKED.drop_columns(["event_ts"]), MissingEntityColumn, "to be the moment"),
        (ASKED.drop_columns(["dwell_s"]), MissingEntityColumn, "what the device recorded"),
        (ASKED.append_column("label", ASKED["label"]), AmbiguousColumns, "two columns named label"),
        (rows([7], 1, dwell_s=[1.0]), MismatchedKeys, "holds int64, and the join key user_id"),
        (rows(["a"], None, dwell_s=[1.0]), InvalidEntityRows, "1 of the entity rows have no event"),
        (rows(["a"], 1, dwell_s=["long"]), UnfitValues, "entity rows' column dwell_s holds string"),
        (rows(["a"], 1e8, dwell_s=[1.0]), InvalidEntityRows, "outside of the years 1 to 9999"),
    ],
)
def test_what_is_wrong_with_entity_rows_is_said_in_a_sentence(join, asked, error, sentence):
    with pytest.raises(error, match=sentence):
        join(clicks, dwell, asked=asked)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (pa.timestamp("us"), "without a time zone"),
        (pa.date32(), "dates: a day is no moment"),
        (pa.string(), "string, which is no time"),
    ],
)
def test_moments_without_a_zone_are_refused_unless_said_to_be_utc(join, kind, sentence):
    utc = pa.array([START_US + 3 * 3_600_000_000] * 3, pa.int64()).cast(UTC_US)
    asked = ASKED.set_column(1, "event_ts", utc.cast(kind))
    with pytest.raises(NaiveTimestamps, match=sentence):
        join(clicks, asked=asked)
    if pa.types.is_timestamp(kind):
        assert join(clicks, asked=asked, naive_is_utc=True).table["clicks"].to_pylist() == [9, 1, 1]


def test_missing_values_of_devices_stay_missing_whether_null_or_nan(join):
    asked = ASKED.set_column(3, "dwell_s", pa.array([math.nan, None, 2.0]))
    plain = Feature("views:dwell_s")
    assert join(plain, asked=asked).table["dwell_s"].to_pylist() == [None, None, 2.0]
    assert math.isnan(join(plain, asked=asked, untransformed=True).table["dwell_s"][0].as_py())


def test_assets_come_from_the_blob_store_or_a_folder_and_are_checked(data, blobs, tmp_path_factory):
    def run(assets):
        offline = OfflineFeatures(defined(place), data_folder=data, assets=assets)
        return offline.get_historical_features(entity_rows=ASKED, service="all").table["place"]

    with pytest.raises(MissingAsset, match="nothing says where assets are"):
        run(None)
    with pytest.raises(MissingAsset, match=r"the asset cities .* not in the blob store"):
        run(blob_assets(blobs))
    for asset in (CITIES, TABLE):
        blobs.put(asset.to_bytes())
    assert run(blob_assets(blobs)) == run(asset_folder(data))
    with pytest.raises(MissingAsset, match=r"no file in .* is the asset cities"):
        run(asset_folder(tmp_path_factory.mktemp("empty")))
    with pytest.raises(InvalidAsset, match="asset cities: its bytes are not those"):
        run(lambda _: b"Oslo\n")


def test_an_unknown_service_is_refused_with_those_there_are(data):
    offline = OfflineFeatures(defined(clicks), data_folder=data)
    with pytest.raises(UnknownDefinition, match=r"no feature service al .*did you mean all"):
        offline.get_historical_features(entity_rows=ASKED, service="al")


def test_progress_tells_every_view(join):
    told = []
    join(clicks, dwell, progress=lambda *step: told.append(step))
    assert told == [("joining stats", 0, 2), ("joining views", 1, 2), ("done", 2, 2)]
