"""Device profiles and rules from outside: impossible ones are refused in one sentence."""

import json

import pytest

from feature_catalog.on_device import (
    BUDGETS,
    DeviceProfile,
    DeviceRules,
    InvalidDeviceProfile,
    InvalidDeviceRules,
    StorageClass,
)
from feature_catalog.on_device.rules import storage_class


@pytest.mark.parametrize(
    ("memory_mb", "expected"),
    [(None, "medium"), (1000, "small"), (2999, "small"), (3000, "medium"), (6000, "large")],
)
def test_the_storage_class_goes_with_memory_unless_it_is_said(memory_mb, expected):
    assert storage_class(DeviceProfile(memory_mb=memory_mb)) == expected
    said = DeviceProfile(memory_mb=memory_mb, storage_class=StorageClass.SMALL)
    assert storage_class(said) is StorageClass.SMALL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device_model", ""),
        ("device_model", "a\x1b[2J"),
        ("device_model", "x" * 201),
        ("os_release", "2019"),
        ("os_release", "2019-13"),
        ("memory_mb", 0),
        ("memory_mb", float("nan")),
        ("memory_mb", True),
        ("app_memory_mb", -1),
        ("storage_class", "huge"),
        ("free_bytes", -1),
        ("free_bytes", 1.5),
        ("unmetered", "yes"),
        ("locale", "portuguese"),
        ("app", 7),
    ],
)
def test_an_impossible_fact_is_named(key, value):
    with pytest.raises(InvalidDeviceProfile, match=f"{key} of a device profile"):
        DeviceProfile.from_json({key: value})


def test_an_unknown_fact_has_its_nearest_named():
    with pytest.raises(InvalidDeviceProfile, match=r"did you mean memory_mb\?"):
        DeviceProfile.from_json({"memory": 1})


def test_a_profile_reads_back_what_it_says():
    profile = DeviceProfile("P", "2020-09", 3000, 256, StorageClass.SMALL, 10**9, True, "de")
    assert DeviceProfile.from_json(profile.to_json()) == profile


def test_a_device_that_enrolled_may_have_said_anything():
    assert DeviceProfile.enrolled("\n", "Android") == DeviceProfile()
    assert DeviceProfile.enrolled("Pixel", "2020-09").os_release == "2020-09"


def test_rules_exchange_single_values_of_the_table():
    rules = DeviceRules.from_json({"budgets": {"small": {"asset_bytes": "3MB"}}})
    assert rules.budgets[StorageClass.SMALL].asset_bytes == 3_000_000
    assert rules.budgets[StorageClass.SMALL].total_bytes == BUDGETS[StorageClass.SMALL].total_bytes
    assert rules.budgets[StorageClass.LARGE] == BUDGETS[StorageClass.LARGE]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": {}}, "did you mean budgets"),
        ({"budgets": []}, "budgets is"),
        ({"budgets": {"tiny": {}}}, "tiny is no key"),
        ({"budgets": {"small": {"total": 1}}}, "total is no key"),
        ({"budgets": {"small": {"total_bytes": "lots"}}}, "budgets.small.total_bytes"),
        ({"max_share_of_free": 0}, "max_share_of_free is 0"),
        ({"max_share_of_free": True}, "max_share_of_free is true"),
        ({"text_bytes": 0}, "text_bytes"),
        ({"min_os_release": "10"}, "min_os_release"),
        ({"metered_asset_bytes": -1}, "metered_asset_bytes"),
    ],
)
def test_impossible_rules_are_named(given, said):
    with pytest.raises(InvalidDeviceRules, match=said):
        DeviceRules.from_json(given)


def test_free_bytes_and_app_memory_bound_the_budget():
    rules = DeviceRules()
    budget = rules.budget_for(DeviceProfile(free_bytes=10**8, app_memory_mb=100))
    assert (budget.total_bytes, budget.asset_bytes) == (5_000_000, 5_000_000)
    assert budget.asset_memory_bytes == 25_000_000


def test_rules_are_kept_as_plain_values_and_read_back():
    rules = DeviceRules.from_json(
        {"budgets": {"small": {"asset_bytes": "3MB"}}, "min_os_release": "2019-09"}
    )
    assert DeviceRules.from_json(json.loads(json.dumps(rules.to_json()))) == rules
    assert DeviceRules.from_json({}) == DeviceRules()
