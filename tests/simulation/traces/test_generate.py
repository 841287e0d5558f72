"""A generated world is what its parameters say, and the same for the same seed."""

import numpy as np
import pytest

from simulation.traces.bandwidth import read_bandwidth
from simulation.traces.device_profiles import read_device_population, read_device_profiles
from simulation.traces.generate import (
    GeneratedBandwidth,
    GeneratedDevices,
    generate_bandwidth,
    generate_device_profiles,
    write_world,
)
from simulation.traces.generated_sessions import (
    GeneratedAvailability,
    InvalidGeneratedWorld,
    generate_sessions,
)
from simulation.traces.session_files import read_sessions, trace_of_table
from simulation.traces.spans import SpanRules
from simulation.traces.trace_tables import TraceTable


def hourly_share(settings: GeneratedAvailability, seed: int = 1) -> np.ndarray:
    """Mean share of devices available, by hour of the day; shape (24,)."""
    table = generate_sessions(settings, seed=seed)
    rows = np.arange(1, table.num_rows + 1)
    trace = trace_of_table(TraceTable("generated", table, rows), SpanRules())
    seconds = np.arange(0, settings.days * 86_400, 600)
    counts = trace.count_available(seconds).astype(float)
    return (
        np.bincount(seconds // 3600 % 24, weights=counts) / (settings.days * 6) / settings.devices
    )


@pytest.mark.parametrize(
    "settings",
    [
        GeneratedAvailability(4000),
        GeneratedAvailability(4000, trough_ratio=1 / 14),
        GeneratedAvailability(4000, trough_ratio=0.35, peak_share=0.6, peak_hour=21.5, days=3),
        GeneratedAvailability(4000, trough_ratio=1.0, log_stdev_activity=0.0),
    ],
    ids=["flint-figure", "flint-fourteenth", "evening", "flat"],
)
def test_availability_swings_between_the_shares_asked_for(settings):
    share = hourly_share(settings)
    assert share.max() == pytest.approx(settings.peak_share, rel=0.06)
    assert share.min() / share.max() == pytest.approx(settings.trough_ratio, rel=0.12)
    if settings.trough_ratio < 1:
        off = (share.argmax() + 0.5 - settings.peak_hour + 12) % 24 - 12
        assert abs(off) <= 1.6


def test_the_same_seed_makes_the_same_sessions_and_another_makes_others():
    settings = GeneratedAvailability(200)
    first, again, other = (generate_sessions(settings, seed=seed) for seed in (5, 5, 6))
    assert first.equals(again)
    assert not first.equals(other)


def test_sessions_have_the_length_asked_for_and_are_cut():
    table = generate_sessions(GeneratedAvailability(2000, peak_share=0.05), seed=2)
    lengths = np.asarray(table["end_s"]) - np.asarray(table["start_s"])
    # Few devices have two sessions at once, so few are joined.
    assert np.median(lengths) == pytest.approx(2100, rel=0.06)
    assert np.percentile(lengths, 99.5) <= 6 * 3600


def test_sessions_too_long_for_the_swing_are_refused():
    with pytest.raises(InvalidGeneratedWorld, match="last too long for availability to fall"):
        generate_sessions(
            GeneratedAvailability(10, median_session_s=20_000, longest_session_s=80_000), seed=1
        )


@pytest.mark.parametrize(
    "wrong",
    [{"peak_share": 0.0}, {"trough_ratio": 1.5}, {"days": 0}, {"longest_session_s": 1e6}],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(InvalidGeneratedWorld, match=next(iter(wrong))):
        generate_sessions(GeneratedAvailability(10, **wrong), seed=1)
    with pytest.raises(InvalidGeneratedWorld, match="models"):
        generate_device_profiles(GeneratedDevices(models=0), seed=1)
    with pytest.raises(InvalidGeneratedWorld, match="up_over_down"):
        generate_bandwidth(GeneratedBandwidth(up_over_down=0), seed=1)


def test_a_written_world_is_read_by_the_readers(tmp_path):
    write_world(tmp_path, GeneratedAvailability(100), seed=3)
    trace = read_sessions(tmp_path / "sessions.parquet")
    profiles = read_device_profiles(tmp_path / "device_profiles.parquet")
    population = read_device_population(tmp_path / "device_population.parquet")
    bandwidth = read_bandwidth(tmp_path / "bandwidth.parquet")
    assert set(trace.period_s.tolist()) == {604_800.0}
    assert profiles.device_models == population.device_models
    assert np.median(profiles.median_s) == pytest.approx(0.02, rel=0.6)
    assert population.share.argmax() == 0
    assert np.median(bandwidth.down.median_kbps) == pytest.approx(5500, rel=0.15)
    ratio = bandwidth.up.median_kbps / bandwidth.down.median_kbps
    assert np.median(ratio) == pytest.approx(0.7, rel=0.1)
    assert bandwidth.paired


def test_written_twice_it_is_the_same_to_the_byte(tmp_path):
    for folder in ("a", "b"):
        write_world(tmp_path / folder, GeneratedAvailability(50), seed=3)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
