"""Events on a device: typed, within their retention at every moment, whatever the clock says."""

import math
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.columns import Kind
from device_runtime.event_store import EventSchema, EventStore, UnsuitableEvent
from device_runtime.feature_database import FeatureDatabase, UnreadableFeatureDatabase
from device_runtime.feature_policies import InvalidFeaturePolicy, OnFull, Retention
from device_runtime.hashing import hash_bucket
from device_runtime.retained_records import RetainedRecords, record_bytes
from device_runtime.transform_chain import TransformChain
from device_runtime.transform_parameters import InvalidTransform
from tests.device_runtime.set_time import SetTime

CLICK = EventSchema("click", {"item": Kind.STRING, "place": Kind.INT, "dwell_s": Kind.FLOAT})
DAY_S = 86_400.0


@pytest.fixture
def time():
    return SetTime()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.sqlite"


@pytest.fixture
def database(path, time):
    database = FeatureDatabase(path, read_time=time)
    yield database
    database.close()


def items(store: EventStore) -> list:
    return [event.values["item"] for event in store.newest(1000)]


def test_events_come_back_as_they_were_and_survive_the_process(path, time, database):
    store = EventStore(database, CLICK, Retention())
    assert store.append({"item": "日本", "place": 2**53 + 1, "dwell_s": 0.1}, at_ms=77)
    assert store.append({"item": None, "dwell_s": np.float32(math.nan)})
    database.close()
    again = EventStore(FeatureDatabase(path, read_time=time), CLICK, Retention())
    first, second = again.newest(10)
    assert (first.at_ms, first.values) == (77, {"item": "日本", "place": 2**53 + 1, "dwell_s": 0.1})
    assert second.values == {"item": None, "dwell_s": None}
    assert second.at_ms == time.wall_ms
    columns = again.columns(10)
    assert columns["place"].values.tolist() == [2**53 + 1, 0]
    assert columns["place"].missing.tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"itm": "a"}, "itm"),
        ({"item": 5}, "item"),
        ({"item": "\ud800"}, "item"),
        ({"place": 2**63}, "place"),
        ({"place": 0.5}, "place"),
        ({"dwell_s": math.inf}, "dwell_s"),
        ({"item": "x" * 2**20}, "1048"),
    ],
)
def test_an_event_of_another_form_is_refused_and_not_kept(database, values, names):
    store = EventStore(database, CLICK, Retention())
    with pytest.raises(UnsuitableEvent, match=r"FLN-2856") as refusal:
        store.append(values)
    assert names in str(refusal.value)
    assert store.count() == 0


def test_what_is_transformed_on_ingest_is_in_the_file_in_no_other_form(database, path):
    ingest = {
        "item": TransformChain.from_json('[{"op":"hash","buckets":1000,"missing":0}]'),
        "dwell_s": TransformChain.from_json('[{"op":"bucketize","boundaries":[1,10]}]'),
    }
    store = EventStore(database, CLICK, Retention(), ingest=ingest)
    store.append({"item": "a very private thing", "dwell_s": 3})
    store.append({"place": 4})
    columns = store.columns(10)
    assert columns["item"].values.tolist() == [hash_bucket("a very private thing", 1000, 0), 0]
    assert columns["dwell_s"].values.tolist() == [1, 0]
    assert columns["dwell_s"].missing.tolist() == [False, True]
    database.close()
    assert not any(b"very private" in part.read_bytes() for part in path.parent.iterdir())


def test_an_ingest_transform_that_does_not_fit_the_schema_is_refused(database):
    chain = TransformChain.from_json('[{"op":"normalize","mean":0,"stdev":1}]')
    with pytest.raises(InvalidTransform, match="normalize"):
        EventStore(database, CLICK, Retention(), ingest={"item": chain})
    with pytest.raises(UnsuitableEvent, match="itm"):
        EventStore(database, CLICK, Retention(), ingest={"itm": chain})


def test_the_oldest_go_when_there_are_too_many(database):
    store = EventStore(database, CLICK, Retention(max_records=3))
    for number in range(10):
        assert store.append({"item": str(number)})
        assert store.totals()[0] == min(number + 1, 3)
    assert items(store) == ["7", "8", "9"]


def test_the_new_ones_are_dropped_if_the_policy_says_so(database):
    store = EventStore(database, CLICK, Retention(max_records=3, on_full=OnFull.DROP_NEWEST))
    assert [store.append({"item": str(number)}) for number in range(5)] == [True] * 3 + [False] * 2
    assert items(store) == ["0", "1", "2"]


def test_events_that_are_too_old_are_not_handed_out_and_then_deleted(database, time):
    store = EventStore(database, CLICK, Retention(max_age_s=DAY_S))
    store.append({"item": "old"})
    time.pass_s(DAY_S - 1)
    store.append({"item": "new"})
    assert items(store) == ["old", "new"]
    time.pass_s(1)
    assert items(store) == ["new"]
    assert (store.count(), store.totals()[0]) == (1, 2)
    store.expire()
    assert store.totals()[0] == 1


def test_a_deleted_event_leaves_no_trace_in_the_file(database, path):
    store = EventStore(database, CLICK, Retention())
    store.append({"item": "a very private thing"})
    store.clear()
    database.close()
    assert not any(b"very private" in part.read_bytes() for part in path.parent.iterdir())


def test_a_stricter_policy_holds_as_soon_as_the_store_is_opened(database):
    store = EventStore(database, CLICK, Retention())
    for number in range(10):
        store.append({"item": str(number)})
    stricter = EventStore(database, CLICK, Retention(max_records=4))
    assert items(stricter) == ["6", "7", "8", "9"]


def test_streams_have_limits_of_their_own(database):
    clicks = EventStore(database, CLICK, Retention(max_records=2))
    views = EventStore(database, EventSchema("view", {"item": Kind.STRING}), Retention())
    for number in range(5):
        clicks.append({"item": str(number)})
        views.append({"item": str(number)})
    assert (clicks.count(), views.count()) == (2, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.floats(0, 30)), max_size=40),
    st.none() | st.integers(1, 8),
    st.none() | st.integers(1, 3000),
    st.none() | st.integers(1, 60),
    st.sampled_from(OnFull),
)
def test_no_limit_is_ever_exceeded_and_what_is_kept_is_what_a_list_would_keep(
    tmp_path_factory, appends, max_records, max_bytes, max_age_s, on_full
):
    def is_full(model, cost):
        too_many = max_records is not None and len(model) >= max_records
        return too_many or (max_bytes is not None and sum(m[1] for m in model) + cost > max_bytes)

    time = SetTime()
    database = FeatureDatabase(tmp_path_factory.mktemp("r") / "f.sqlite", read_time=time)
    policy = Retention(max_age_s, max_records, max_bytes, on_full)
    records = RetainedRecords(database, "s", policy)
    model: list[tuple[float, int, bytes]] = []
    now_s = 0.0
    for number, (size, wait_s) in enumerate(appends):
        time.pass_s(int(wait_s))
        now_s += int(wait_s)
        body = bytes([number]) * size
        kept = records.append(body)
        cost = record_bytes(body, None)
        model = [m for m in model if max_age_s is None or now_s - m[0] < max_age_s]
        fits = max_bytes is None or cost <= max_bytes

        if fits and on_full is OnFull.DROP_OLDEST:
            while is_full(model, cost):
                model.pop(0)
        fits = fits and not is_full(model, cost)
        if fits:
            model.append((now_s, cost, body))
        assert kept == fits
        assert [r.body for r in records.newest(1000)] == [m[2] for m in model]
        assert records.totals() == (len(model), sum(m[1] for m in model))
    database.close()


@pytest.mark.parametrize("size", [30, 150, 1000])
def test_what_records_count_as_is_about_what_the_file_spends_on_them(path, time, size):
    database = FeatureDatabase(path, read_time=time)
    empty = path.stat().st_size
    records = RetainedRecords(database, "event/click", Retention(max_bytes=2**18))
    for part in range(10):
        with database.transaction():
            for number in range(200):
                records.append(bytes(size), name=f"name {part} {number}")
    counted = records.totals()[1]
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spent = path.stat().st_size - empty
    database.close()
    assert 2**18 - record_bytes(bytes(size), "name 0 199") < counted <= 2**18
    assert 0.65 * counted < spent < 1.5 * counted


@pytest.mark.parametrize("jump_s", [400 * DAY_S, -400 * DAY_S], ids=["forward", "back"])
def test_a_clock_set_while_the_device_runs_changes_no_age(path, time, database, jump_s):
    store = EventStore(database, CLICK, Retention(max_age_s=DAY_S))
    store.append({"item": "a"})
    time.set_wall_s(jump_s)
    time.pass_s(10)
    store.append({"item": "b"})
    assert items(store) == ["a", "b"]
    database.close()
    again = EventStore(FeatureDatabase(path, read_time=time), CLICK, Retention(max_age_s=DAY_S))
    time.pass_s(DAY_S - 11)
    assert items(again) == ["a", "b"]
    time.pass_s(1)
    assert items(again) == ["b"], "on time, though the clock was set"


@pytest.mark.parametrize("boot_id", ["boot-1", ""])
def test_time_switched_off_counts_by_the_systems_clock(path, boot_id):
    time = SetTime(boot_id)
    database = FeatureDatabase(path, read_time=time)
    EventStore(database, CLICK, Retention(max_age_s=DAY_S)).append({"item": "a"})
    database.close()
    time.boot(off_s=DAY_S - 5)
    again = EventStore(FeatureDatabase(path, read_time=time), CLICK, Retention(max_age_s=DAY_S))
    assert items(again) == ["a"]
    time.pass_s(5)
    assert items(again) == []


def test_a_clock_set_back_while_off_makes_nothing_younger(path, time, database):
    store = EventStore(database, CLICK, Retention(max_age_s=DAY_S))
    store.append({"item": "a"})
    time.pass_s(DAY_S / 2)
    store.append({"item": "b"})
    database.close()
    time.boot(off_s=-100 * DAY_S)
    again = EventStore(FeatureDatabase(path, read_time=time), CLICK, Retention(max_age_s=DAY_S))
    time.pass_s(DAY_S / 2)
    assert items(again) == ["b"]


def test_a_record_that_was_changed_in_the_file_is_not_handed_out(path, database):
    store = EventStore(database, CLICK, Retention())
    store.append({"item": "a"})
    store.append({"item": "b"})
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE records SET body = x'a0' WHERE id = 1")
    assert items(store) == ["b"]


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"x" * 4096]
)
def test_a_file_that_is_something_else_is_refused_in_one_sentence(path, content):
    path.write_bytes(content)
    with pytest.raises(UnreadableFeatureDatabase, match="FLN-2854"):
        FeatureDatabase(path)


def test_a_transaction_inside_another_that_fails_undoes_its_own_part_only(database):
    store = EventStore(database, CLICK, Retention())

    def break_off():
        with database.transaction():
            store.append({"item": "b"})
            raise RuntimeError("broken off")

    with database.transaction():
        store.append({"item": "a"})
        with pytest.raises(RuntimeError):
            break_off()
        store.append({"item": "c"})
    assert items(store) == ["a", "c"]


def test_a_file_of_a_newer_runtime_is_left_as_it_is(path, database):
    database.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UnreadableFeatureDatabase, match="99"):
        FeatureDatabase(path)


def test_a_full_disk_is_said_and_leaves_what_was_there(database):
    store = EventStore(database, CLICK, Retention())
    store.append({"item": "a"})
    pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
    database.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UnreadableFeatureDatabase, match="full"):
        store.append({"item": "x" * 100_000})
    assert items(store) == ["a"]


@pytest.mark.parametrize(
    "policy",
    [
        {"max_age_s": 0},
        {"max_age_s": math.inf},
        {"max_records": -1},
        {"max_records": True},
        {"max_bytes": 1.5},
        {"on_full": "explode"},
        {"max_rows": 5},
    ],
)
def test_a_retention_that_makes_no_sense_is_refused(policy):
    with pytest.raises(InvalidFeaturePolicy, match="FLN-2853"):
        Retention.from_json(policy)


def test_a_retention_survives_its_manifest():
    policy = Retention(max_age_s=30.5, max_bytes=4096, on_full=OnFull.DROP_NEWEST)
    assert Retention.from_json(policy.to_json()) == policy
