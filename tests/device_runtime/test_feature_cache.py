"""The feature cache: within its limits, least recently used out first, never torn or too old."""

import sqlite3
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.feature_cache import (
    CachedView,
    CacheLimits,
    EntryKey,
    FeatureCache,
    entry_bytes,
)
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CacheMode, CachePolicy, InvalidFeaturePolicy, OnMiss
from tests.device_runtime.set_time import SetTime

APP = "com.example.feed"
OTHER = "com.example.jobs"
HOUR_S = 3600.0


@pytest.fixture
def time():
    return SetTime()


@pytest.fixture
def database(tmp_path, time):
    database = FeatureDatabase(tmp_path / "features.sqlite", read_time=time)
    yield database
    database.close()


def view(name="user", version=1, audience=(), **policy):
    return CachedView(name, version, CachePolicy(**policy), frozenset(audience))


def body_of(cache, key, name="user"):
    found = cache.get(name, EntryKey(key))
    return None if found is None else found.body


def test_what_is_stored_is_found_also_by_the_next_process(database, tmp_path, time):
    FeatureCache(database, APP, [view()]).put("user", EntryKey(b"u1"), b"features")
    database.close()
    again = FeatureDatabase(tmp_path / "features.sqlite", read_time=time)
    cache = FeatureCache(again, APP, [view()])
    assert body_of(cache, b"u1") == b"features"
    assert body_of(cache, b"u2") is None
    assert (cache.counts.hits, cache.counts.misses) == (1, 1)


def test_the_least_recently_used_goes_first(database):
    cache = FeatureCache(database, APP, [view(max_rows=3)])
    for key in (b"a", b"b", b"c"):
        cache.put("user", EntryKey(key), key)
    assert body_of(cache, b"a") == b"a"
    cache.put("user", EntryKey(b"d"), b"d")
    assert [body_of(cache, key) for key in (b"a", b"b", b"c", b"d")] == [b"a", None, b"c", b"d"]
    assert cache.counts.evicted == 1


def test_bytes_are_counted_exactly_and_a_value_too_large_alone_takes_nobodys_place(database):
    cache = FeatureCache(database, APP, [view(max_bytes=2000)])
    assert cache.put("user", EntryKey(b"a"), b"x" * 100)
    expected = entry_bytes(APP, "user", EntryKey(b"a"), b"x" * 100)
    assert cache.totals("user") == (1, expected)
    assert not cache.put("user", EntryKey(b"b"), b"x" * 2000)
    assert cache.totals("user") == (1, expected)
    assert not cache.put("user", EntryKey(b"a"), b"x" * 2000)
    assert cache.totals("user") == (0, 0), "the old value of that key was out of date"


def test_many_keys_are_looked_up_at_once_and_each_counts_once(database):
    cache = FeatureCache(database, APP, [view()])
    entries = [EntryKey(bytes([n, m])) for n in range(3) for m in range(200)]
    cache.put_all("user", {entry: entry.key for entry in entries})
    wanted = [*entries, entries[0], EntryKey(b"unknown"), EntryKey(entries[0].key, b"chain")]
    found = cache.get_all("user", wanted)
    assert {entry: value.body for entry, value in found.items()} == {e: e.key for e in entries}
    assert (cache.counts.hits, cache.counts.misses) == (600, 2)


@pytest.mark.parametrize("size", [30, 1000])
def test_what_entries_count_as_is_about_what_the_file_spends_on_them(database, tmp_path, size):
    cache = FeatureCache(database, APP, [view()])
    empty = (tmp_path / "features.sqlite").stat().st_size
    entries = [EntryKey(b"key %d" % n, b"t" * 16 * (n % 2)) for n in range(600)]
    cache.put_all("user", {entry: bytes(size) for entry in entries})
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spent = (tmp_path / "features.sqlite").stat().st_size - empty
    assert 0.65 < spent / cache.totals()[1] < 1.5


def test_a_value_is_served_until_it_is_too_old_and_not_a_moment_longer(database, time):
    cache = FeatureCache(database, APP, [view(max_age_s=HOUR_S)])
    cache.put("user", EntryKey(b"a"), b"1")
    time.pass_s(HOUR_S - 0.001)
    assert body_of(cache, b"a") == b"1"
    time.pass_s(0.001)
    assert body_of(cache, b"a") is None
    assert cache.expire() == 1
    assert cache.totals() == (0, 0)


def test_a_processed_value_is_as_old_as_what_it_was_made_of(database, time):
    cache = FeatureCache(database, APP, [view(max_age_s=HOUR_S)])
    cache.put("user", EntryKey(b"a"), b"raw")
    time.pass_s(HOUR_S / 2)
    source = cache.get("user", EntryKey(b"a"))
    made = EntryKey(b"a", b"chain", b"assets")
    cache.put("user", made, b"processed", kept_at_ms=source.kept_at_ms)
    assert cache.get("user", made).body == b"processed"
    time.pass_s(HOUR_S / 2)
    assert cache.get("user", made) is None


def test_a_value_cannot_be_kept_longer_by_saying_it_is_from_the_future(database, time):
    cache = FeatureCache(database, APP, [view(max_age_s=HOUR_S)])
    cache.put("user", EntryKey(b"a"), b"1", kept_at_ms=database.now_ms() + 10**9)
    time.pass_s(HOUR_S)
    assert body_of(cache, b"a") is None


def test_other_transforms_or_assets_find_nothing_and_new_raw_values_take_processed_ones_away(
    database,
):
    cache = FeatureCache(database, APP, [view()])
    cache.put("user", EntryKey(b"a"), b"raw")
    cache.put("user", EntryKey(b"a", b"chain", b"v1"), b"processed")
    assert cache.get("user", EntryKey(b"a", b"chain", b"v2")) is None
    assert cache.get("user", EntryKey(b"a", b"other", b"v1")) is None
    assert cache.get("user", EntryKey(b"a", b"chain", b"v1")).body == b"processed"
    cache.put("user", EntryKey(b"a"), b"raw again")
    assert cache.get("user", EntryKey(b"a", b"chain", b"v1")) is None


def test_another_version_of_a_view_or_a_view_no_longer_named_is_deleted(database):
    cache = FeatureCache(database, APP, [view(), view("item")])
    cache.put("user", EntryKey(b"a"), b"1")
    cache.put("item", EntryKey(b"a"), b"1")
    later = FeatureCache(database, APP, [view(version=2)])
    assert later.totals() == (0, 0)
    assert body_of(later, b"a") is None


def test_a_view_never_cached_is_not(database):
    cache = FeatureCache(database, APP, [view(mode=CacheMode.NEVER)])
    assert not cache.put("user", EntryKey(b"a"), b"1")
    assert body_of(cache, b"a") is None


def test_another_app_reads_only_what_the_owners_audience_allows_and_is_counted(database):
    owner = FeatureCache(database, APP, [view(audience=[OTHER]), view("private")])
    owner.put("user", EntryKey(b"a"), b"1")
    owner.put("private", EntryKey(b"a"), b"1")
    # The reader's own word about the audience counts for nothing.
    reader = FeatureCache(database, OTHER, [view(), view("private", audience=[OTHER, APP])])
    assert body_of(reader, b"a") == b"1"
    assert reader.get("private", EntryKey(b"a")) is None
    assert owner.reads_across_apps() == {(APP, "user", OTHER): 1}
    third = FeatureCache(database, "com.example.third", [view()])
    assert body_of(third, b"a") is None
    FeatureCache(database, APP, [view(), view("private")])
    assert body_of(reader, b"a") is None, "the owner took it back"


def test_an_app_cannot_delete_or_replace_anothers_entries(database):
    owner = FeatureCache(database, APP, [view(audience=[OTHER])])
    owner.put("user", EntryKey(b"a"), b"owner's")
    other = FeatureCache(database, OTHER, [view()])
    other.put("user", EntryKey(b"a"), b"other's")
    other.remove("user", b"a")
    other.clear()
    assert body_of(owner, b"a") == b"owner's"


@pytest.mark.parametrize("column", ["body", "kept_at_ms", "key"])
def test_a_value_torn_or_swapped_in_the_file_is_never_returned(database, tmp_path, column):
    cache = FeatureCache(database, APP, [view()])
    cache.put("user", EntryKey(b"a"), b"1")
    changed = {"body": "x'ff'", "kept_at_ms": "kept_at_ms + 1", "key": "x'62'"}[column]
    with sqlite3.connect(tmp_path / "features.sqlite") as raw:
        raw.execute(f"UPDATE entries SET {column} = {changed}")
    assert body_of(cache, b"b" if column == "key" else b"a") is None
    assert cache.counts.torn == 1
    assert cache.totals() == (0, 0)


def test_after_a_clock_was_set_back_over_a_boot_nothing_cached_is_served(database, tmp_path, time):
    cache = FeatureCache(database, APP, [view(max_age_s=HOUR_S)])
    cache.put("user", EntryKey(b"a"), b"1")
    database.close()
    time.boot(off_s=-60)
    again = FeatureCache(
        FeatureDatabase(tmp_path / "features.sqlite", read_time=time), APP, [view()]
    )
    assert body_of(again, b"a") is None


def test_threads_share_a_cache_without_losing_count(database):
    cache = FeatureCache(database, APP, [view(max_rows=40)])

    def work(number):
        for step in range(60):
            key = bytes([number, step % 20])
            cache.put("user", EntryKey(key), key)
            found = cache.get_all("user", [EntryKey(bytes([number, n])) for n in range(20)])
            assert all(value.body == entry.key for entry, value in found.items())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    rows, total_bytes = cache.totals("user")
    lying = database.connection.execute("SELECT count(*), sum(bytes) FROM entries").fetchone()
    assert (rows, total_bytes) == lying
    assert rows == 40


KEYS = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(["small", "big"]), KEYS, st.integers(0, 500)),
    st.tuples(st.just("get"), st.sampled_from(["small", "big"]), KEYS),
    st.tuples(st.just("remove"), st.sampled_from(["small", "big"]), KEYS),
    st.tuples(st.just("wait"), st.floats(0, 40)),
    st.tuples(st.just("reopen")),
)
VIEWS = [view("small", max_rows=3, max_age_s=60), view("big", max_bytes=2500)]
LIMITS = CacheLimits(max_bytes=3500, max_rows=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_any_run_of_steps_does_what_an_ordered_dictionary_would(tmp_path_factory, steps):
    time = SetTime()
    database = FeatureDatabase(tmp_path_factory.mktemp("c") / "f.sqlite", read_time=time)
    cache = FeatureCache(database, APP, VIEWS, LIMITS)
    policies = {v.name: v.policy for v in VIEWS}
    model: OrderedDict[tuple[str, bytes], tuple[bytes, int, float]] = OrderedDict()
    now_s = 0.0

    def held(name=None):
        own = [m for (n, _), m in model.items() if name in (None, n)]
        return len(own), sum(m[1] for m in own)

    def evict(name, limits, size):
        while model:
            rows, total = held(name)
            if rows + 1 <= limits.max_rows and total + size <= limits.max_bytes:
                return
            model.pop(next(k for k in model if name in (None, k[0])))

    def is_old(name, kept_s):
        max_age_s = policies[name].max_age_s
        return max_age_s is not None and now_s - kept_s >= max_age_s

    for step in steps:
        if step[0] == "wait":
            time.pass_s(step[1])
            now_s = database.now_ms() / 1000
        elif step[0] == "reopen":
            with database.transaction():
                cache._write_use()
            cache = FeatureCache(database, APP, VIEWS, LIMITS)
            for k in [k for k, m in model.items() if is_old(k[0], m[2])]:
                model.pop(k)
        elif step[0] == "remove":
            cache.remove(step[1], bytes([step[2]]))
            model.pop((step[1], bytes([step[2]])), None)
        elif step[0] == "get":
            name, key = step[1], bytes([step[2]])
            entry = model.get((name, key))
            expected = None if entry is None or is_old(name, entry[2]) else entry[0]
            assert body_of(cache, key, name) == expected
            if expected is not None:
                model.move_to_end((name, key))
        else:
            _, name, number, size = step
            key, body = bytes([number]), bytes([number]) * size
            cache.put(name, EntryKey(key), body)
            model.pop((name, key), None)
            for k in [k for k, m in model.items() if k[0] == name and is_old(name, m[2])]:
                model.pop(k)
            cost = entry_bytes(APP, name, EntryKey(key), body)
            policy = policies[name]
            own = CacheLimits(policy.max_bytes or 10**9, policy.max_rows or 10**9)
            evict(name, own, cost)
            evict(None, LIMITS, cost)
            model[name, key] = (body, cost, database.now_ms() / 1000)
        assert cache.totals() == held()
        for v in VIEWS:
            assert cache.totals(v.name) == held(v.name)
    database.close()


@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "sometimes"},
        {"network": "wifi"},
        {"on_miss": "panic"},
        {"max_age_s": -1},
        {"max_bytes": 0},
        {"max_bites": 1},
        {"mode": "bundled", "on_miss": "fetch"},
    ],
)
def test_a_cache_policy_that_makes_no_sense_is_refused(policy):
    with pytest.raises(InvalidFeaturePolicy, match="FLN-2853"):
        CachePolicy.from_json(policy)


def test_a_cache_policy_survives_its_manifest():
    policy = CachePolicy(CacheMode.BUNDLED, 60.0, 4096, on_miss=OnMiss.DEFAULT)
    assert CachePolicy.from_json(policy.to_json()) == policy
