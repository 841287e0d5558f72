"""From a stored data set to what executors and evaluation read."""

import datetime as dt
import pickle
from dataclasses import replace

import numpy as np
import pytest

from feature_catalog.opened_dataset import (
    Dataset,
    DatasetRow,
    DatasetSource,
    ForeignDataset,
    check_dataset,
)
from feature_catalog.record_files import ClientIndex, write_records
from simulation.client_data import training_records
from tests.feature_catalog.models import BAG_MODEL, DENSE_MODEL

RECORDS = np.array([3, 1, 4, 2])  # of three training clients and a held-out one


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    labels = (np.arange(10) % 2).astype(np.uint8)
    write_records(
        tmp_path / "records.arrow",
        tmp_path / "scratch",
        iter([x]),
        place=np.arange(10),
        labels=labels,
        width=2,
        dtype=np.float32,
    )
    index = ClientIndex(
        ("a", "b", "c", "z"),
        np.cumsum(RECORDS) - RECORDS,
        RECORDS,
        np.zeros(4, np.int64),
        np.array([False, False, False, True]),
    )
    index.write(tmp_path / "clients.arrow")
    row = DatasetRow(
        "clicks", 2, DENSE_MODEL.name, 4, 3, 1, 10, 8, 2, 4, 2.5, 1.1, 0.5, 0, "clicks.csv",
        "clicks", "murmur3", 0, {}, dt.datetime.now(dt.UTC),
    )  # fmt: skip
    clients = (tmp_path / "clients.arrow").read_bytes()
    return DatasetSource(row, tmp_path / "records.arrow", clients).open()


def test_a_client_is_its_number_among_the_training_clients(dataset):
    records = training_records(dataset, DENSE_MODEL)
    assert len(records) == 3
    assert "z" in dataset.heldout_clients()
    for number, client in enumerate(dataset.clients()):
        for ours, theirs in zip(records.of(number), dataset.records(client), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert np.shares_memory(ours, theirs)


def test_the_newest_records_are_the_last_ones_oldest_first(dataset):
    x, y = training_records(dataset, DENSE_MODEL).of(2, newest=3)
    np.testing.assert_array_equal(x[:, 0], [10, 12, 14])
    np.testing.assert_array_equal(y[:, 0], [1, 0, 1])


def test_mapped_records_travel_as_a_path_and_others_whole(dataset):
    records = training_records(dataset, DENSE_MODEL)
    assert len(pickle.dumps(records)) < 2_000
    in_memory = replace(records, path=None)
    for sent in (records, in_memory):
        received = pickle.loads(pickle.dumps(sent))
        assert received.path == sent.path
        for number in range(3):
            for ours, theirs in zip(received.of(number), records.of(number), strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "model",
    [BAG_MODEL, replace(DENSE_MODEL, input=replace(DENSE_MODEL.input, shape=(3,)))],
    ids=["another model", "another width"],
)
@pytest.mark.parametrize("read", [training_records, check_dataset])
def test_a_data_set_of_another_model_is_refused(dataset, model, read):
    with pytest.raises(ForeignDataset, match=f"clicks@2 does not have the columns of {model.name}"):
        read(dataset, model)
