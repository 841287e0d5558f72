"""Table 5 and Fig. 4 from measurements, against figures computed by hand."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.measurements import Measurement, Measurements
from flint.bench_export import NoMeasurements, measured_profiles, write_profiles
from flint.bench_table import (
    COLUMNS,
    MeasuredTable,
    measured_table,
    row_as_json,
    rows_of,
    shown_row,
)
from flint.reports.bench_page import make_bench_page
from simulation.traces.device_profiles import read_device_profiles
from tests.feature_catalog.test_measurements import FAILED, MEASURED


def emulated(tier: int, pass_s: float, **changes: object) -> Measurement:
    return replace(
        MEASURED,
        device_model=f"Emulated tier {tier:02d}",
        backend="emulated",
        emulated=True,
        records=1000,
        pass_s=(pass_s, pass_s),
        pass_s_mean=pass_s,
        memory_mb=float(tier),
        **changes,  # type: ignore[arg-type]
    )


def test_times_are_scaled_to_5000_records_and_averaged_over_device_models():
    [row] = rows_of("tiny_mlp", [emulated(1, 1.0), emulated(2, 3.0)])
    assert row.fleet == "emulated fleet"
    assert row.train_s == {"Emulated tier 01": 5.0, "Emulated tier 02": 15.0}
    assert row.train is not None
    assert (row.train.mean, row.train.stdev) == (10.0, pytest.approx(math.sqrt(50)))
    assert row.memory_mb is not None
    assert row.memory_mb.mean == 1.5
    assert row.storage_mb == 0.057
    assert row.latency_p50_ms is None


def test_phones_this_machine_and_emulated_devices_are_never_averaged_together():
    rows = rows_of(
        "tiny_mlp",
        [emulated(1, 1.0), MEASURED, replace(MEASURED, backend="host", device_model="host")],
        [replace(MEASURED, task="infer", latency_p50_ms=2.0, latency_p95_ms=3.0)],
    )
    assert [row.fleet for row in rows] == ["devices", "this machine", "emulated fleet"]
    assert [row.latency_p95_ms and row.latency_p95_ms.mean for row in rows] == [3.0, None, None]


def test_a_row_stands_beside_the_papers():
    [row] = rows_of("sparse_mlp", [replace(MEASURED, model="sparse_mlp")])
    shown = dict(zip(COLUMNS, shown_row(row), strict=True))
    assert shown["model"] == "B sparse_mlp"
    assert shown["train s / 5,000 records"] == "5 (61.8)"
    assert shown["network MB"] == "0.012 (1.52)"
    paper = row_as_json(row)["paper"]
    assert (paper["train_s_mean"], paper["storage_mb"]) == (61.8, 0.76)
    [own] = rows_of("my_model", [replace(MEASURED, model="my_model")])
    assert own.published is None
    assert row_as_json(own)["paper"] is None


def test_the_page_draws_every_device_model_and_says_what_is_emulated():
    rows = rows_of("tiny_mlp", [emulated(tier, float(tier)) for tier in range(1, 28)])
    rows += rows_of("<b>own</b>", [replace(MEASURED, model="<b>own</b>", device_model="A & <i>")])
    page = make_bench_page(MeasuredTable(tuple(rows), {"tiny_mlp": ("Pixel 6",)}))
    assert "<b>own</b>" not in page
    assert "no single time among them is a phone" in page
    assert "Left out, since measured with another file of tiny_mlp: Pixel 6." in page
    [svg] = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    ET.fromstring(svg)
    assert "28 rows" in page  # of the figure's numbers
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", page)
    assert page == make_bench_page(MeasuredTable(tuple(rows), {"tiny_mlp": ("Pixel 6",)}))


@pytest.fixture
def measurements(engine: Engine, blobs: BlobStore) -> Measurements:
    return Measurements(engine, blobs)


@pytest.mark.integration
def test_the_table_takes_the_newest_file_of_each_model_only(measurements: Measurements):
    measurements.add(replace(MEASURED, device_model="old phone", model_sha256=b"o" * 32), b"1")
    measurements.add(MEASURED, b"2")
    measurements.add(replace(MEASURED, model="sparse_mlp"), b"3")
    measurements.add(replace(MEASURED, model="my_model"), b"4")
    measurements.add(replace(FAILED, model="never"), b"5")
    table = measured_table(measurements)
    assert [row.model for row in table.rows] == ["tiny_mlp", "sparse_mlp", "my_model"]
    assert table.rows[0].train_s == {"Pixel 6": 5.0}
    assert table.left_out == {"tiny_mlp": ("old phone",)}
    assert [row.model for row in measured_table(measurements, ["my_model"]).rows] == ["my_model"]


@pytest.mark.integration
def test_calls_of_an_older_file_are_left_out_too(measurements: Measurements):
    called = replace(MEASURED, task="infer", latency_p50_ms=2.0, latency_p95_ms=3.0)
    old = replace(called, device_model="old phone", model_sha256=b"o" * 32, latency_p50_ms=90.0)
    measurements.add(old, b"1")
    measurements.add(MEASURED, b"2")
    measurements.add(called, b"3")
    table = measured_table(measurements)
    [row] = table.rows
    assert row.latency_p50_ms is not None
    assert (row.latency_p50_ms.device_models, row.latency_p50_ms.mean) == (1, 2.0)
    assert table.left_out == {"tiny_mlp": ("old phone",)}


@pytest.mark.integration
def test_exported_profiles_are_the_measured_samples(measurements: Measurements, tmp_path):
    measurements.add(MEASURED, b"1")
    measurements.add(emulated(1, 2.0), b"2")
    profiles = measured_profiles(measurements, "tiny_mlp")
    assert profiles.emulated == ("Emulated tier 01",)
    write_profiles(tmp_path / "bench.csv", profiles)
    read = read_device_profiles(tmp_path / "bench.csv")
    assert read.device_models == ("Emulated tier 01", "Pixel 6")
    assert read.samples_s.tolist() == [0.002, 0.002, 0.0008, 0.0012]
    real = measured_profiles(measurements, "tiny_mlp", with_emulated=False)
    assert dict(real.samples_s) == {"Pixel 6": (0.0008, 0.0012)}


@pytest.mark.integration
def test_an_export_without_valid_times_is_refused_with_the_reason(measurements: Measurements):
    with pytest.raises(NoMeasurements, match="has not been measured; run `flint bench run"):
        measured_profiles(measurements, "tiny_mlp")
    measurements.add(FAILED, b"1")
    measurements.add(replace(MEASURED, timing_valid=False), b"2")
    with pytest.raises(NoMeasurements, match="among 2 measurements; the last failed: it hung"):
        measured_profiles(measurements, "tiny_mlp")
    measurements.add(emulated(1, 2.0), b"3")
    with pytest.raises(NoMeasurements, match="leave --without-emulated out"):
        measured_profiles(measurements, "tiny_mlp", with_emulated=False)
    with pytest.raises(NoMeasurements, match="measured are tiny_mlp"):
        measured_profiles(measurements, "other")
