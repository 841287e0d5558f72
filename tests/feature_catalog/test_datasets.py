"""Data sets: every record once, on its client's side of the split, encoded as documented."""

import csv
import hashlib
import itertools
import multiprocessing
import re
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from device_runtime.hashing import encode_bag
from feature_catalog.blobs import BlobStore, CorruptBlob
from feature_catalog.clients_and_labels import InvalidClient, InvalidLabel
from feature_catalog.datasets import (
    DatasetCatalog,
    DatasetSource,
    InvalidDatasetName,
    InvalidHashSeed,
    UnknownDataset,
)
from feature_catalog.featurize import FieldRoles
from feature_catalog.splits import SingleClass, TooFewClients
from feature_catalog.table_files import MissingColumn
from modeling.zoo import get_model
from tests.feature_catalog.models import BAG_MODEL, DENSE_MODEL

pytestmark = pytest.mark.integration

ROLES = FieldRoles("user", "clicked", text_field="text", exclude_fields=("secret",))


@pytest.fixture
def catalog(engine: Engine, blobs: BlobStore) -> DatasetCatalog:
    return DatasetCatalog(engine, blobs)


def is_heldout(set_name: str, client: str) -> bool:
    """The rule, in its own words."""
    digest = hashlib.sha256(f"flint-dev-v1|{set_name}:{client}".encode()).hexdigest()
    return int(digest[:12], 16) % 5 == 0


def messages(rows: int = 400, clients: int = 40) -> dict[str, list[Any]]:
    """Messages of clients in no order, of which some have many and some have few."""
    generator = np.random.default_rng(1)
    user = (clients * generator.random(rows) ** 2).astype(int)
    return {
        "user": user.tolist(),
        "clicked": (generator.random(rows) < 0.3).astype(int).tolist(),
        "text": [f"Word{n % 7} and word{n % 3}" for n in range(rows)],
        "place": [f"p{n % 5}" for n in range(rows)],
        "secret": generator.random(rows).tolist(),
    }


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def expected_records(columns: dict[str, list[Any]], client: int) -> tuple[list[Any], list[Any]]:
    x, y = [], []
    for row, user in enumerate(columns["user"]):
        if user == client:
            words = re.findall(r"\w+", columns["text"][row].lower())
            pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
            tokens = [f"place={columns['place'][row]}", *words, *pairs]
            x.append(encode_bag(tokens, 128, seed=9, max_ids=8).tolist())
            y.append([columns["clicked"][row]])
    return x, y


def test_every_client_has_its_records_in_file_order(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    columns = messages()
    row = catalog.add(write(tmp_path / "ads.parquet", columns), ROLES, BAG_MODEL, seed=9)
    dataset = catalog.open("ads")

    everyone = sorted({str(user) for user in columns["user"]})
    assert dataset.clients() == [c for c in everyone if not is_heldout("ads", c)]
    assert dataset.heldout_clients() == [c for c in everyone if is_heldout("ads", c)]
    for client in everyone:
        x, y = dataset.records(client)
        expected_x, expected_y = expected_records(columns, int(client))
        assert x.tolist() == expected_x
        assert y.tolist() == expected_y
        assert (x.dtype, y.dtype) == (np.int32, np.float32)
    with pytest.raises(KeyError):
        dataset.records("nobody")
    assert (row.name, row.version, row.hash_name, row.hash_seed) == ("ads", 1, "murmur3_32", 9)


def test_train_and_heldout_are_their_clients_records_together(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    catalog.add(write(tmp_path / "ads.parquet", messages()), ROLES, BAG_MODEL)
    dataset = catalog.open("ads@1")
    for clients, (x, y) in (
        (dataset.clients(), dataset.train()),
        (dataset.heldout_clients(), dataset.heldout()),
    ):
        assert x.tolist() == np.concatenate([dataset.records(c)[0] for c in clients]).tolist()
        assert y.tolist() == np.concatenate([dataset.records(c)[1] for c in clients]).tolist()
        assert not x.flags.writeable


def test_statistics_are_those_of_table_2(catalog: DatasetCatalog, tmp_path: Path) -> None:
    columns = messages()
    row = catalog.add(write(tmp_path / "ads.parquet", columns), ROLES, BAG_MODEL)
    users, counts = np.unique(columns["user"], return_counts=True)
    held = [int(n) for u, n in zip(users, counts, strict=True) if is_heldout("ads", str(u))]
    assert (row.clients, row.heldout_clients) == (len(users), len(held))
    assert (row.records, row.heldout_records) == (400, sum(held))
    assert row.max_records == counts.max()
    assert row.mean_records == pytest.approx(counts.mean())
    assert row.std_records == pytest.approx(counts.std())
    assert row.label_ratio == pytest.approx(np.mean(columns["clicked"]))


def test_csv_and_parquet_of_the_same_rows_are_the_same_data_set(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    columns = messages()
    first = catalog.add(write(tmp_path / "ads.parquet", columns), ROLES, BAG_MODEL)
    with (tmp_path / "ads.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    assert catalog.add(tmp_path / "ads.csv", ROLES, BAG_MODEL) == first


def test_the_same_file_again_is_the_same_version_and_another_way_a_new_one(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    path = write(tmp_path / "ads.parquet", messages())
    assert catalog.add(path, ROLES, BAG_MODEL).version == 1
    assert catalog.add(path, ROLES, BAG_MODEL).version == 1
    assert catalog.add(path, ROLES, BAG_MODEL, seed=1).version == 2
    assert catalog.add(path, ROLES, BAG_MODEL, name="other").version == 1
    assert [(row.name, row.version) for row in catalog.list()] == [
        ("ads", 1),
        ("ads", 2),
        ("other", 1),
    ]
    assert catalog.open("ads").row == catalog.get("ads@2")


def test_versions_added_at_once_are_numbered_without_gaps(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    path = write(tmp_path / "ads.parquet", messages(100, 12))
    threads = [
        threading.Thread(target=catalog.add, args=(path, ROLES, BAG_MODEL), kwargs={"seed": seed})
        for seed in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.version for row in catalog.list()] == [1, 2, 3, 4, 5, 6]


def test_dense_records_are_the_standardised_columns(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    generator = np.random.default_rng(2)
    columns = {
        "user": [f"u{n % 20}" for n in range(200)],
        "clicked": [bool(n % 3 == 0) for n in range(200)],
        "a": generator.normal(5, 3, 200).astype(np.float32),
        "b": generator.integers(0, 100, 200),
    }
    catalog.add(
        write(tmp_path / "dense.parquet", columns), FieldRoles("user", "clicked"), DENSE_MODEL
    )
    x, y = catalog.open("dense").train()
    assert x.dtype == np.float32
    assert y.shape == (len(x), 1)
    assert x.mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert x.std(axis=0) == pytest.approx([1, 1], abs=1e-5)


def test_columns_left_out_are_named_with_the_reason(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    columns = messages(3000, 40) | {"id": [f"id {n}" for n in range(3000)]}
    row = catalog.add(write(tmp_path / "ads.parquet", columns), ROLES, BAG_MODEL)
    assert list(row.left_out) == ["id"]


def test_records_in_an_object_store_are_the_same(engine: Engine, tmp_path: Path) -> None:
    path = write(tmp_path / "ads.parquet", messages())
    remote = DatasetCatalog(engine, BlobStore("memory://datasets"))
    remote.add(path, ROLES, BAG_MODEL, seed=9)
    x, _ = remote.open("ads").records("0")
    assert x.tolist() == expected_records(messages(), 0)[0]


def test_counts_and_first_rows_cut_train_into_its_clients(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    catalog.add(write(tmp_path / "ads.parquet", messages()), ROLES, BAG_MODEL)
    dataset = catalog.open("ads")
    x, y = dataset.train()
    assert dataset.train_record_counts.sum() == len(x)
    cuts = zip(
        dataset.clients(), dataset.train_first_rows, dataset.train_record_counts, strict=True
    )
    for client, first, count in cuts:
        own_x, own_y = dataset.records(client)
        assert np.array_equal(x[first : first + count], own_x)
        assert np.array_equal(y[first : first + count], own_y)


@pytest.mark.parametrize("is_local", [True, False])
def test_another_process_opens_the_same_records(
    engine: Engine, blobs: BlobStore, tmp_path: Path, is_local: bool
) -> None:
    catalog = DatasetCatalog(engine, blobs if is_local else BlobStore("memory://shared-records"))
    catalog.add(write(tmp_path / "ads.parquet", messages()), ROLES, BAG_MODEL)
    dataset = catalog.open("ads")
    assert isinstance(dataset.source.records, Path) is is_local
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(_digests, dataset.source).result()
    assert there == _digests(dataset.source)
    assert there[0] == hashlib.sha256(dataset.train()[0].tobytes()).hexdigest()


def _digests(source: DatasetSource) -> list[str]:
    dataset = source.open()
    arrays = [*dataset.train(), *dataset.heldout(), dataset.train_record_counts]
    return [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]


def test_damaged_records_are_noticed_when_opened(catalog: DatasetCatalog, tmp_path: Path) -> None:
    catalog.add(write(tmp_path / "ads.parquet", messages()), ROLES, BAG_MODEL)
    largest = max((tmp_path / "blobs").rglob("*"), key=lambda p: p.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    with pytest.raises(CorruptBlob):
        catalog.open("ads")


def _labels(*labels: Any) -> dict[str, Any]:
    return {"user": list(range(len(labels))), "clicked": list(labels), "f": ["a"] * len(labels)}


@pytest.mark.parametrize(
    ("columns", "error", "sentence"),
    [
        (_labels(0, 1, 2), InvalidLabel, "row 2 has the label 2 in 'clicked'"),
        (_labels(0, 1, None), InvalidLabel, "row 2 has no label"),
        (_labels(0.0, 0.5), InvalidLabel, r"the label 0\.5"),
        (_labels(0.0, float("nan")), InvalidLabel, "the label nan"),
        (_labels("yes", "no"), InvalidLabel, "holds string"),
        (_labels(0, 1) | {"user": [1, None]}, InvalidClient, "row 1 has no 'user'"),
        (_labels(0, 1) | {"user": [1.5, 2.0]}, InvalidClient, "holds double"),
        (_labels(0, 1) | {"user": [1, 1]}, TooFewClients, "only one client"),
        (_labels(0, 0, 0, 0, 0), SingleClass, "labelled 0"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused(
    catalog: DatasetCatalog,
    tmp_path: Path,
    columns: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    path = write(tmp_path / "bad.parquet", columns)
    with pytest.raises(error, match=sentence):
        catalog.add(path, FieldRoles("user", "clicked"), BAG_MODEL)
    assert catalog.list() == ()


def test_a_wrong_name_is_refused_with_what_there_is(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    path = write(tmp_path / "ads.parquet", messages())
    with pytest.raises(UnknownDataset, match="'ads'; there are none yet"):
        catalog.open("ads")
    with pytest.raises(MissingColumn, match="did you mean user"):
        catalog.add(path, FieldRoles("usr", "clicked"), BAG_MODEL)
    with pytest.raises(InvalidDatasetName, match="'a@b'"):
        catalog.add(path, ROLES, BAG_MODEL, name="a@b")
    with pytest.raises(InvalidHashSeed, match="-1"):
        catalog.add(path, ROLES, BAG_MODEL, seed=-1)
    catalog.add(path, ROLES, BAG_MODEL)
    with pytest.raises(UnknownDataset, match=r"did you mean ads\?"):
        catalog.open("adds")
    with pytest.raises(UnknownDataset, match="the versions of ads are 1 to 1"):
        catalog.open("ads@2")


def test_fifty_thousand_messages_are_ready_within_seconds(
    catalog: DatasetCatalog, tmp_path: Path
) -> None:
    generator = np.random.default_rng(3)
    words = np.array([f"w{n}" for n in range(5000)])
    columns = {
        "user": generator.zipf(1.5, 50_000) % 5000,
        "clicked": generator.integers(0, 2, 50_000),
        "text": [" ".join(row) for row in words[generator.integers(0, 5000, (50_000, 12))]],
    }
    path = write(tmp_path / "many.parquet", columns)
    started_s = time.monotonic()
    row = catalog.add(path, FieldRoles("user", "clicked", "text"), get_model("sparse_mlp"))
    assert time.monotonic() - started_s < 15  # about 2 on two idle cores
    assert row.records == 50_000
