"""Devices are counted, not rows."""

import numpy as np
import pyarrow as pa
import pytest

from feature_catalog.table_files import MissingColumn
from simulation.fitting.device_log import DeviceCounts, InvalidDeviceLog, count_devices


def test_a_device_counts_once_however_many_sessions_it_has(write_table):
    path = write_table(device_id=[1, 1, 1, 2, 3], device_model=["x", "x", "x", "y", "y"])
    found = count_devices([path], device_column="device_id")
    assert found == DeviceCounts({"x": 1, "y": 2}, 0, 0, rows=5, without_device=0)


def test_a_device_of_several_models_counts_under_its_most_frequent(write_table):
    path = write_table(
        "log.csv", phone=["a", "a", "a", "b", "b"], kind=["old", "new", "new", "z", "y"]
    )
    found = count_devices([path], device_column="phone", model_column="kind")
    assert found.devices_by_model == {"new": 1, "y": 1}
    assert found.with_several_models == 2


def test_a_device_in_two_logs_is_one_device(write_table):
    first = write_table("a.parquet", device_id=["a", "b"], device_model=["x", "y"])
    second = write_table("b.parquet", device_id=["b", "c"], device_model=["y", "y"])
    found = count_devices([first, second], device_column="device_id")
    assert found.devices_by_model == {"x": 1, "y": 2}


def test_what_the_log_does_not_say_is_counted(write_table):
    path = write_table(
        device_id=["a", "a", "b", None, "", "c"], device_model=[None, " x ", "", "x", "x", None]
    )
    found = count_devices([path], device_column="device_id")
    assert found.devices_by_model == {"x": 1}
    assert (found.devices, found.without_model, found.without_device) == (3, 2, 2)


def test_many_rows_in_batches_are_what_numpy_counts(write_table):
    draw = np.random.default_rng(0)
    device = draw.integers(0, 5000, size=200_000)
    path = write_table(device_id=device, device_model=pa.array([f"m{d % 7}" for d in device]))
    found = count_devices([path], device_column="device_id")
    expected = np.bincount(np.unique(device) % 7)
    assert list(found.devices_by_model.values()) == expected.tolist()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"device_id": [None, None], "device_model": ["x", "y"]}, "--device-column"),
        ({"device_id": [1, 2], "device_model": [None, ""]}, "--model-column"),
        ({"device_id": [1.5, 2.5], "device_model": ["x", "y"]}, "holds double, not names"),
    ],
)
def test_a_log_that_names_no_devices_or_models_is_refused(write_table, columns, said):
    with pytest.raises(InvalidDeviceLog, match=said):
        count_devices([write_table(**columns)], device_column="device_id")
    with pytest.raises(MissingColumn):
        count_devices([write_table(**columns)], device_column="phone")
