"""Local time of many instants, compared with the standard library one by one."""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from simulation.availability.time_zones import TimeZones

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "UTC",
    "Pacific/Apia",
)


@pytest.fixture(scope="module")
def zones() -> TimeZones:
    found = TimeZones()
    for name in ZONES:
        found.code(name)
    return found


def test_offsets_are_those_of_the_standard_library(zones):
    generator = np.random.default_rng(0)
    utc_s = generator.integers(1_000_000_000, 2_000_000_000, 4000).astype(float)
    code = generator.integers(0, len(ZONES), 4000).astype(np.int16)
    expected = [
        dt.datetime.fromtimestamp(t, tz=ZoneInfo(ZONES[c])).utcoffset().total_seconds()
        for t, c in zip(utc_s, code, strict=True)
    ]
    assert np.array_equal(zones.offset_s(code, utc_s), expected)


@pytest.mark.parametrize("fold", [0, 1])
def test_wall_clocks_are_read_as_the_standard_library_reads_them(zones, fold):
    days = [dt.datetime(2025, 3, 30), dt.datetime(2025, 10, 26), dt.datetime(2025, 7, 1)]
    clocks = [day + dt.timedelta(minutes=10 * step) for day in days for step in range(36)]
    local_s = np.array([(c - dt.datetime(1970, 1, 1)).total_seconds() for c in clocks])
    code = np.full(len(clocks), zones.code("Europe/Berlin"), dtype=np.int16)
    berlin = ZoneInfo("Europe/Berlin")
    expected = [c.replace(tzinfo=berlin, fold=fold).timestamp() for c in clocks]
    found = zones.utc_s(code, local_s, second_pass=bool(fold))
    skipped = (local_s % 86_400 >= 7200) & (local_s % 86_400 < 10_800) & (np.arange(108) < 36)
    assert np.array_equal(found[~skipped], np.array(expected)[~skipped])
    # A time the clock skips: as if it had not yet been set forward.
    first = [c.replace(tzinfo=berlin, fold=0).timestamp() for c in clocks]
    assert np.array_equal(found[skipped], np.array(first)[skipped])


def test_a_zone_nobody_knows_has_no_code(zones):
    assert zones.code("Mars/Olympus") == -1
    assert zones.code("../etc/passwd") == -1
    assert zones.code("") == -1
