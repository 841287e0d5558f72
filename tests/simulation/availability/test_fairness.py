"""Groups keep their share of eligible devices, or are told apart."""

import numpy as np
import pyarrow as pa
import pytest

from simulation.availability.fairness import ALL_CRITERIA, LEAST_CLIENTS, group_shifts
from simulation.availability.kept_facts import ClientFacts
from simulation.traces.device_profiles import profiles_of_samples


def facts(models, *, passes, passes_all=None, years=None, session_s=None):
    count = len(models)
    bits = np.array(passes, dtype=np.int64)
    return ClientFacts(
        device_models=np.array(models, dtype=object),
        os_years=np.array(years if years is not None else [0] * count, dtype=np.int64),
        sessions=np.ones(count, dtype=np.int64),
        session_s=np.array(session_s if session_s is not None else [1.0] * count),
        passes_ever=bits,
        passes_all=np.array(passes_all if passes_all is not None else bits == bits.max()),
        spans=np.ones(count, dtype=np.int64),
    )


def by_group(shifts, dimension, criterion=ALL_CRITERIA):
    return {s.group: s for s in shifts if (s.dimension, s.criterion) == (dimension, criterion)}


def test_the_ratio_is_the_share_among_eligible_over_the_share_among_all():
    # 60 old phones of which 12 pass, 40 new of which 28: eligible are 40.
    models = ["old"] * 60 + ["new"] * 40
    passes = [1] * 12 + [0] * 48 + [1] * 28 + [0] * 12
    shifts = group_shifts(facts(models, passes=passes), ["wifi"])
    for criterion in ("wifi", ALL_CRITERIA):
        old, new = (by_group(shifts, "device model", criterion)[name] for name in ("old", "new"))
        assert (old.clients, old.passing, old.share) == (60, 12, 0.6)
        assert old.passing_share == pytest.approx(12 / 40)
        assert old.ratio == pytest.approx(0.3 / 0.6)
        assert new.ratio == pytest.approx(0.7 / 0.4)
        assert (old.is_below, new.is_below) == (True, False)


def test_the_least_ratio_decides_who_is_warned_of():
    models = ["a"] * 50 + ["b"] * 50
    passes = [1] * 45 + [0] * 5 + [1] * 40 + [0] * 10
    for least, warned in ((0.8, False), (0.95, True)):
        shifts = group_shifts(facts(models, passes=passes), ["wifi"], least_ratio=least)
        assert by_group(shifts, "device model")["b"].is_below is warned


def test_a_small_group_is_shown_and_not_judged():
    models = ["rare"] * (LEAST_CLIENTS - 1) + ["common"] * 200
    passes = [0] * (LEAST_CLIENTS - 1) + [1] * 200
    rare = by_group(group_shifts(facts(models, passes=passes), ["wifi"]), "device model")["rare"]
    assert rare.ratio == 0.0
    assert not rare.is_judged
    assert not rare.is_below


def test_tiers_are_thirds_by_speed_and_unmeasured_models_stand_apart():
    names = [f"m{n}" for n in range(9)]
    profiles = profiles_of_samples(pa.array(names), np.arange(1.0, 10.0))
    models = [name for name in names for _ in range(40)] + ["exotic"] * 40
    shifts = group_shifts(facts(models, passes=[1] * len(models)), ["wifi"], profiles=profiles)
    tiers = by_group(shifts, "device tier")
    assert {name: s.clients for name, s in tiers.items()} == {
        "fast devices": 120,
        "middle devices": 120,
        "slow devices": 120,
        "not measured": 40,
    }
    assert all(s.ratio == pytest.approx(1.0) for s in tiers.values())


def test_years_and_activity_are_groups_too():
    count = 300
    years = [2018] * 100 + [0] * 200
    shifts = group_shifts(
        facts(["m"] * count, passes=[0] * 100 + [1] * 200, years=years,
              session_s=np.arange(count, dtype=float)),
        ["min_os_release"],
    )  # fmt: skip
    assert by_group(shifts, "OS release")["2018"].ratio == 0.0
    assert by_group(shifts, "OS release")["unknown"].ratio == pytest.approx(1.5)
    activity = by_group(shifts, "activity")
    assert activity["least active third"].ratio == 0.0
    assert activity["most active third"].ratio == pytest.approx(1.5)
    assert not by_group(shifts, "device model")  # everybody has the same


def test_where_nobody_passes_there_is_no_ratio():
    shifts = group_shifts(
        facts(["a"] * 40 + ["b"] * 40, passes=[0] * 80, passes_all=[False] * 80), ["wifi"]
    )
    assert {s.ratio for s in shifts} == {None}
    assert not any(s.is_below for s in shifts)
