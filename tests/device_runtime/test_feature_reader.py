"""Reads of cloud features: cached, fetched, default or skipped, as the view's policy says."""

from collections import Counter

import numpy as np
import pytest

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.feature_cache import EntryKey, FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CacheMode, CachePolicy, Network, OnMiss
from device_runtime.feature_reader import (
    DeviceView,
    FeatureReader,
    FetchedRow,
    FetchFailed,
    ViewField,
    row_digest,
)
from device_runtime.feature_values import encode_key
from device_runtime.transform_assets import Vocabulary
from device_runtime.transform_chain import TransformChain
from tests.device_runtime.set_time import SetTime

APP = "com.example.feed"
CITIES = {"city": Vocabulary.of(("Paris", "Rome"))}
VOCAB = TransformChain.from_json('[{"op":"vocab","asset":"city","unknown":9,"missing":-1}]')
NORMALIZE = TransformChain.from_json('[{"op":"normalize","mean":10,"stdev":2}]')
HOUR_S = 3600.0
ROW = row_digest(["city", "score"])


class Cloud:
    """Serves rows and counts what it is asked; can be out of reach."""

    def __init__(self) -> None:
        self.rows = {
            encode_key([f"u{n}"]): FetchedRow(
                {"city": ["Paris", "Rome", "Oslo"][n % 3], "score": n}
            )
            for n in range(1000)
        }
        self.asked: Counter[bytes] = Counter()
        self.calls = 0
        self.is_reachable = True

    def __call__(self, view, version, keys):
        if not self.is_reachable:
            raise FetchFailed
        self.calls += 1
        self.asked.update(keys)
        return {key: self.rows[key] for key in keys if key in self.rows}


@pytest.fixture
def time():
    return SetTime()


@pytest.fixture
def database(tmp_path, time):
    database = FeatureDatabase(tmp_path / "features.sqlite", read_time=time)
    yield database
    database.close()


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def make(database, cloud):
    """A reader of the one view, with the policy given."""

    def reader(*, defaults=("Rome", 10.0), assets=CITIES, app=APP, audience=(), **policy):
        view = DeviceView(
            "user",
            1,
            (
                ViewField("city", Kind.STRING, default=defaults[0], chain=VOCAB),
                ViewField("score", Kind.FLOAT, default=defaults[1], chain=NORMALIZE),
            ),
            CachePolicy(**policy),
            frozenset(audience),
        )
        return FeatureReader(FeatureCache(database, app, [view.cached()]), [view], cloud, assets)

    return reader


def keys(*numbers):
    return [encode_key([f"u{n}"]) for n in numbers]


def test_the_first_read_fetches_the_second_does_not_and_both_are_transformed_alike(make, cloud):
    reader = make()
    first = reader.read("user", keys(1, 5, 1), unmetered=True)
    second = reader.read("user", keys(1, 5, 1), unmetered=None)
    assert first.statuses == ("fetched",) * 3
    assert second.statuses == ("cached",) * 3
    for read in (first, second):
        assert read.columns["city"].as_dtype("int32").tolist() == [1, 9, 1]
        assert read.columns["score"].as_dtype("float32").tolist() == [-4.5, -2.5, -4.5]
    assert cloud.asked == Counter(keys(1, 5))


def test_processed_values_are_not_transformed_again_by_another_task(make, database, monkeypatch):
    make().read("user", keys(1, 2), unmetered=True)
    database.connection.execute("DELETE FROM entries WHERE transform = ?", (ROW,))
    applied = []
    monkeypatch.setattr(
        TransformChain, "apply", lambda self, column, assets: applied.append(self) or column
    )
    read = make().read("user", keys(2, 1), unmetered=None)
    assert read.columns["city"].values.tolist() == [9, 1]
    assert applied == []


def test_a_new_vocabulary_makes_new_values_of_the_cached_rows_without_a_fetch(make, cloud):
    make().read("user", keys(2), unmetered=True)
    grown = {"city": Vocabulary.of(("Paris", "Rome", "Oslo"))}
    read = make(assets=grown).read("user", keys(2), unmetered=None)
    assert read.columns["city"].values.tolist() == [2]
    assert cloud.calls == 1


def test_another_app_in_the_audience_reuses_processed_values(make, cloud):
    make(audience=["com.example.jobs"]).read("user", keys(1), unmetered=True)
    read = make(app="com.example.jobs").read("user", keys(1), unmetered=None)
    assert read.statuses == ("cached",)
    assert make(app="com.example.maps", on_miss="skip_example").read(
        "user", keys(1), unmetered=True
    ).statuses == ("skipped",)


@pytest.mark.parametrize(
    ("network", "unmetered", "status"),
    [
        (Network.UNMETERED, True, "fetched"),
        (Network.UNMETERED, False, "default"),
        (Network.ANY, False, "fetched"),
        (Network.ANY, None, "default"),
    ],
)
def test_nothing_is_fetched_over_a_network_the_policy_does_not_allow(
    make, cloud, network, unmetered, status
):
    read = make(network=network).read("user", keys(1), unmetered=unmetered)
    assert read.statuses == (status,)
    assert bool(cloud.calls) == (status == "fetched")


def test_out_of_reach_the_default_goes_through_the_transforms_and_is_not_cached(make, cloud):
    cloud.is_reachable = False
    reader = make()
    read = reader.read("user", keys(0), unmetered=True)
    assert read.statuses == ("default",)
    assert read.columns["city"].values.tolist() == [1]
    assert read.columns["score"].values.tolist() == [0.0]
    cloud.is_reachable = True
    assert reader.read("user", keys(0), unmetered=True).statuses == ("fetched",)


def test_without_a_default_for_every_field_the_example_is_left_out(make, cloud):
    reader = make(defaults=("Rome", None))
    reader.read("user", keys(3), unmetered=True)
    read = reader.read("user", keys(1, 3, 2), unmetered=None)
    assert read.statuses == ("skipped", "cached", "skipped")
    assert read.rows == (1,)
    assert read.columns["score"].values.tolist() == [-3.5]


def test_skip_example_skips_though_there_are_defaults_and_default_never_fetches(make, cloud):
    assert make(on_miss="skip_example").read("user", keys(1), unmetered=True).rows == ()
    assert make(on_miss="default").read("user", keys(1), unmetered=True).statuses == ("default",)
    assert cloud.calls == 0


def test_a_key_the_cloud_does_not_know_is_missing_and_not_asked_for_again(make, cloud):
    reader = make()
    unknown = [encode_key(["nobody"])]
    for status in ("fetched", "cached"):
        read = reader.read("user", unknown, unmetered=True)
        assert read.statuses == (status,)
        assert read.columns["city"].values.tolist() == [-1]
        assert read.columns["score"].missing.tolist() == [True]
    assert cloud.calls == 1


def test_values_never_cached_are_fetched_each_time_and_leave_nothing(make, cloud, database):
    reader = make(mode=CacheMode.NEVER)
    for _ in range(2):
        assert reader.read("user", keys(1), unmetered=True).statuses == ("fetched",)
    assert cloud.calls == 2
    assert database.totals("entries") == (0, 0)


def test_prefetch_fills_the_cache_in_few_calls_and_refreshes_what_is_half_its_age(
    make, cloud, time
):
    reader = make(mode=CacheMode.PREFETCH, on_miss=OnMiss.DEFAULT, max_age_s=HOUR_S)
    assert reader.prefetch("user", keys(*range(600)), unmetered=False) == (0, 0)
    count, fetched_bytes = reader.prefetch("user", keys(*range(600)), unmetered=True)
    assert (count, cloud.calls) == (600, 3)
    assert 600 * 10 < fetched_bytes < 600 * 100
    assert set(reader.read("user", keys(*range(600)), unmetered=None).statuses) == {"cached"}
    time.pass_s(HOUR_S / 2 - 1)
    assert reader.prefetch("user", keys(1), unmetered=True)[0] == 0
    time.pass_s(1)
    assert reader.prefetch("user", keys(1), unmetered=True)[0] == 1
    time.pass_s(HOUR_S / 2)
    assert reader.read("user", keys(0, 1), unmetered=None).statuses == ("default", "cached")


def test_a_row_that_was_old_when_it_was_sent_is_served_for_what_is_left_of_its_age(
    make, cloud, time
):
    [key] = keys(1)
    cloud.rows[key] = FetchedRow({"city": "Rome", "score": 1}, age_s=HOUR_S - 10)
    reader = make(max_age_s=HOUR_S)
    assert reader.read("user", [key], unmetered=True).statuses == ("fetched",)
    time.pass_s(9)
    assert reader.read("user", [key], unmetered=None).statuses == ("cached",)
    time.pass_s(1)
    assert reader.read("user", [key], unmetered=None).statuses == ("default",)


def test_bundled_features_come_with_the_app_age_there_and_are_never_fetched(make, cloud, time):
    reader = make(mode=CacheMode.BUNDLED, on_miss=OnMiss.SKIP_EXAMPLE, max_age_s=10 * HOUR_S)
    rows = {key: {"city": "Rome", "score": 12} for key in keys(1, 2)}
    as_of_ms = time.wall_ms - int(9 * HOUR_S * 1000)
    assert reader.load_bundle("user", rows, as_of_ms=as_of_ms) == 2
    read = reader.read("user", keys(1, 2, 3), unmetered=True)
    assert read.statuses == ("cached", "cached", "skipped")
    assert read.columns["score"].values.tolist() == [1.0, 1.0]
    time.pass_s(HOUR_S)
    assert reader.read("user", keys(1), unmetered=True).statuses == ("skipped",)
    assert cloud.calls == 0


def test_values_of_several_elements_and_missing_ones_survive_the_cache(database):
    hashed = TransformChain.from_json('[{"op":"hash","buckets":97,"missing":-1}]')
    fields = (
        ViewField("bag", Kind.STRING, (3,), chain=hashed),
        ViewField("vector", Kind.FLOAT, (2,)),
        ViewField("name", Kind.STRING, chain=TransformChain.from_json('[{"op":"identity"}]')),
    )
    view = DeviceView("item", 1, fields)
    rows = {
        b"a": FetchedRow({"bag": ["x", None, "y"], "vector": [0.1, float("inf")], "name": "é"}),
        b"b": FetchedRow({"bag": ["z", "x", ""], "vector": [-0.0, float("nan")]}),
    }
    cache = FeatureCache(database, APP, [view.cached()])
    reader = FeatureReader(cache, [view], lambda *_: rows)
    fetched = reader.read("item", [b"a", b"b", b"c"], unmetered=True)
    cached = reader.read("item", [b"a", b"b", b"c"], unmetered=None)
    assert cached.statuses == ("cached",) * 3
    for name in ("bag", "vector", "name"):
        assert fetched.columns[name].missing.tolist() == cached.columns[name].missing.tolist()
        left, right = fetched.columns[name].values, cached.columns[name].values
        assert left.dtype == right.dtype
        assert left.tolist() == right.tolist()
    assert np.signbit(cached.columns["vector"].values[1, 0])
    assert cached.columns["vector"].missing.tolist() == [[False] * 2, [False, True], [True] * 2]
    assert cached.columns["name"].missing.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "values",
    [
        {"city": 5, "score": 1},
        {"city": "Rome", "score": "1"},
        {"city": "Rome", "score": [1, 2]},
        {"city": ["Rome"]},
    ],
)
def test_values_of_another_kind_than_the_view_says_are_refused_and_no_processed_value_is_kept(
    make, cloud, database, values
):
    [key] = keys(1)
    cloud.rows[key] = FetchedRow(values)
    reader = make()
    with pytest.raises(UnsuitableColumn):
        reader.read("user", [key], unmetered=True)
    made = "SELECT count(*) FROM entries WHERE transform != ?"
    assert database.connection.execute(made, (ROW,)).fetchone() == (0,)


def test_an_empty_read_gives_empty_columns(make):
    read = make().read("user", [], unmetered=True)
    assert read.statuses == ()
    assert len(read.columns["city"]) == 0


def test_a_torn_raw_value_is_fetched_again(make, cloud, database):
    reader = make()
    reader.read("user", keys(1), unmetered=True)
    database.connection.execute("DELETE FROM entries WHERE transform != ?", (ROW,))
    database.connection.execute("UPDATE entries SET body = x'a0'")
    assert reader.read("user", keys(1), unmetered=True).statuses == ("fetched",)
    assert cloud.calls == 2
    assert isinstance(reader._cache.get("user", EntryKey(keys(1)[0], ROW)).body, bytes)


def test_services_with_other_columns_of_one_view_never_take_each_others_values(database, cloud):
    hashed = TransformChain.from_json('[{"op":"hash","buckets":8}]')
    fields = {
        "plain": ViewField("city", Kind.STRING, chain=VOCAB),
        "cloud": ViewField("city", Kind.INT, column="city.0123456789abcdef"),
        "other": ViewField("town", Kind.STRING, chain=hashed, column="city"),
    }
    for row in cloud.rows.values():
        row.values["city.0123456789abcdef"] = 77
    views = {name: DeviceView("user", 1, (f,), CachePolicy()) for name, f in fields.items()}
    cache = FeatureCache(database, APP, [views["plain"].cached()])
    readers = {name: FeatureReader(cache, [view], cloud, CITIES) for name, view in views.items()}
    for expected in ("fetched", "cached"):
        plain = readers["plain"].read("user", keys(1), unmetered=True)
        sent = readers["cloud"].read("user", keys(1), unmetered=True)
        assert plain.columns["city"].to_list() == [1]
        assert sent.columns["city"].to_list() == [77]
        assert (plain.statuses, sent.statuses) == ((expected,), (expected,))
    other = readers["other"].read("user", keys(1), unmetered=None)
    assert other.statuses == ("cached",)  # the same column, another chain and name: no new fetch
    assert other.columns["town"].to_list() == hashed.apply(Column.of(["Rome"])).to_list()


def test_a_new_row_takes_what_was_made_of_the_old_one_and_leaves_other_services_rows(
    database, cloud, time
):
    score = ViewField("score", Kind.FLOAT, chain=NORMALIZE)
    city = ViewField("city", Kind.STRING, chain=VOCAB)
    policy = CachePolicy(mode=CacheMode.PREFETCH, max_age_s=10 * HOUR_S)
    one, two = (DeviceView("user", 1, (each,), policy) for each in (score, city))
    cache = FeatureCache(database, APP, [one.cached()])
    scores = FeatureReader(cache, [one], cloud, CITIES)
    cities = FeatureReader(cache, [two], cloud, CITIES)
    [key] = keys(1)
    assert scores.read("user", [key], unmetered=True).columns["score"].to_list() == [-4.5]
    cities.read("user", [key], unmetered=True)
    time.pass_s(6 * HOUR_S)
    cloud.rows[key] = FetchedRow({"city": "Paris", "score": 12})
    assert scores.prefetch("user", [key], unmetered=True)[0] == 1
    assert scores.read("user", [key], unmetered=None).columns["score"].to_list() == [1.0]
    assert cities.read("user", [key], unmetered=None).columns["city"].to_list() == [1]
