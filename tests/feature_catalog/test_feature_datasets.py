"""Data sets of a feature service: joined, encoded as devices encode, and tied to its contract."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.columns import Column
from device_runtime.feature_inputs import UnsuitableFeatures
from device_runtime.hashing import encode_bag, hash_bucket
from device_runtime.transforms import Hash
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.definitions.files import load_definitions
from feature_catalog.feature_datasets import RowRoles, add_feature_dataset, contract_sha256
from feature_catalog.feature_fit import ForeignFeatures, check_same_features
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.offline import OfflineFeatures, blob_assets
from feature_catalog.offline.errors import MissingEntityColumn
from feature_catalog.recorded_events import UnsuitableRows
from flint.demo.click_features import (
    ROLES,
    SERVICE,
    ClickFeatures,
    write_click_features,
)
from modeling.zoo import SPARSE_MLP, TINY_MLP

pytestmark = pytest.mark.integration

BOUNDARIES = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6]
PARTS = [4, 8, 12, 16, 20]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ClickFeatures:
    return write_click_features(tmp_path_factory.mktemp("clicks"), training_clients=12, seed=4)


@pytest.fixture
def catalog(engine, blobs) -> DatasetCatalog:
    return DatasetCatalog(engine, blobs)


@pytest.fixture
def add(catalog, blobs, files):
    def add(path=None, definitions=None, model=SPARSE_MLP, roles=ROLES, **more):
        known = load_definitions([definitions or files.definitions])
        blobs.put(files.vocabulary.read_bytes())
        offline = OfflineFeatures(known, files.data_folder, assets=blob_assets(blobs))
        service = more.pop("service", SERVICE)
        return add_feature_dataset(
            catalog, blobs, offline, path or files.rows, service, roles, model, **more
        )

    return add


def expected_bag(row, ad, publishers):
    """The features of one row, said without any of the code that joins or assembles them."""
    tokens = []
    ctr = None if ad is None else int(np.searchsorted(BOUNDARIES, ad["ctr_28d"], side="right"))
    handset = Hash(8).apply(Column.of([row["handset"]]), {}).to_list()[0]
    known = row["publisher"] in publishers
    publisher = len(publishers) + hash_bucket(row["publisher"], 8, 0)
    publisher = publishers.index(row["publisher"]) if known else publisher
    part = sum(hour <= row["hour"] for hour in PARTS)
    for name, value in (
        ("ctr_28d", ctr),
        ("handset", handset),
        ("part_of_day", part),
        ("position", row["position"]),
        ("publisher", publisher),
        ("topic", None if ad is None else ad["topic"]),
    ):
        if value is not None:
            tokens.append(f"{name}={value}")
    tokens += [f"interests={interest}" for interest in row["interests"]]
    return encode_bag(tokens, 1024, 0)


def test_each_record_is_its_row_joined_with_what_the_cloud_knew_then(add, catalog, files):
    made = add()
    dataset = catalog.open(f"{made.row.name}@{made.row.version}")
    rows = pq.read_table(files.rows).to_pylist()
    ads = {ad["ad_id"]: ad for ad in pq.read_table(files.data_folder / "ads.parquet").to_pylist()}
    publishers = files.vocabulary.read_text().splitlines()
    assert any(row["publisher"] not in publishers for row in rows)
    for client in [*dataset.clients(), *dataset.heldout_clients()]:
        x, y = dataset.records(client)
        own = [row for row in rows if row["user_id"] == client]
        assert x.tolist() == [
            expected_bag(row, ads[row["ad_id"]], publishers).tolist() for row in own
        ]
        assert y.ravel().tolist() == [row["clicked"] for row in own]
    assert {f.name: f.present for f in made.features}["ctr_28d"] == len(rows)


def test_a_row_before_the_cloud_knew_its_key_has_no_token_of_it(add, catalog, files, tmp_path):
    rows = pq.read_table(files.rows)
    early = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * len(rows)
    path = tmp_path / "early.parquet"
    pq.write_table(rows.set_column(rows.schema.get_field_index("ts"), "ts", [early]), path)
    made = add(path)
    dataset = catalog.open("early")
    client = dataset.clients()[0]
    own = [row for row in rows.to_pylist() if row["user_id"] == client]
    publishers = files.vocabulary.read_text().splitlines()
    expected = [expected_bag(row, None, publishers).tolist() for row in own]
    assert dataset.records(client)[0].tolist() == expected
    assert {f.name: f.not_found for f in made.features}["topic"] == len(rows)


def test_a_data_set_is_tied_to_the_contract_it_was_made_under(add, catalog, files, tmp_path):
    first = add().row
    contract = contract_sha256(load_definitions([files.definitions]), SERVICE)
    assert (first.feature_service, first.feature_contract_sha256) == (SERVICE, contract)
    assert add().row == first
    # A policy of the device changes no value, but the contract, and so the data set's version.
    changed = tmp_path / "features.yaml"
    changed.write_text(files.definitions.read_text().replace("max_age: 7d", "max_age: 6d"))
    second = add(definitions=changed).row
    assert second.version == 2
    check_same_features(second, f"{SERVICE}@{second.feature_contract_sha256}")
    with pytest.raises(ForeignFeatures, match=r"clicks@2 was made under .* and the job's is"):
        check_same_features(second, f"{SERVICE}@{contract}")
    with pytest.raises(ForeignFeatures, match="the job names no service"):
        check_same_features(second, None)
    plain = replace(second, feature_service=None, feature_contract_sha256=None)
    check_same_features(plain, None)
    with pytest.raises(ForeignFeatures, match="made without a feature service"):
        check_same_features(plain, f"{SERVICE}@{contract}")


def test_what_users_did_is_kept_as_it_was_before_any_transform(add, catalog, files):
    add()
    dataset = catalog.open("clicks")
    events = catalog.user_events(dataset)
    rows = pq.read_table(files.rows).to_pylist()
    for number, client in enumerate(dataset.clients()):
        first, count = dataset.train_first_rows[number], dataset.train_record_counts[number]
        activity = events.activity(int(first), int(count))
        own = [row for row in rows if row["user_id"] == client]
        assert [e.keys for e in activity.events] == [{"ad_id": row["ad_id"]} for row in own]
        fields = ("publisher", "position", "hour", "handset", "interests")
        assert [e.events for e in activity.events] == [
            {"impressions": {name: row[name] for name in fields}} for row in own
        ]
        assert [e.label for e in activity.events] == [row["clicked"] for row in own]
        assert [e.at_ms for e in activity.events] == [
            int(row["ts"].timestamp() * 1000) for row in own
        ]
    assert len(events.table) == dataset.row.train_records  # of nobody who is held out


def test_a_model_that_cannot_read_the_features_is_refused_and_nothing_is_stored(add, catalog):
    with pytest.raises(UnsuitableFeatures, match="feature ctr_28d may be missing"):
        add(model=TINY_MLP)
    with pytest.raises(UnknownDefinition, match=r"'click_feature' \(did you mean"):
        add(service="click_feature")
    assert catalog.list() == ()


def test_rows_without_a_join_key_are_refused(add, files, tmp_path):
    rows = pq.read_table(files.rows)
    keys = rows["ad_id"].to_pylist()
    keys[3] = None
    path = tmp_path / "keyless.parquet"
    pq.write_table(rows.set_column(1, "ad_id", pa.array(keys)), path)
    with pytest.raises(UnsuitableRows, match="1 of the rows have no ad_id, which ads is joined by"):
        add(path)


def test_a_moment_column_that_is_not_there_is_named(add):
    with pytest.raises(MissingEntityColumn, match="no column event_ts"):
        add(roles=RowRoles("user_id", "clicked"))
