"""Online features as a model gets them: values, statuses, transforms, in one round trip."""

import datetime as dt
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, create_engine, event, text

from device_runtime.feature_values import MAX_KEY_BYTES, encode_key
from feature_catalog.blobs import BlobStore
from feature_catalog.database import DatabaseUnreachable
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.offline.errors import MissingAsset
from feature_catalog.online import (
    MAX_KEYS,
    OnlineStore,
    OnlineView,
    TooManyKeys,
    ValueStatus,
)
from feature_catalog.online.errors import InvalidEntityRow, NotServedOnline
from feature_catalog.online.moments import microseconds
from feature_catalog.online.row_codec import encode_rows
from feature_catalog.online.serving import OnlineFeatures
from feature_catalog.online.value_writer import EncodedRows, write_rows
from tests.feature_catalog.definitions.examples import parsed, with_change

pytestmark = pytest.mark.integration

NOW = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
DAY_US = 86_400_000_000
CATEGORIES = b"books\nfilms\nfood\ngames\ngarden\nmusic\nsports\ntravel\n"
AD_STATS = OnlineView.of(parsed(), "ad_stats")
USER_STATS = OnlineView.of(parsed(), "user_stats")
PRESENT, NULL = ValueStatus.PRESENT, ValueStatus.NULL
NOT_FOUND, TOO_OLD = ValueStatus.NOT_FOUND, ValueStatus.OUTSIDE_MAX_AGE


def put(engine: Engine, view: OnlineView, *rows: tuple[str, float, dict]) -> None:
    """Write rows: key, age in days at `NOW`, values."""
    encoded = EncodedRows(
        keys=[encode_key([key]) for key, _, _ in rows],
        event_us=[microseconds(NOW) - round(age * DAY_US) for _, age, _ in rows],
        created_us=[0] * len(rows),
        payloads=encode_rows([[values.get(f.name) for f in view.fields] for *_, values in rows]),
    )
    with engine.begin() as connection:
        write_rows(connection, view.value_set, encoded)


@pytest.fixture
def registry(engine: Engine) -> FeatureRegistry:
    found = FeatureRegistry(engine)
    found.apply(parsed(), actor="ann@desk")
    return found


@pytest.fixture
def online(registry, engine: Engine, blobs: BlobStore):
    blobs.put(CATEGORIES)
    put(
        engine,
        AD_STATS,
        ("fresh", 0.5, {"category": "films", "ctr_30d": 0.25}),
        ("bare", 1.9, {"ctr_30d": -0.0}),
        ("old", 2.0, {"category": "food", "ctr_30d": 0.5}),
        ("future", -0.1, {"category": "food"}),
    )
    put(engine, USER_STATS, ("ann", 1, {"country": "de", "clicks_7d": 5}))
    found = OnlineFeatures(engine, blobs)
    yield found
    found.close()


def test_values_and_statuses_of_one_and_of_several_views(online: OnlineFeatures):
    found = online.get_online_features(
        ["ad_stats:category", "ad_stats:ctr_30d", "user_stats:country"],
        [
            {"ad_id": ad, "user_id": user}
            for ad in ("fresh", "bare", "old", "future", "unknown")
            for user in ("ann", "bob")
        ],
        at=NOW,
    )
    assert found.values["category"][::2] == ["films", None, None, None, None]
    assert found.statuses["category"][::2] == [PRESENT, NULL, TOO_OLD, NOT_FOUND, NOT_FOUND]
    assert found.values["ctr_30d"][::2] == [0.25, 0.0, None, None, None]
    assert math.copysign(1, found.values["ctr_30d"][2]) == -1
    assert found.values["country"] == ["de", None] * 5
    assert found.statuses["country"] == [PRESENT, NOT_FOUND] * 5
    assert found.event_us["ctr_30d"][4] == microseconds(NOW) - 2 * DAY_US
    told = found.to_dict(include_statuses=True)
    assert list(told) == [
        *("ad_id", "user_id", "category", "country", "ctr_30d"),
        *("category__status", "country__status", "ctr_30d__status"),
    ]
    assert told["category__status"][4] == "OUTSIDE_MAX_AGE"
    assert found.to_arrow().num_rows == 10


def test_values_are_transformed_up_to_the_stage_asked_for(online: OnlineFeatures):
    rows = [{"ad_id": "fresh", "user_id": "ann", "dwell_s": 70.0, "ad_views__placement": "top"}]

    def values(through):
        found = online.get_online_features("ads_ctr_v1", rows, through=through, at=NOW)
        return {name: values[0] for name, values in found.values.items()}

    assert values(None) == {
        **{"category": "films", "clicks_7d": 5, "country": "de", "ctr_30d": 0.25},
        **{"dwell_s": 70.0, "placement": "top", "seen_before": None},
    }
    # What a device is sent: its own events are not in it.
    assert values("cloud") == {
        "category": "films",
        "clicks_7d": 2,
        "country": "de",
        "ctr_30d": 0.25,
    }
    stored = values("device_ingest")
    assert (stored["category"], stored["dwell_s"], stored["country"]) == (1, 60.0, "de")
    model = values("device_read")
    assert model["dwell_s"] == (60.0 - 8.0) / 12.0
    assert isinstance(model["country"], int)
    assert isinstance(model["placement"], int)


def test_what_is_missing_goes_through_transforms_as_in_training(
    registry, online: OnlineFeatures, engine: Engine
):
    changed = with_change("boundaries: [1, 3, 10, 30]", "boundaries: [1, 3, 10, 30], missing: 99")
    registry.apply(parsed(changed), actor="ann@desk")
    found = online.get_online_features(
        "ads_ctr_v1", [{"ad_id": "old", "user_id": "bob"}], through="cloud", at=NOW
    )
    assert (found.values["clicks_7d"], found.statuses["clicks_7d"]) == ([99], [NOT_FOUND])


def test_one_read_is_one_statement_and_knows_of_new_definitions(
    registry, online: OnlineFeatures, engine: Engine
):
    rows = [{"ad_id": f"ad-{i}", "user_id": "ann"} for i in range(100)]
    online.get_online_features("ads_ctr_v1", rows, at=NOW)
    statements = []

    def note(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        online.get_online_features("ads_ctr_v1", rows, at=NOW)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(statements) == 1
    before = online.get_online_features(["ad_stats:ctr_30d"], {"ad_id": ["old"]}, at=NOW)
    assert before.statuses["ctr_30d"] == [TOO_OLD]
    registry.apply(parsed(with_change("ttl: 2d", "ttl: 3d")), actor="ann@desk")
    after = online.get_online_features(["ad_stats:ctr_30d"], {"ad_id": ["old"]}, at=NOW)
    assert after.values["ctr_30d"] == [0.5]


def test_ages_are_judged_as_of_now_where_nothing_is_said(online: OnlineFeatures, engine: Engine):
    age_days = (NOW - dt.datetime.now(dt.UTC)).total_seconds() / 86_400
    put(engine, AD_STATS, ("now", age_days + 0.001, {"ctr_30d": 1.0}))
    found = online.get_online_features(["ad_stats:ctr_30d"], {"ad_id": ["now", "fresh"]})
    assert found.statuses["ctr_30d"] == [PRESENT, TOO_OLD]


def test_what_cannot_be_served_is_refused_in_a_sentence(
    registry, engine: Engine, blobs: BlobStore, online: OnlineFeatures
):
    row = [{"ad_id": "fresh", "user_id": "ann"}]
    with pytest.raises(NotServedOnline, match=r"'ads_ctr' \(did you mean ads_ctr_v1\?\)"):
        online.get_online_features("ads_ctr", row)
    with pytest.raises(NotServedOnline, match=r"ad_stat:ctr_30d is of no feature view there is"):
        online.get_online_features(["ad_stat:ctr_30d"], row)
    with pytest.raises(NotServedOnline, match=r"has no field 'ctr' \(did you mean ctr_30d\?\)"):
        online.get_online_features(["ad_stats:ctr"], row)
    with pytest.raises(InvalidEntityRow, match="no user_id"):
        online.get_online_features("ads_ctr_v1", [{"ad_id": "fresh"}])
    with pytest.raises(TooManyKeys, match="10001 keys are asked for"):
        online.get_online_features(
            ["ad_stats:ctr_30d"], {"ad_id": [str(i) for i in range(MAX_KEYS + 1)]}
        )


def test_a_transform_without_its_asset_is_refused_unless_it_is_not_reached(
    registry, engine: Engine, tmp_path
):
    online = OnlineFeatures(engine, BlobStore(str(tmp_path / "empty")))
    row = [{"ad_id": "fresh", "user_id": "ann"}]
    with pytest.raises(MissingAsset, match="asset ad_categories"):
        online.get_online_features("ads_ctr_v1", row)
    assert online.get_online_features("ads_ctr_v1", row, through="cloud").names
    online.close()


def test_a_read_by_keys_answers_hostile_ones_and_bounds_them(registry, engine: Engine):
    put(engine, AD_STATS, ("a", 0, {"ctr_30d": 0.5}))
    store = OnlineStore(engine)
    hostile = [
        b"",
        b"\\x00'}{,\"",
        encode_key(["a' OR '1'='1"]),
        bytes(range(256)),
        encode_key(["a"]),
    ]
    rows = store.read(AD_STATS, hostile, at=NOW)
    assert rows.statuses == [NOT_FOUND] * 4 + [PRESENT]
    assert rows.column("ctr_30d").to_list() == [None] * 4 + [0.5]
    assert rows.age_s(microseconds(NOW))[-1] == 0.0
    assert store.read(AD_STATS, []).statuses == []
    with pytest.raises(TooManyKeys, match="longer than 1024 bytes"):
        store.read(AD_STATS, [b"x" * (MAX_KEY_BYTES + 1)])
    store.close()


def test_a_read_outlives_a_database_that_was_restarted(registry, engine: Engine):
    put(engine, AD_STATS, ("a", 0, {"ctr_30d": 0.5}))
    store = OnlineStore(engine)
    keys = [encode_key(["a"])]
    assert store.read(AD_STATS, keys, at=NOW).values("ctr_30d") == [0.5]
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert store.read(AD_STATS, keys, at=NOW).values("ctr_30d") == [0.5]
    store.close()


def test_a_database_that_is_not_there_is_said_in_a_sentence(tmp_path):
    store = OnlineStore(create_engine(f"postgresql+psycopg2://flint@/flint?host={tmp_path}"))
    with pytest.raises(DatabaseUnreachable, match=r"does not answer .*start it with `flint up`"):
        store.read(AD_STATS, [b"a"])


def test_reads_from_many_threads_get_their_own_rows(online: OnlineFeatures, engine: Engine):
    put(engine, AD_STATS, *((f"t{i}", 0, {"ctr_30d": float(i)}) for i in range(64)))

    def read(i: int) -> float:
        asked = {"ad_id": [f"t{i}"]}
        return online.get_online_features(["ad_stats:ctr_30d"], asked, at=NOW).values["ctr_30d"][0]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, list(range(64)) * 3)) == [float(i) for i in range(64)] * 3
