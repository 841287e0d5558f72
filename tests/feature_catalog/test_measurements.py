"""Measurements: kept with their raw result, once, and the newest valid one a device model found."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.measurements import Measurement, Measurements

pytestmark = pytest.mark.integration

MEASURED = Measurement(
    model="tiny_mlp",
    model_sha256=b"m" * 32,
    task="train",
    device_id="serial-1",
    device_model="Pixel 6",
    backend="adb",
    emulated=False,
    timing_valid=True,
    ok=True,
    reasons=(),
    records=5000,
    batch_size=20,
    repeats=2,
    os_version="Android 14",
    os_release="2023-10",
    cores=8,
    device_memory_mb=8000.0,
    pass_s=(4.0, 6.0),
    pass_s_mean=5.0,
    pass_s_stdev=1.4142135623730951,
    memory_mb=7.5,
    cpu_percent=99.0,
    storage_mb=0.057,
    network_mb=0.012,
)
FAILED = replace(
    MEASURED,
    ok=False,
    reasons=("it hung",),
    repeats=0,
    pass_s=(),
    pass_s_mean=None,
    pass_s_stdev=None,
    memory_mb=None,
)


@pytest.fixture
def measurements(engine: Engine, blobs: BlobStore) -> Measurements:
    return Measurements(engine, blobs)


def test_a_measurement_is_kept_with_its_raw_result(measurements: Measurements):
    row = measurements.add(MEASURED, b"raw")
    assert row.measurement == MEASURED
    assert row.measurement.per_example_s == 0.001
    assert row.measurement.per_example_samples_s == (0.0008, 0.0012)
    assert measurements.list() == (row,)
    assert measurements.raw(row) == b"raw"


def test_the_same_raw_result_is_the_row_there_is(measurements: Measurements):
    row = measurements.add(MEASURED, b"raw")
    assert measurements.add(replace(MEASURED, model="other"), b"raw") == row
    assert measurements.list() == (row,)


def test_a_failed_benchmark_is_kept_with_its_reason_and_no_figure(measurements: Measurements):
    row = measurements.add(FAILED, b"raw")
    assert row.measurement == FAILED
    assert row.measurement.per_example_s is None
    assert measurements.latest_by_device_model("tiny_mlp") == {}


def test_measurements_are_listed_by_model_and_task(measurements: Measurements):
    train = measurements.add(MEASURED, b"1")
    infer = measurements.add(replace(MEASURED, task="infer"), b"2")
    other = measurements.add(replace(MEASURED, model="other"), b"3")
    assert measurements.list(model="tiny_mlp") == (train, infer)
    assert measurements.list(task="infer") == (infer,)
    assert measurements.list(model="other", task="train") == (other,)


def test_the_newest_valid_measurement_of_each_device_model_counts(measurements: Measurements):
    measurements.add(MEASURED, b"old")
    newest = measurements.add(replace(MEASURED, pass_s_mean=4.0), b"new")
    measurements.add(FAILED, b"failed since")
    measurements.add(replace(MEASURED, timing_valid=False), b"qemu")
    measurements.add(replace(MEASURED, emulated=True), b"emulated since")
    emulated = measurements.add(
        replace(MEASURED, device_model="emulated-01", emulated=True), b"emulated"
    )
    found = measurements.latest_by_device_model("tiny_mlp")
    assert found == {"Pixel 6": newest, "emulated-01": emulated}
    assert list(found) == ["Pixel 6", "emulated-01"]
    assert measurements.latest_by_device_model("tiny_mlp", emulated=False) == {"Pixel 6": newest}
    assert measurements.latest_by_device_model("tiny_mlp", "infer") == {}
    assert measurements.latest_by_device_model("tiny_mlp", model_sha256=b"x" * 32) == {}
