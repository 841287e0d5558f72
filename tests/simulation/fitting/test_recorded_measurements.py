"""Fits to recorded links and phones; FLINT_RECORDED_DATA names the folder they lie in."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from simulation.fitting.bandwidth_fit import fit_bandwidth
from simulation.fitting.bandwidth_measurements import MeasurementColumns, read_measurements
from simulation.fitting.hardware import read_hardware

FOLDER = os.environ.get("FLINT_RECORDED_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="FLINT_RECORDED_DATA names no folder")


@pytest.fixture
def recorded() -> Path:
    return Path(str(FOLDER))


def test_links_cut_at_a_speed_are_no_lognormal(recorded):
    path = recorded / "network/bandwidth_10s.parquet"
    measured = read_measurements([path], MeasurementColumns(client="session_id"))
    assert (measured.rows, measured.unusable_rows) == (62_159, 2)
    fit = fit_bandwidth(measured)
    assert fit.down.links == 2425
    assert fit.down.is_lognormal_poor
    assert fit.down.ks_quantiles < 0.02
    drawn = fit.sample(2000, fit.preferred_family(), seed=0)
    logs = np.log(drawn["down_kbps"].to_numpy()) - fit.down.log_stdev_within**2 / 2
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.exp(np.quantile(logs, p)) == pytest.approx(fit.down.quantiles_kbps[p], rel=0.12)


def test_volunteers_are_faster_down_than_up_and_fast_both_ways(recorded):
    fit = fit_bandwidth(read_measurements([recorded / "network/flash_wifi_speed.parquet"]))
    assert fit.paired_links == 19
    assert fit.down.median_kbps > fit.up.median_kbps
    assert 0.3 < fit.correlation < 0.8


def test_a_phone_is_about_as_fast_as_its_nearest_by_other_facts(recorded):
    path = recorded / "devices/ai_benchmark_phones.parquet"
    hardware = read_hardware(path, ["cpu_quant_score", "ram", "year"])
    table = pq.read_table(path)
    score: dict[str, list[float]] = {}
    for name, value in zip(
        table["device_model"].to_pylist(), table["cpu_float_score"].to_pylist(), strict=True
    ):
        score.setdefault(name, []).append(value)
    names = sorted(score)
    ratios, random_ratios = [], []
    draw = np.random.default_rng(0)
    for name in names:
        others = [other for other in names if other != name]
        found = hardware.nearest(name, others)
        own = np.mean(score[name])
        random_ratios.append(abs(np.log(np.mean(score[draw.choice(others)]) / own)))
        if found is not None:
            ratios.append(abs(np.log(np.mean(score[found[0]]) / own)))
    assert len(ratios) > 0.9 * len(names)
    assert np.exp(np.median(ratios)) < 1.1
    assert np.median(random_ratios) > 8 * np.median(ratios)
