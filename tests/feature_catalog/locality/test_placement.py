"""Where columns are placed: on data whose columns were made on devices, or looked up by keys."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.clients_and_labels import InvalidClient
from feature_catalog.locality.coded_columns import (
    MISSING,
    CodedColumn,
    NoTimes,
    client_column,
    joint_code,
    read_coded_columns,
    read_times_s,
)
from feature_catalog.locality.facts import determined_share, explained_variance, facts_of
from feature_catalog.locality.network import InvalidNetworkFigures, NetworkFigures
from feature_catalog.locality.placement import Locality, Place, place_columns
from feature_catalog.locality.services import (
    MissingJoinKeys,
    place_service,
    require_join_keys,
)
from feature_catalog.on_device import DeviceProfile, resolve_for_device
from feature_catalog.table_files import open_table
from tests.feature_catalog.definitions.examples import TEXT, parsed

ROWS, CLIENTS, ADS = 8000, 80, 400
COLUMNS = ("ad_id", "brand", "rate", "country", "hour", "dwell_s", "rare")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Users see few ads again and again; an ad has a brand and a rate, which drifts."""
    rng = np.random.default_rng(9)
    client = rng.integers(0, CLIENTS, ROWS)
    ad = (client * 7 + (30 * rng.random(ROWS) ** 2).astype(int)) % ADS
    brand, rate = rng.integers(0, 25, ADS), rng.normal(size=ADS)
    path = tmp_path_factory.mktemp("locality") / "clicks.parquet"
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{n}" for n in client],
                "ts": pa.array(np.arange(ROWS) * 100 * 10**6, pa.timestamp("us")),
                "ad_id": [f"ad-{n}" for n in ad],
                "brand": brand[ad],
                "rate": rate[ad] + rng.normal(0, 0.1, ROWS),
                "country": [("de", "fr", "jp")[n % 3] for n in client],
                "hour": rng.integers(0, 24, ROWS),
                "dwell_s": rng.random(ROWS),
                # Nearly always 0, so that nearly any column seems to determine it.
                "rare": (rng.random(ROWS) < 0.01).astype(int),
            }
        ),
        path,
    )
    return open_table(path)


def placed(table, **options) -> Locality:
    columns = read_coded_columns(table, ["user_id", *COLUMNS])
    given = {
        "keys": (),
        "times_s": read_times_s(table, "ts"),
        "network": NetworkFigures(50.0, 8.0, "test"),
        "whole_bytes": 1_000,
    }
    return place_columns(
        [columns[name] for name in COLUMNS], columns["user_id"], **(given | options)
    )


def places(found: Locality) -> dict[str, Place]:
    return {each.column: each.place for each in found.placements}


def test_columns_are_placed_where_they_came_from(table):
    assert places(placed(table)) == {
        "ad_id": Place.DEVICE_KEY,
        "brand": Place.CLOUD_ON_DEMAND,
        "rate": Place.CLOUD_ON_DEMAND,
        "country": Place.DEVICE,
        "hour": Place.DEVICE,
        "dwell_s": Place.DEVICE,
        "rare": Place.DEVICE,
    }


def test_what_takes_little_is_fetched_ahead_and_what_is_not_read_twice_is_not_kept(table):
    assert places(placed(table, whole_bytes=10**6))["brand"] is Place.CLOUD_PREFETCH
    columns = read_coded_columns(table, ["user_id", *COLUMNS])
    pairs = columns["user_id"].code * ADS + columns["ad_id"].code
    _, first = np.unique(pairs, return_index=True)
    thinned = {
        name: CodedColumn(
            name,
            column.code[first],
            column.distinct,
            column.sample,
            column.can_key,
            None if column.number is None else column.number[first],
        )
        for name, column in columns.items()
    }
    found = place_columns(
        [thinned[name] for name in COLUMNS],
        thinned["user_id"],
        keys=("ad_id",),
        times_s=None,
        network=NetworkFigures(),
        whole_bytes=1_000,
    )
    assert places(found)["brand"] is Place.CLOUD_NEVER
    (group,) = found.groups
    assert group.replay.unlimited_hit_share == 0.0
    assert (group.cache_rows, group.read_ms) == (0, NetworkFigures().request_ms(group.row_bytes))
    assert group.fetched_bytes_a_day is None


def test_what_a_key_costs_adds_up(table):
    found = placed(table)
    (group,) = found.groups
    assert (group.key, group.columns) == ("ad_id", ("brand", "rate"))
    # 9.3 days of 100 s between rows; every client has rows on each.
    assert found.client_days == pytest.approx(10 * CLIENTS, rel=0.02)
    missed = group.replay.reads * (1 - group.hit_share)
    assert group.fetched_bytes_a_day == pytest.approx(missed * group.row_bytes / found.client_days)
    assert group.read_ms == pytest.approx((1 - group.hit_share) * (50 + group.row_bytes * 8 / 8e3))
    assert group.hit_share >= 0.95 * group.replay.unlimited_hit_share
    assert group.replay.keys == ADS
    assert group.whole_bytes == pytest.approx(ADS * group.entry_bytes)
    assert group.entry_bytes > group.row_bytes + 192


def test_facts_are_those_of_a_plain_count(table):
    columns = read_coded_columns(table, ["user_id", "ad_id"])
    found = facts_of(columns["ad_id"], columns["user_id"].code, CLIENTS)
    given = pq.read_table(table.path)
    user, ad = given["user_id"].to_pylist(), given["ad_id"].to_pylist()
    pairs = set(zip(user, ad, strict=True))
    clients_of = {a: {u for u, b in pairs if b == a} for a in set(ad)}
    assert found.distinct == len(set(ad))
    assert found.values_per_client == len(pairs) / CLIENTS
    assert found.clients_per_value == len(pairs) / len(set(ad))
    assert found.one_client_share == np.mean([len(each) == 1 for each in clients_of.values()])


def test_a_key_is_credited_only_with_what_guessing_would_get_wrong():
    key = np.array([0, 0, 1, 1, 2, 2])
    assert determined_share(np.array([5, 5, 6, 6, 5, 5]), key) == 1.0
    assert determined_share(np.array([0, 0, 0, 0, 0, 1]), key) == 0.0
    assert determined_share(np.array([0, 1, 0, 1, 0, 1]), key) == 0.0
    assert determined_share(np.full(6, MISSING), key) == 0.0
    assert determined_share(np.zeros(6, np.int64), key) == 0.0


def test_explained_variance_does_not_grow_with_the_number_of_keys():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=4000)
    for keys in (2, 50, 1000):
        assert abs(explained_variance(noise, rng.integers(0, keys, 4000))) < 0.05
    key = rng.integers(0, 300, 4000)
    assert explained_variance(key * 1.0 + noise, key) == pytest.approx(
        1 - 1 / (np.var(np.arange(300)) + 1), abs=0.01
    )
    assert explained_variance(noise, np.arange(4000)) == 0.0
    assert explained_variance(np.zeros(9), np.zeros(9, np.int64)) == 0.0


def test_several_columns_are_one_key_and_missing_where_one_is():
    first = CodedColumn("a", np.array([0, 1, MISSING, 0, 1]), 2, ())
    second = CodedColumn("b", np.array([3, 3, 3, 3, MISSING]), 4, ())
    assert joint_code([first, second]).tolist() == [0, 1, MISSING, 0, MISSING]
    assert joint_code([first]).tolist() == first.code.tolist()


def test_columns_of_any_type_are_coded_with_missing_apart(tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(
        pa.table(
            {
                "s": pa.array(["a", None, "a"]).dictionary_encode(),
                "l": [[1], [1], None],
                "f": [0.5, None, 0.25],
                "day": [dt.date(1970, 1, 2), None, dt.date(1970, 1, 3)],
                "n": [5, None, 7],
            }
        ),
        path,
    )
    table = open_table(path)
    found = read_coded_columns(table, ["s", "l", "f"])
    assert found["s"].code.tolist() == [0, MISSING, 0]
    assert found["l"].code.tolist() == [0, 0, MISSING]
    assert [found[name].can_key for name in ("s", "l", "f")] == [True, False, False]
    assert found["f"].number[0] == 0.5
    assert np.isnan(found["f"].number[1])
    np.testing.assert_array_equal(read_times_s(table, "day"), [86_400, np.nan, 172_800])
    np.testing.assert_array_equal(read_times_s(table, "n"), [5, np.nan, 7])
    with pytest.raises(NoTimes, match="'l' holds"):
        read_times_s(table, "l")
    with pytest.raises(InvalidClient, match="row 1 has no 's'"):
        client_column(found, table, "s")


@pytest.mark.parametrize("figures", [(-1.0, 5.0), (50.0, 0.0), (float("nan"), 1.0)])
def test_impossible_network_figures_are_refused(figures):
    with pytest.raises(InvalidNetworkFigures):
        NetworkFigures(*figures)


def service_views(table, text: str = TEXT):
    given = parsed(text)
    service = given.service("ads_ctr_v1")
    assert service is not None
    resolution = resolve_for_device(DeviceProfile(), service, given)
    keys = require_join_keys(resolution, given, table.schema.names)
    columns = read_coded_columns(table, list({"user_id": 0} | dict.fromkeys(keys)))
    views = place_service(
        resolution,
        given,
        columns,
        columns["user_id"],
        times_s=read_times_s(table, "ts"),
        network=NetworkFigures(),
    )
    return {each.view: each for each in views}


def test_a_services_own_caches_are_replayed(table):
    views = service_views(table)
    assert list(views) == ["ad_views", "ad_stats", "user_stats"]
    ads = views["ad_stats"]
    columns = read_coded_columns(table, ["user_id", "ad_id"])
    pairs = len(np.unique(columns["user_id"].code * ADS + columns["ad_id"].code))
    assert ads.hit_share == ads.replay.unlimited_hit_share == 1 - pairs / ROWS
    # A user's row is fetched anew when it is a day old.
    fetched_s: dict[int, float] = {}
    fetches = 0
    times_s = read_times_s(table, "ts")
    for user, now_s in zip(columns["user_id"].code.tolist(), times_s.tolist(), strict=True):
        if now_s - fetched_s.get(user, -86_400) >= 86_400:
            fetches += 1
            fetched_s[user] = now_s
    users = views["user_stats"]
    assert users.hit_share == 1 - fetches / ROWS
    assert views["ad_views"].advice.startswith("on the device: ad_view is recorded there")


def test_a_cache_that_is_too_small_is_told_what_it_would_take(table):
    small = TEXT.replace("max_bytes: 200kB", "max_bytes: 3kB")
    found = service_views(table, small)["ad_stats"]
    assert "it holds about 3 rows" in found.advice
    never = TEXT.replace("{mode: on_demand, max_bytes: 200kB, ", "{mode: never, ")
    assert service_views(table, never)["ad_stats"].advice.startswith("nothing is kept; mode: on")
    large = TEXT.replace("max_bytes: 200kB", "max_bytes: 2MB")
    assert "would do" in service_views(table, large)["ad_stats"].advice


def test_rows_without_a_join_key_are_refused(table):
    given = parsed(TEXT.replace("join_keys: [ad_id]", "join_keys: [advert]"))
    service = given.service("ads_ctr_v1")
    assert service is not None
    resolution = resolve_for_device(DeviceProfile(), service, given)
    with pytest.raises(MissingJoinKeys, match="no column advert, by which ad_stats is joined"):
        require_join_keys(resolution, given, table.schema.names)
