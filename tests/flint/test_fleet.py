"""Each identity of a local fleet holds the records of one client, and only those."""

import numpy as np
import pyarrow as pa
import pytest

from device_runtime.examples import SqliteExampleStore
from device_runtime.feature_tasks import ACTIVITY_FILE, FEATURES_FILE
from device_runtime.host import EXAMPLES_FILE
from device_runtime.user_activity import UserActivity
from feature_catalog.datasets import Dataset, DatasetCatalog
from feature_catalog.user_events import UserEvents
from flint.demo.data import generate_demo_data
from flint.fleet import TooFewClients, device_folder, fill_stores
from flint.fleet import _last_report as last_report
from flint.fleet import _shares as shares
from modeling.zoo import SPARSE_MLP

CLIENTS = 12


@pytest.fixture
def dataset(engine, blobs, tmp_path) -> Dataset:
    data = generate_demo_data(tmp_path / "data", training_clients=CLIENTS, seed=1)
    catalog = DatasetCatalog(engine, blobs)
    catalog.add(data.path, data.roles, SPARSE_MLP)
    return catalog.open("clicks")


@pytest.fixture
def folder(tmp_path):
    """Where the fleet lives; not there yet."""
    return tmp_path / "fleet"


def store(folder, number: int) -> SqliteExampleStore:
    return SqliteExampleStore(device_folder(folder, number) / EXAMPLES_FILE)


def test_identity_i_has_the_records_of_client_i(dataset, folder):
    told = []
    assert fill_stores(dataset, folder, None, told.append) == CLIENTS
    assert told == list(range(1, CLIENTS + 1))
    for number, client in enumerate(dataset.clients()):
        x, y = dataset.records(client)
        held_x, held_y = store(folder, number).load(10_000)
        assert np.array_equal(held_x, x)
        assert np.array_equal(held_y, y)


def test_no_identity_has_a_held_out_clients_records(dataset, folder):
    fill_stores(dataset, folder, None, lambda _: None)
    assert len(list(folder.iterdir())) == CLIENTS
    held = sum(store(folder, number).count() for number in range(CLIENTS))
    assert held == len(dataset.train()[0])


def test_filling_again_changes_nothing(dataset, folder):
    fill_stores(dataset, folder, 5, lambda _: None)
    before = [store(folder, number).count() for number in range(5)]
    assert fill_stores(dataset, folder, 5, lambda _: None) == 5
    assert [store(folder, number).count() for number in range(5)] == before
    assert len(list(folder.iterdir())) == 5


def test_more_devices_than_clients_is_refused(dataset, folder):
    with pytest.raises(TooFewClients, match=r"13 devices .* 12 training clients"):
        fill_stores(dataset, folder, CLIENTS + 1, lambda _: None)
    assert not folder.exists()


def test_identities_of_joined_features_get_what_their_users_did_and_no_records(dataset, folder):
    rows = pa.table(
        {
            "key/ad_id": [f"ad-{number % 7}" for number in range(dataset.row.train_records)],
            "event/shown/hour": [number % 24 for number in range(dataset.row.train_records)],
            "at_ms": range(dataset.row.train_records),
            "label": dataset.train()[1].ravel(),
        }
    )
    events = UserEvents("ads", rows)
    assert fill_stores(dataset, folder, None, lambda _: None, events) == CLIENTS
    at_ms = []
    for number, client in enumerate(dataset.clients()):
        home = device_folder(folder, number)
        assert [file.name for file in home.iterdir()] == [ACTIVITY_FILE]
        activity = UserActivity.read(home / ACTIVITY_FILE)
        labels = [event.label for event in activity.events]
        assert labels == dataset.records(client)[1].ravel().tolist()
        at_ms += [event.at_ms for event in activity.events]
    assert at_ms == list(range(dataset.row.train_records))
    # What has been replayed is not done again.
    replayed = device_folder(folder, 0)
    (replayed / ACTIVITY_FILE).unlink()
    (replayed / FEATURES_FILE).touch()
    fill_stores(dataset, folder, None, lambda _: None, events)
    assert not (replayed / ACTIVITY_FILE).exists()


@pytest.mark.parametrize("count", [1, 2, 7, 200, 4_522])
@pytest.mark.parametrize("processes", [1, 2, 3, 16])
def test_processes_share_all_identities_evenly(count, processes):
    parts = shares(count, processes)
    assert [n for first, size in parts for n in range(first, first + size)] == list(range(count))
    sizes = [size for _, size in parts]
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == min(count, processes)


def test_a_report_being_written_does_not_hide_the_one_before(tmp_path):
    path = tmp_path / "fleet-0.jsonl"
    assert last_report(path) == {}
    path.write_text('{"finished_tasks": 1}\n{"finished_tasks": 2}\n{"finished_ta')
    assert last_report(path) == {"finished_tasks": 2}
