"""Who may take part now: the user's word first, what is asked for but unknown says no."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from device_runtime.participation import (
    Decision,
    InvalidParticipation,
    ParticipationPolicy,
    UserSettings,
    decide,
    within_hours,
)
from tests.device_runtime.conftest import READY

ANYBODY = ParticipationPolicy()
NO_WISHES = UserSettings()


def reason(policy=ANYBODY, settings=NO_WISHES, **state) -> str:
    return decide(policy, settings, replace(READY, **state)).reason_code


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-05-01T{clock}").astimezone()


def test_without_criteria_and_wishes_a_device_takes_part():
    assert decide(ANYBODY, NO_WISHES, READY) == Decision(allowed=True)
    assert decide(None, NO_WISHES, READY).allowed


@pytest.mark.parametrize(
    ("window", "clock", "inside"),
    [
        ("00:00-08:00", "00:00:00", True),
        ("00:00-08:00", "07:59:59", True),
        ("00:00-08:00", "08:00:00", False),
        ("22:00-06:00", "23:30:00", True),
        ("22:00-06:00", "00:00:00", True),
        ("22:00-06:00", "05:59:59", True),
        ("22:00-06:00", "06:00:00", False),
        ("22:00-06:00", "21:59:59", False),
        ("09:00-09:00", "03:00:00", True),
    ],
)
def test_allowed_hours(window, clock, inside):
    assert within_hours(window, at(clock)) is inside
    refused = reason(ParticipationPolicy(allowed_hours=window), local_time=at(clock))
    assert refused == ("" if inside else "hours")


def test_hours_are_the_devices_own_whatever_its_time_zone():
    tokyo = datetime(2026, 5, 1, 23, 0, tzinfo=timezone(timedelta(hours=9)))
    assert within_hours("22:00-06:00", tokyo)
    assert not within_hours("22:00-06:00", tokyo.astimezone(UTC))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (UserSettings(opted_out=True), "opted_out"),
        (UserSettings(allowed_hours="04:00-05:00"), "user_hours"),
        (UserSettings(min_battery=0.95), "user_battery"),
    ],
)
def test_the_users_word_comes_before_the_jobs(settings, expected):
    impossible = ParticipationPolicy(wifi=True, min_battery=1.0, foreground=False)
    assert reason(impossible, settings, unmetered_network=False) == expected
    assert reason(ANYBODY, settings) == expected


@pytest.mark.parametrize(
    ("policy", "state", "expected"),
    [
        ({"wifi": True}, {"unmetered_network": False}, "network"),
        ({"wifi": True}, {"unmetered_network": True}, ""),
        ({"wifi": False}, {"unmetered_network": False}, ""),
        ({"min_battery": 0.8}, {"battery": 0.79}, "battery"),
        ({"min_battery": 0.8}, {"battery": 0.8}, ""),
        ({"foreground": True}, {"foreground": False}, "foreground"),
        ({"foreground": False}, {"foreground": True}, "foreground"),
        ({"foreground": False}, {"foreground": False}, ""),
        ({"min_account_age_days": 30}, {"account_age_days": 29.9}, "account_age"),
        ({"min_account_age_days": 30}, {"account_age_days": 30}, ""),
    ],
)
def test_each_criterion(policy, state, expected):
    assert reason(ParticipationPolicy(**policy), **state) == expected


@pytest.mark.parametrize(
    ("policy", "unknown", "expected"),
    [
        ({"wifi": True}, "unmetered_network", "network"),
        ({"min_battery": 0.0}, "battery", "battery"),
        ({"foreground": True}, "foreground", "foreground"),
        ({"foreground": False}, "foreground", "foreground"),
        ({"min_account_age_days": 0}, "account_age_days", "account_age"),
    ],
)
def test_what_is_asked_for_but_unknown_says_no(policy, unknown, expected):
    assert reason(ParticipationPolicy(**policy), **{unknown: None}) == expected
    assert reason(ANYBODY, **{unknown: None}) == ""


def test_an_unknown_battery_is_not_enough_for_the_user_either():
    assert reason(settings=UserSettings(min_battery=0.1), battery=None) == "user_battery"


@pytest.mark.parametrize(
    ("hours_ago", "expected"), [(None, ""), (11.9, "participated"), (12.0, ""), (-5, "")]
)
def test_hours_between_participations(hours_ago, expected):
    last = None if hours_ago is None else READY.local_time - timedelta(hours=hours_ago)
    policy = ParticipationPolicy(min_hours_between_participations=12)
    assert reason(policy, last_participation=last) == expected


def test_a_policy_comes_back_from_its_json_with_the_same_digest():
    policy = ParticipationPolicy(wifi=True, min_battery=0.8, allowed_hours="22:00-06:00")
    again = ParticipationPolicy.from_json(policy.to_json())
    assert again == policy
    assert again.sha256() == policy.sha256()


@pytest.mark.parametrize(
    "text",
    [
        '{"thermal": "cool"}',
        '{"min_battery": "high"}',
        '{"min_battery": true}',
        '{"wifi": 1}',
        '{"allowed_hours": "22-6"}',
        '{"allowed_hours": 7}',
        '{"allowed_hours": "24:00-06:00"}',
        "[]",
        "null",
        "{",
    ],
)
def test_a_policy_that_cannot_be_evaluated_in_full_is_refused(text):
    with pytest.raises(InvalidParticipation, match="FLN-1405"):
        ParticipationPolicy.from_json(text)


@pytest.mark.parametrize("wishes", [{"allowed_hours": "nights"}, {"min_battery": 80}])
def test_a_users_setting_of_the_wrong_form_is_refused(wishes):
    with pytest.raises(InvalidParticipation):
        UserSettings(**wishes)
