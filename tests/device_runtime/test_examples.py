import sqlite3

import numpy as np
import pytest

from device_runtime.examples import SqliteExampleStore, UnreadableExamples
from modeling.zoo import get_model
from tests.device_runtime.records import draw_records


@pytest.mark.parametrize("model", ["tiny_mlp", "sparse_mlp"])
def test_records_come_back_as_they_were_filled(tmp_path, model):
    x, y = draw_records(get_model(model), 30)
    store = SqliteExampleStore(tmp_path / "a folder" / "examples.sqlite")
    store.fill(x, y)
    again_x, again_y = SqliteExampleStore(tmp_path / "a folder" / "examples.sqlite").load(100)
    np.testing.assert_array_equal(again_x, x)
    np.testing.assert_array_equal(again_y, y)
    assert (again_x.dtype, again_y.dtype) == (x.dtype, y.dtype)
    assert store.count() == 30


def test_the_newest_records_are_loaded_oldest_first(tmp_path, tiny):
    x, y = draw_records(tiny, 30)
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    store.fill(x[:25], y[:25])
    store.append(x[25:], y[25:])
    np.testing.assert_array_equal(store.load(10)[0], x[20:])


def test_filling_again_replaces(tmp_path, tiny):
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    store.fill(*draw_records(tiny, 30))
    store.fill(np.zeros((2, 3), np.int32), np.zeros((2, 1), np.float32))
    assert store.load(10)[0].shape == (2, 3)


def test_a_file_that_is_not_there_holds_no_records_and_is_not_made(tmp_path):
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    assert store.count() == 0
    assert not (tmp_path / "examples.sqlite").exists()


def test_only_the_owner_may_read_the_records(tmp_path, tiny):
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    store.fill(*draw_records(tiny, 3))
    assert (tmp_path / "examples.sqlite").stat().st_mode & 0o777 == 0o600


def test_records_of_another_form_are_not_appended(tmp_path, tiny):
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    store.fill(*draw_records(tiny, 3))
    with pytest.raises(UnreadableExamples, match="FLN-1404"):
        store.append(np.zeros((2, 3), np.int32), np.zeros((2, 1), np.float32))
    assert store.count() == 3


def test_a_store_of_a_later_schema_is_refused(tmp_path, tiny):
    path = tmp_path / "examples.sqlite"
    SqliteExampleStore(path).fill(*draw_records(tiny, 3))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UnreadableExamples, match="schema 99"):
        SqliteExampleStore(path).load(1)


@pytest.mark.parametrize("damage", ["not a database", "torn record", "wrong form"])
def test_a_damaged_store_says_so(tmp_path, tiny, damage):
    path = tmp_path / "examples.sqlite"
    SqliteExampleStore(path).fill(*draw_records(tiny, 3))
    if damage == "not a database":
        path.write_bytes(b"something else" * 100)
    else:
        with sqlite3.connect(path) as database:
            database.execute(
                "UPDATE examples SET x = x'00' WHERE id = 2"
                if damage == "torn record"
                else "UPDATE form SET dtype = 'no dtype'"
            )
        database.close()
    with pytest.raises(UnreadableExamples, match="FLN-1404"):
        SqliteExampleStore(path).load(10)
