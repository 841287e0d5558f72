"""A job keeps the measurements that decide which devices it admits; without any it is refused."""

import io
import json
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.jobs import JobQueue
from feature_catalog.measurements import Measurement, Measurements
from flint.job_view import describe, render
from flint.measured_devices import (
    NoDeviceMeasurements,
    NoDeviceModelPasses,
    measured_memory_mb,
    with_measured_devices,
)
from server.device_criteria import DeviceRefusal
from server.job import Job
from tests.server.update_examples import MODEL, make_job

pytestmark = pytest.mark.integration

PIXEL = Measurement(
    model=MODEL.name,
    model_sha256=b"m" * 32,
    task="train",
    device_id="serial-1",
    device_model="Pixel 9",
    backend="adb",
    emulated=False,
    timing_valid=True,
    ok=True,
    reasons=(),
    records=1000,
    batch_size=20,
    repeats=1,
    os_version="Android 16",
    os_release="2025-06",
    cores=8,
    device_memory_mb=8000.0,
    pass_s=(2.0,),
    pass_s_mean=2.0,
    memory_mb=40.0,
)


@pytest.fixture
def measurements(engine: Engine, blobs: BlobStore) -> Measurements:
    return Measurements(engine, blobs)


def add(measurements: Measurements, **changes) -> None:
    measured = replace(PIXEL, **changes)
    raw = json.dumps([measured.device_model, len(measurements.list())])
    measurements.add(measured, raw.encode())


def limited(**criteria) -> Job:
    return make_job(participation={"device": criteria})


def frozen(job: Job, measurements: Measurements) -> tuple[Job, list[str]]:
    notes: list[str] = []
    return with_measured_devices(job, measurements, notes.append), notes


def test_seconds_are_those_of_5000_records_and_later_measurements_change_nothing(measurements):
    add(measurements)
    add(measurements, device_model="Moto E", pass_s_mean=40.0)
    job, notes = frozen(limited(max_train_s=120), measurements)
    device = job.participation.device
    assert {name: m.train_s for name, m in device.measured.items()} == {
        "Moto E": 200.0,
        "Pixel 9": 10.0,
    }
    assert device.admitted_models == ("Pixel 9",)
    assert notes == ["participation.device admits 1 of 2 measured device models"]
    add(measurements, pass_s_mean=4000.0)
    kept = Job.model_validate_json(job.to_json()).participation.device
    assert kept.refusal("Pixel 9", None) is None
    assert kept.refusal("Moto E", None) is DeviceRefusal.TRAINS_TOO_LONG


@pytest.mark.parametrize(
    "useless",
    [
        {"ok": False, "pass_s_mean": None, "reasons": ("it hung",)},
        {"timing_valid": False},
        {"model": "another"},
        {"task": "infer"},
    ],
)
def test_a_measurement_that_tells_nothing_admits_nobody(measurements, useless):
    add(measurements, **useless)
    with pytest.raises(NoDeviceMeasurements) as refused:
        frozen(limited(max_train_s=120), measurements)
    assert f"run `flint bench run --model {MODEL.name}`" in str(refused.value)


def test_a_limit_on_memory_needs_measured_memory(measurements):
    add(measurements, memory_mb=None)
    assert frozen(limited(max_train_s=120), measurements)[0].participation.device.measured
    with pytest.raises(NoDeviceMeasurements, match="asks for max_memory_mb"):
        frozen(limited(max_memory_mb=50), measurements)
    assert measured_memory_mb(measurements, MODEL.name) == {}
    add(measurements)
    assert measured_memory_mb(measurements, MODEL.name) == {"Pixel 9": 40.0}


def test_limits_that_no_measured_model_keeps_to_are_refused(measurements):
    add(measurements)
    with pytest.raises(NoDeviceModelPasses, match=r"fastest, Pixel 9, takes 10 s .* 40\.0 MB"):
        frozen(limited(max_memory_mb=39), measurements)


def test_a_job_that_asks_for_no_measurements_needs_none(measurements):
    for job in (make_job(), limited(min_os_release="2019-09")):
        assert frozen(job, measurements) == (job, [])


def test_emulated_and_other_batches_are_said(measurements):
    add(measurements, emulated=True, batch_size=1)
    _, notes = frozen(limited(max_train_s=120), measurements)
    assert "1 of them measured on an emulated device only" in notes[0]
    assert "batch size 1, not 20" in notes[0]


def test_a_job_is_shown_with_the_devices_it_admits(engine, measurements):
    add(measurements)
    add(measurements, device_model="Moto E", pass_s_mean=40.0)
    job, _ = frozen(limited(max_train_s=120, min_os_release="2019-09"), measurements)
    queue = JobQueue(engine)
    row = queue.get(queue.submit(job.to_json(), job.name, None))
    devices = describe(row)["devices"]
    assert devices["admitted_models"] == ["Pixel 9"]
    assert (devices["max_train_s"], devices["min_os_release"]) == (120, "2019-09")
    assert devices["measured"]["Moto E"]["refused"] == "device_trains_too_long"
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(row))
    text = console.export_text()
    for shown in ("Pixel 9", "admitted", "device trains too long"):
        assert shown in text
    plain = queue.get(queue.submit(make_job().to_json(), "plain", None))
    assert "devices" not in describe(plain)
