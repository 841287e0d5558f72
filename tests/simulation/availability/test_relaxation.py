"""Relaxed criteria gain what a build with them says, and what counting by hand says."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from simulation.availability.build import build_availability
from simulation.availability.criteria_file import parse_criteria
from simulation.availability.relaxation import Relaxation, relaxations, tune_on_facts, tune_on_log

HOUR_S = 3600
CRITERIA = """
time_zone: UTC
state: {min_battery: 0.8, wifi: true}
user: {min_account_age_days: 30}
"""


@pytest.fixture
def criteria():
    return parse_criteria(CRITERIA)


def log_table(clients=2000, seed=0):
    """A week of one-hour sessions, one a client and day, each criterion met by chance."""
    draw = np.random.default_rng(seed)
    monday_s = 1_767_571_200  # 2026-01-05 00:00 UTC
    client = np.repeat(np.arange(clients), 7)
    start = (
        monday_s
        + np.tile(np.arange(7), clients) * 86_400
        + draw.integers(0, 23, 7 * clients) * HOUR_S
    )
    return pa.table(
        {
            "device_id": client,
            "start": start,
            "end": start + HOUR_S,
            "battery": draw.random(len(client)).round(3),
            "wifi": draw.random(len(client)) < 0.5,
            "account_age_days": np.repeat(draw.integers(0, 100, clients), 7),
        }
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pq.write_table(log_table(), path)
    return path


def test_every_threshold_has_its_steps_and_can_be_dropped():
    asked = parse_criteria(
        "measurements: m.csv\n"
        "device: {min_os_release: 2019-09, max_train_s: 100.0}\n"
        "state: {wifi: true, min_battery: 0.6, allowed_hours: '22:00-06:00'}\n"
        "user: {min_account_age_days: 3, min_hours_between_participations: 12.0}\n"
    )
    steps = {}
    for each in relaxations(asked):
        steps.setdefault(each.criterion, []).append(each.relaxed)
    assert steps == {
        "min_os_release": ["2018-09", "2017-09", None],
        "max_train_s": [150.0, 200.0, 400.0, None],
        "wifi": [None],
        "min_battery": [0.5, 0.2, None],
        "allowed_hours": ["21:00-07:00", "20:00-08:00", "18:00-10:00", None],
        "min_account_age_days": [1, None],
        "min_hours_between_participations": [6.0, 3.0, None],
    }


def test_a_window_is_not_widened_beyond_the_day():
    asked = parse_criteria("state: {allowed_hours: '06:00-02:00'}")
    assert [r.relaxed for r in relaxations(asked)] == ["05:00-03:00", None]


def test_a_relaxation_changes_only_its_criterion(criteria):
    relaxed = Relaxation("min_battery", 0.8, 0.5).apply(criteria)
    assert relaxed.thresholds() == criteria.thresholds() | {"min_battery": 0.5}
    dropped = Relaxation("wifi", True, None).apply(criteria)
    assert list(dropped.thresholds()) == ["min_battery", "min_account_age_days"]


def test_gains_are_what_counting_sessions_by_hand_gives(log, criteria):
    rows = pq.read_table(log).to_pandas()
    found = tune_on_log([log], criteria)

    def by_hand(least_battery, wifi, least_days):
        passing = (
            (rows.battery >= least_battery)
            & (rows.wifi if wifi else True)
            & (rows.account_age_days >= least_days)
        )
        # Each passing session is an hour of one of 2000 devices; a week has 168 hours.
        return passing.mean(), passing.sum() / 168 / 2000, rows[passing].device_id.nunique() / 2000

    expected = {
        ("min_battery", 0.5): by_hand(0.5, True, 30),
        ("min_battery", 0.2): by_hand(0.2, True, 30),
        ("min_battery", None): by_hand(0.0, True, 30),
        ("wifi", None): by_hand(0.8, False, 30),
        ("min_account_age_days", 15): by_hand(0.8, True, 15),
        ("min_account_age_days", 7): by_hand(0.8, True, 7),
        ("min_account_age_days", None): by_hand(0.8, True, 0),
    }
    assert {(r.relaxation.criterion, r.relaxation.relaxed) for r in found.relaxed} == set(expected)
    for each in found.relaxed:
        sessions, mean, clients = expected[each.relaxation.criterion, each.relaxation.relaxed]
        assert each.shares.sessions == pytest.approx(sessions)
        assert each.shares.clients == pytest.approx(clients)
        assert each.shares.mean == pytest.approx(mean, rel=0.01)
    gains = [r["gain_mean_share"] for r in found.as_json()["relaxations"]]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0
    assert found.sampled_share == 1.0


def test_dropping_a_criterion_by_the_kept_facts_is_dropping_it_from_the_build(log, criteria):
    built = build_availability([log], criteria, None)
    by_facts = {r.relaxation.criterion: r.shares for r in tune_on_facts(built.facts).relaxed}
    for each in tune_on_log([log], criteria).relaxed:
        if each.relaxation.relaxed is None:
            kept = by_facts[each.relaxation.criterion]
            assert kept.sessions == pytest.approx(each.shares.sessions)
            assert kept.clients == pytest.approx(each.shares.clients)
            assert kept.mean is None


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_large_log_is_sampled_by_whole_devices(tmp_path, criteria, suffix):
    table = log_table(clients=3000, seed=1)
    path = tmp_path / f"log{suffix}"
    if suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    whole = tune_on_log([path], criteria)
    asked = 6000
    sampled = tune_on_log([path], criteria, max_sessions=asked)
    assert 0 < sampled.sampled_share < 0.5
    assert sampled.clients == pytest.approx(3000 * sampled.sampled_share, rel=0.15)
    assert sampled.before.sessions == pytest.approx(whole.before.sessions, abs=0.02)
    assert sampled.before.mean == pytest.approx(whole.before.mean, rel=0.25)
