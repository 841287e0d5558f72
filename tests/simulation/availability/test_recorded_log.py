"""Recorded phones give the published figures; FLINT_RECORDED_DATA names the folder of the data."""

import os
from pathlib import Path

import numpy as np
import pytest

from simulation.availability.build import build_availability
from simulation.availability.criteria_file import parse_criteria
from simulation.traces.session_files import read_sessions

FOLDER = os.environ.get("FLINT_RECORDED_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="FLINT_RECORDED_DATA names no folder")

CRITERIA = """
only: {{criteria: {kind}}}
fold: day
sessions: {{max_background_gap_s: 60, min_length_s: 60}}
"""


# Published for 2,835 phones; four fifths of them are in the file, hence the tolerance: two standard
# deviations of a share of 0.3 among 2,274, less what the sampled share takes off.
@pytest.mark.parametrize(
    ("kind", "ratio", "peak", "mean"),
    [("strict", 0.35, 0.305, 0.197), ("loose", 0.53, 0.334, 0.246)],
)
def test_flash_phones_have_their_published_shares(kind, ratio, peak, mean):
    log = Path(str(FOLDER)) / "traces" / "sessions_flash.parquet"
    found = build_availability([log], parse_criteria(CRITERIA.format(kind=kind)), None)
    assert found.trough_peak_ratio == pytest.approx(ratio, abs=0.01)
    assert found.eligible_peak_share == pytest.approx(peak, abs=0.01)
    assert found.eligible_mean_share == pytest.approx(mean, abs=0.005)
    assert not found.problems


def test_a_composed_week_passes_through(tmp_path):
    log = Path(str(FOLDER)) / "traces" / "sessions_week_composed.parquet"
    found = build_availability([log], parse_criteria(""), tmp_path / "trace.parquet")
    assert found.sessions_in == found.sessions_out
    counts = read_sessions(log).count_available(np.arange(0, 604_800, 60))
    assert found.hourly == pytest.approx(counts.reshape(168, 60).mean(axis=1), abs=2)
    assert found.eligible_mean_share == pytest.approx(0.181, abs=0.005)
