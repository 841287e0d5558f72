"""Recorded traces are read as they are; FLINT_RECORDED_DATA names the folder they lie in.

It holds ``traces``, ``devices`` and ``network`` with the files named below.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from simulation.traces.ai_benchmark import profiles_from_scores
from simulation.traces.bandwidth import InvalidBandwidth, read_bandwidth
from simulation.traces.device_profiles import read_device_population, read_device_profiles
from simulation.traces.session_files import read_sessions
from simulation.traces.spans import OverlappingSpans, SpanRules

FOLDER = os.environ.get("FLINT_RECORDED_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="FLINT_RECORDED_DATA names no folder")


@pytest.fixture
def recorded() -> Path:
    return Path(str(FOLDER))


def hourly(trace, days: int) -> np.ndarray:
    """Mean number of available devices by hour of the day, shape (24,)."""
    seconds = np.arange(0, days * 86_400, 600)
    counts = trace.count_available(seconds)
    return np.bincount(seconds // 3600 % 24, weights=counts, minlength=24) / days / 6


def test_flash_phones_are_available_at_night(recorded):
    trace = read_sessions(recorded / "traces/sessions_flash.parquet", only={"criteria": "strict"})
    by_hour = hourly(trace, days=6)
    assert (by_hour.argmax(), by_hour.argmin()) == (3, 10)
    assert by_hour.min() / by_hour.max() == pytest.approx(0.35, abs=0.03)


def test_flash_with_both_criteria_at_once_is_refused(recorded):
    with pytest.raises(OverlappingSpans):
        read_sessions(recorded / "traces/sessions_flash.parquet")


def test_the_composed_week_repeats(recorded):
    path = recorded / "traces/sessions_week_composed.parquet"
    trace = read_sessions(path, SpanRules(repeat_every_s=604_800))
    assert np.array_equal(
        trace.count_available(np.arange(0, 86_400, 3600)),
        trace.count_available(np.arange(0, 86_400, 3600) + 10 * 604_800),
    )
    assert hourly(trace, days=7).min() / hourly(trace, days=7).max() == pytest.approx(
        0.35, abs=0.03
    )


def test_two_fifths_of_fedscale_availability_are_spans_beyond_a_day(recorded):
    path = recorded / "traces/sessions_fedscale100.parquet"
    every = read_sessions(path)
    believable = read_sessions(path, SpanRules(max_span_s=86_400, longer="drop"))
    total_s = [(trace.end_s - trace.start_s).sum() for trace in (every, believable)]
    assert 1 - total_s[1] / total_s[0] == pytest.approx(0.43, abs=0.03)


def test_fedscale_capacities_give_speeds_devices_and_links(recorded):
    path = recorded / "traces/devices_fedscale100.parquet"
    profiles, population = read_device_profiles(path), read_device_population(path)
    assert profiles.device_models == population.device_models
    assert np.median(profiles.samples_s) == pytest.approx(0.068 * 3)
    bandwidth = read_bandwidth(path)
    assert np.median(bandwidth.down.median_kbps) == pytest.approx(5485, rel=0.1)


def test_measured_links_are_read_and_stalls_refused(recorded):
    volunteers = read_bandwidth(recorded / "network/flash_wifi_speed.parquet")
    assert (len(volunteers.down), volunteers.paired) == (19, True)
    sessions = read_bandwidth(recorded / "network/bandwidth_sessions.parquet")
    assert (len(sessions.down), sessions.paired) == (2425, False)
    with pytest.raises(InvalidBandwidth, match="kbps is 0"):
        read_bandwidth(recorded / "network/bandwidth_10s.parquet")


def test_ranked_phones_are_scaled_from_one(recorded):
    table = profiles_from_scores(
        recorded / "devices/ai_benchmark_phones.parquet",
        reference_model="Huawei Mate 30 Pro 5G",
        reference_s=0.01,
    )
    seconds = np.asarray(table["mean_s"])
    assert "SM-G960F" in table["device_model"].to_pylist()
    # Published spread of the score between the 10th and 90th percentile: 12.6.
    assert np.percentile(seconds, 90) / np.percentile(seconds, 10) == pytest.approx(12.6, rel=0.25)
