"""Bytes said before a device has anything, beside what real stores and caches then hold."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from device_runtime.columns import Column, Kind
from device_runtime.event_store import EventSchema, EventStore
from device_runtime.feature_cache import CacheLimits, EntryKey, FeatureCache, entry_bytes
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_reader import DeviceView, FeatureReader, FetchedRow, ViewField
from device_runtime.feature_values import encode_key, encode_processed, encode_row
from device_runtime.retained_records import record_bytes
from device_runtime.transform_assets import EmbeddingTable, Vocabulary
from feature_catalog.definitions import Asset, Dtype
from feature_catalog.on_device import DeviceProfile, resolve_for_device
from feature_catalog.on_device.sizes import (
    FILE_BYTES,
    Size,
    SizedField,
    event_bytes,
    key_bytes,
    memory_bytes,
    processed_entry_bytes,
    row_bytes,
)
from tests.feature_catalog.definitions.examples import TEXT, parsed, with_change

WIDEST = {Dtype.BOOL: True, Dtype.INT32: -(2**31), Dtype.INT64: -(2**63), Dtype.FLOAT64: 0.1}


@pytest.fixture
def database(tmp_path):
    database = FeatureDatabase(tmp_path / "features.sqlite")
    yield database
    database.close()


def file_size(database: FeatureDatabase) -> int:
    """Of the file and what stands beside it."""
    folder: Path = database.path.parent
    return sum(each.stat().st_size for each in folder.iterdir())


@pytest.mark.parametrize("dtype", WIDEST)
@pytest.mark.parametrize("shape", [(), (30,), (2, 3)])
def test_the_widest_row_has_the_bytes_said(dtype: Dtype, shape: tuple[int, ...]):
    value = np.full(shape, WIDEST[dtype], object).tolist() if shape else WIDEST[dtype]
    fields = [SizedField("a", dtype, shape), SizedField("b" * 40, dtype)]
    body = encode_row({"a": value, "b" * 40: WIDEST[dtype]})
    assert row_bytes(fields, text_bytes=8) == Size(len(body))


def test_a_float_of_32_bits_and_text_of_the_length_assumed_have_the_bytes_said():
    fields = [SizedField("x", Dtype.FLOAT32), SizedField("t", Dtype.STRING)]
    body = encode_row({"x": float(np.float32(0.1)), "t": "a" * 300})
    assert row_bytes(fields, text_bytes=300) == Size(len(body), is_bound=False)


def test_a_key_has_the_bytes_said():
    assert key_bytes([Dtype.INT64, Dtype.INT32], 8) == Size(len(encode_key([2**62, 2**31 - 1])))
    assert key_bytes([Dtype.STRING], 9) == Size(len(encode_key(["x" * 9])), is_bound=False)


def stored_example(text: str = TEXT):
    given = parsed(text)
    service = given.service("ads_ctr_v1")
    assert service is not None
    return resolve_for_device(DeviceProfile(app="com.example.feed"), service, given)


def test_a_store_filled_to_its_policy_stays_below_the_estimate_and_near_it(database):
    text = with_change("max_records: 5000, max_bytes: 2MB", "max_bytes: 300kB")
    (expected,) = stored_example(text).stored
    schema = EventSchema("ad_view", {"dwell_s": Kind.FLOAT, "seen": Kind.INT, "place": Kind.STRING})
    store = EventStore(database, schema, expected.retention)
    rng = np.random.default_rng(3)
    with database.transaction():
        for _ in range(2 * expected.max_events):
            store.append(
                {"dwell_s": rng.normal(), "seen": int(rng.integers(2)), "place": "feed-top"}
            )
    assert 0.9 * expected.counted_bytes < store.totals()[1] <= expected.counted_bytes
    assert file_size(database) <= expected.bytes + FILE_BYTES
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert file_size(database) > 0.4 * expected.bytes


def test_no_event_of_numbers_counts_as_more_than_is_said(database):
    schema = {"a": Kind.INT, "b": Kind.FLOAT, "c": Kind.INT}
    store = EventStore(database, EventSchema("e", schema), stored_example().stored[0].retention)
    store.append({"a": -(2**63), "b": 0.1, "c": 2**63 - 1})
    said = event_bytes({name: (kind, ()) for name, kind in schema.items()}, text_bytes=1)
    assert store.totals() == (1, said.bytes)
    assert said.is_bound


def test_events_of_arrays_count_with_all_their_elements():
    text = with_change(
        "{name: seen_before, dtype: bool}", "{name: seen_before, dtype: int64, shape: [50]}"
    )
    (store,), (plain,) = stored_example(text).stored, stored_example().stored
    (seen,) = (each for each in store.columns if each.field == "seen_before")
    assert (seen.kind, seen.shape) == (Kind.INT, (50,))
    assert store.event_bytes - plain.event_bytes > 49 * 9
    body = encode_row({"seen_before": [-(2**63)] * 50})
    said = event_bytes({"seen_before": (seen.kind, seen.shape)}, text_bytes=1)
    assert said == Size(record_bytes(body, None))


def test_without_a_limit_of_bytes_events_of_text_are_an_estimate():
    text = with_change("max_records: 5000, max_bytes: 2MB", "max_records: 5000")
    (store,) = stored_example(text).stored
    assert not store.is_bound
    assert store.counted_bytes == 5000 * store.event_bytes
    only_numbers = text.replace(
        "      - ref: ad_views:placement\n",
        "      - ref: ad_views:seen_before\n        name: again\n",
    )
    only_numbers = only_numbers.replace(
        "transforms: [{op: hash, run_at: device_read, parameters: {buckets: 16}}]", "transforms: []"
    )
    (store,) = stored_example(only_numbers).stored
    assert store.is_bound


def test_a_cache_filled_to_its_policy_holds_about_the_keys_said(database):
    found = stored_example(with_change("max_bytes: 200kB", "max_bytes: 100kB"))
    expected = next(each for each in found.cached if each.view == "ad_stats")
    (category,) = (each for each in found.transformed if each.name == "category")
    view = DeviceView(
        "ad_stats",
        1,
        (
            ViewField("category", Kind.STRING, chain=category.device_ingest),
            ViewField("ctr_30d", Kind.FLOAT),
        ),
        expected.policy,
    )
    words = [f"{n:032d}" for n in range(8)]
    keys = [encode_key([f"{n:032d}"]) for n in range(2 * expected.max_keys)]

    def fetch(_view, _version, asked):
        ctr = float(np.float32(0.1))
        return {key: FetchedRow({"category": words[3], "ctr_30d": ctr}) for key in asked}

    cache = FeatureCache(database, "com.example.feed", [view.cached()], CacheLimits())
    assets = {"ad_categories": Vocabulary.of(tuple(words))}
    reader = FeatureReader(cache, [view], fetch, assets)
    with database.transaction():  # a disk that is slow to sync is not what is tested
        for key in keys:
            reader.prefetch("ad_stats", [key], unmetered=True)
            reader.read("ad_stats", [key], unmetered=True)
    rows, counted = cache.totals("ad_stats")
    assert counted <= expected.counted_bytes
    # Two entries a key: its row, and what the vocabulary made of it.
    assert rows / 2 == pytest.approx(expected.max_keys, rel=0.02)
    assert file_size(database) <= expected.bytes + FILE_BYTES


@pytest.mark.parametrize("shape", [(), (5,), (3, 7)])
def test_a_processed_value_has_the_bytes_said(shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(1, *shape)
    column = Column.of(values, kind=Kind.FLOAT)
    key = encode_key([2**62])
    entry = EntryKey(key, bytes(16), bytes(16))
    said = processed_entry_bytes(
        "app", "view", [Dtype.INT64], (Kind.FLOAT, shape), 8, reads_asset=True
    )
    counted = entry_bytes("app", "view", entry, encode_processed(column, 0))
    assert counted <= said.bytes <= counted + 4
    assert said.is_bound


def test_an_assets_memory_is_no_less_than_what_reading_it_takes():
    tokens = tuple(f"item_id={n}" for n in range(20_000))
    content = Vocabulary.of(tokens).to_bytes()
    said = memory_bytes(Asset("a", "vocabulary", 1, "0" * 64, len(content), entries=len(tokens)))
    guessed = memory_bytes(Asset("a", "vocabulary", 1, "0" * 64, len(content)))
    del tokens
    tracemalloc.start()
    vocabulary = Vocabulary.from_bytes(content)
    assert vocabulary.ids["item_id=7"] == 7
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.4 * said < held < said
    assert held < guessed * 1.5

    table = EmbeddingTable.of(np.zeros((100, 8), np.float32)).to_bytes()
    embedding = Asset("e", "embedding", 1, "0" * 64, len(table), dimension=8)
    assert memory_bytes(embedding) == len(table)


def test_a_column_is_stored_once_for_all_features_that_use_it():
    text = with_change(
        "      - ad_views:seen_before\n",
        "      - ad_views:seen_before\n"
        "      - {ref: 'ad_views:seen_before', name: again}\n"
        "      - ref: ad_views:seen_before\n"
        "        name: capped\n"
        "        transforms: [{op: clip, run_at: device_ingest, parameters: {max: 0}}]\n",
    )
    (store,) = stored_example(text).stored
    seen = [each for each in store.columns if each.field == "seen_before"]
    assert [(each.kind, len(each.ingest.steps)) for each in seen] == [
        (Kind.INT, 0),
        (Kind.FLOAT, 1),
    ]


def test_values_of_the_cloud_count_after_the_clouds_transforms():
    (cache,) = (each for each in stored_example().cached if each.view == "user_stats")
    # country as text of 32 bytes; clicks_7d as an integer, named by its field and 16 digits.
    body = encode_row({"country": "x" * 32, f"clicks_7d.{'0' * 16}": 2**40})
    assert cache.row_bytes == len(body)
