"""A device's joined input equals the data set's, to the bit: every transform, place and gap."""

import datetime as dt
import itertools
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.feature_cache import FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_reader import FeatureReader, FetchedRow
from device_runtime.feature_values import decode_row
from device_runtime.joined_examples import FeatureSources, JoinedExamples
from device_runtime.labelled_events import LabelledEvents
from device_runtime.manifest import InputSpec
from device_runtime.manifest_parser import parse_manifest
from device_runtime.manifest_views import cloud_views
from device_runtime.transform_assets import EmbeddingTable, Vocabulary
from device_runtime.user_activity import replay
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.definitions.files import load_definitions
from feature_catalog.feature_datasets import RowRoles, add_feature_dataset
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.offline import OfflineFeatures, blob_assets
from feature_catalog.on_device import DeviceProfile
from feature_catalog.online import OnlineStore
from feature_catalog.online.materialization import Sources, materialize
from feature_catalog.service.cloud_assets import CloudAssets
from feature_catalog.service.device_manifest import ManifestMaker
from feature_catalog.service.feature_rows import feature_rows
from feature_catalog.service.served_contracts import ServedContracts
from modeling.feature_input_form import input_form
from modeling.spec import Dense, Embedding, HashedBag, ModelSpec

pytestmark = pytest.mark.integration

CITIES = Vocabulary.of(("Paris", "Rome", "Łódź"))
VECTORS = EmbeddingTable.of(np.arange(12, dtype=np.float32).reshape(4, 3) / 7)
T0 = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
FOREVER_S = 4e9
"""Seconds since the epoch when devices ask: nothing here has a ttl."""

DEFINITIONS = """
entities:
  - {{name: item, join_keys: [item_id], dtype: int64}}
  - {{name: place, join_keys: [zone, street]}}
assets:
  - {{name: cities, type: vocabulary, version: 1, sha256: {cities}, size_bytes: {cities_bytes}B,
      entries: 3}}
  - {{name: vectors, type: embedding, version: 1, sha256: {vectors},
      size_bytes: {vectors_bytes}B, entries: 4, dimension: 3}}
feature_views:
  - name: items
    entities: [item]
    source: {{path: items.parquet}}
    schema:
      - {{name: city, dtype: string}}
      - {{name: price, dtype: float32}}
      - {{name: rank, dtype: int32}}
      - {{name: scores, dtype: float64, shape: [2]}}
    cache: {{mode: on_demand, max_age: 3650d, max_bytes: 1MB, network: any}}
  - name: places
    entities: [place]
    source: {{path: places.parquet}}
    schema: [{{name: kind, dtype: string}}, {{name: open, dtype: bool}}]
    cache: {{mode: never, network: any}}
  - name: shown
    entities: [item]
    source:
      event: shown
      schema:
        - {{name: dwell_s, dtype: float32}}
        - {{name: word, dtype: string}}
        - {{name: number, dtype: int64}}
        - {{name: tags, dtype: string, shape: [2]}}
    retention: {{max_records: 1000, max_bytes: 4MB}}
"""
TOKENS = """
feature_services:
  - name: tokens
    features:
      - places:kind
      - places:open
      - items:rank
      - {ref: items:rank, name: rank_or_0, transforms: [{op: identity, run_at: cloud,
          parameters: {missing: 0}}]}
      - {ref: items:city, name: city_id, transforms: [{op: vocab, run_at: device_read,
          parameters: {asset: cities, unknown: 9, missing: 8}}]}
      - {ref: items:city, name: city_kept, transforms: [{op: vocab, run_at: device_ingest,
          parameters: {asset: cities, hash_buckets: 4}}]}
      - {ref: items:price, name: price_step, transforms: [
          {op: clip, run_at: cloud, parameters: {min: 0, max: 5}},
          {op: bucketize, run_at: device_read, parameters: {boundaries: [0.1, 1, 2.5]}}]}
      - {ref: shown:dwell_s, name: dwell_step, transforms: [
          {op: normalize, run_at: device_ingest, parameters: {mean: 3, stdev: 0.7}},
          {op: bucketize, run_at: device_read, parameters: {boundaries: [-1, 0, 1], missing: 7}}]}
      - {ref: shown:dwell_s, name: is_long, transforms: [
          {op: bucketize, run_at: device_ingest, parameters: {boundaries: [3.0], side: left}}]}
      - {ref: shown:word, transforms: [
          {op: hash, run_at: device_ingest, parameters: {buckets: 99}}]}
      - shown:number
      - shown:tags
"""
NUMBERS = """
feature_services:
  - name: numbers
    features:
      - {ref: items:scores, transforms: [{op: normalize, run_at: device_read,
          parameters: {mean: 0.5, stdev: 0.3, missing: -1}}]}
      - {ref: items:price, transforms: [{op: clip, run_at: cloud,
          parameters: {max: 4, missing: 0.25}}]}
      - {ref: items:city, name: city_vector, transforms: [
          {op: vocab, run_at: cloud, parameters: {asset: cities, unknown: 3}},
          {op: embed_lookup, run_at: device_read, parameters: {asset: vectors}}]}
      - {ref: shown:word, name: word_vector, transforms: [
          {op: hash, run_at: device_ingest, parameters: {buckets: 4}},
          {op: embed_lookup, run_at: device_ingest, parameters: {asset: vectors,
            out_of_range: row, row: 2}}]}
      - {ref: shown:dwell_s, transforms: [{op: identity, run_at: device_read,
          parameters: {missing: 0.0}}]}
"""
FIELDS = """
feature_services:
  - name: fields
    features: [items:city, items:rank, places:kind, shown:number]
"""


def model(name, first, width, dtype, padding):
    layers = (first, Dense("logit", 4, 1, "none"))
    spec = InputSpec("x", (width,), dtype, padding)
    return ModelSpec(name, layers, spec, (1,), "binary_cross_entropy", "auprc")


BAG = model("bag", HashedBag("bag", 700, 4), 20, "int32", -1)
NINE = model("nine", Dense("hidden", 10, 4, "relu"), 10, "float32", None)
FOUR = model("four", Embedding("fields", 300, 1, slots=4), 4, "int32", -1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Sources with gaps, and rows whose keys the cloud knows, knows in part, or not at all."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(3)

    def maybe(values):
        return [None if rng.random() < 0.25 else value for value in values]

    items = pa.table(
        {
            "item_id": pa.array(range(12), pa.int64()),
            "event_ts": [T0] * 12,
            "city": maybe(rng.choice(["Paris", "Rome", "Łódź", "Oslo", ""], 12).tolist()),
            "price": pa.array(maybe([*rng.normal(2, 2, 10), float("nan"), 1e-30]), pa.float32()),
            "rank": pa.array(maybe(range(-6, 6)), pa.int32()),
            "scores": pa.array(maybe(rng.normal(0, 1, (12, 2)).tolist()), pa.list_(pa.float64())),
        }
    )
    pairs = list(itertools.product(["n", "s"], ["a", "b"]))
    places = pa.table(
        {
            "zone": [zone for zone, _ in pairs],
            "street": [street for _, street in pairs],
            "event_ts": [T0] * 4,
            "kind": ["café", None, "shop", "café"],
            "open": [True, False, None, True],
        }
    )
    count = 90
    rows = pa.table(
        {
            "user": [f"u{number % 9}" for number in range(count)],
            "clicked": rng.integers(0, 2, count),
            "event_ts": [T0 + dt.timedelta(minutes=number) for number in range(count)],
            "item_id": pa.array(rng.integers(0, 15, count), pa.int64()),
            "zone": rng.choice(["n", "s", "w"], count).tolist(),
            "street": rng.choice(["a", "b"], count).tolist(),
            "dwell_s": pa.array(maybe(rng.gamma(2, 1.5, count)), pa.float32()),
            "word": maybe(rng.choice(["x", "y", "žluť", ""], count).tolist()),
            "number": pa.array(maybe([*range(count - 2), 2**62, -(2**62)]), pa.int64()),
            "tags": maybe(rng.choice(["p", "q", "r"], (count, 2)).tolist()),
        }
    )
    pq.write_table(items, folder / "items.parquet")
    pq.write_table(places, folder / "places.parquet")
    pq.write_table(rows, folder / "rows.parquet")
    return folder


@pytest.mark.parametrize(
    ("text", "service", "spec"),
    [(TOKENS, "tokens", BAG), (NUMBERS, "numbers", NINE), (FIELDS, "fields", FOUR)],
    ids=["tokens", "numbers", "fields"],
)
def test_a_device_joins_what_the_data_set_holds(
    engine, blobs, tables, tmp_path, text, service, spec
):
    defined = tmp_path / "features.yaml"
    digests = {
        "cities": blobs.put(CITIES.to_bytes()).hex(),
        "cities_bytes": len(CITIES.to_bytes()),
        "vectors": blobs.put(VECTORS.to_bytes()).hex(),
        "vectors_bytes": len(VECTORS.to_bytes()),
    }
    defined.write_text(DEFINITIONS.format(**digests) + text)
    registry = FeatureRegistry(engine)
    registry.apply(load_definitions([defined]))
    definitions = registry.state().definitions
    materialize(engine, definitions, [service], sources=Sources(tables))
    datasets = DatasetCatalog(engine, blobs)
    add_feature_dataset(
        datasets,
        blobs,
        OfflineFeatures(definitions, tables, engine, blob_assets(blobs)),
        tables / "rows.parquet",
        service,
        RowRoles("user", "clicked"),
        spec,
        seed=11,
    )
    dataset = datasets.open("rows")
    events = datasets.user_events(dataset)
    assert len(np.unique(dataset.train()[0], axis=0)) > len(dataset.train()[0]) // 2

    contracts = ServedContracts(engine)
    contract = contracts.find(service, contracts.newest(service))
    cloud_assets = CloudAssets(blobs)
    maker = ManifestMaker(lambda digest: True, cloud_assets.of)
    manifest = parse_manifest(maker.make(contract, DeviceProfile()).to_json().encode())
    assert not manifest.refusals
    assets = {
        name: (CITIES if each.type == "vocabulary" else VECTORS)
        for name, each in manifest.assets.items()
    }
    store = OnlineStore(engine)

    def fetch(view, version, keys):
        rows = feature_rows(contract, view, keys, store, cloud_assets.of(contract), now_s=FOREVER_S)
        return {
            key: FetchedRow(decode_row(row.values) if row.values else {})
            for key, row in zip(keys, rows, strict=True)
        }

    for number, client in enumerate(dataset.clients()):
        database = FeatureDatabase(tmp_path / client / "features.sqlite")
        views = cloud_views(manifest)
        cache = FeatureCache(database, "app", [view.cached() for view in views])
        sources = FeatureSources(
            manifest,
            LabelledEvents(database, manifest, assets),
            FeatureReader(cache, views, fetch, assets),
            assets,
            lambda: True,
        )
        first, count = dataset.train_first_rows[number], dataset.train_record_counts[number]
        activity = tmp_path / client / "activity.json"
        events.activity(int(first), int(count)).write(activity)
        assert replay(activity, sources.events) == count
        examples = JoinedExamples(sources, input_form(spec, 11))
        central = dataset.records(client)
        for joined in (examples.load(1000), examples.load(1000)):  # fetched, then from the cache
            for device, cloud in zip(joined, central, strict=True):
                assert (device.dtype, device.shape) == (cloud.dtype, cloud.shape)
                assert device.tobytes() == cloud.tobytes()
        database.close()
    store.close()


def test_definitions_of_this_test_have_every_transform():
    steps = json.dumps(TOKENS + NUMBERS)
    for op in ("identity", "hash", "vocab", "bucketize", "normalize", "clip", "embed_lookup"):
        assert f"op: {op}" in steps
