"""A release policy is read as its author wrote it, or refused; never anything else."""

import json

import pytest

from device_runtime.release_policy import InvalidReleasePolicy, ReleasePolicy

MASKED = {
    "mode": "masked",
    "release_threshold": 2,
    "max_share_per_device": 0.5,
    "clip_value": 1.0,
    "max_updates": 10,
}


def test_a_policy_is_read_back_as_it_was_written():
    policy = ReleasePolicy(**MASKED)
    assert ReleasePolicy.from_json(policy.to_json()) == policy


@pytest.mark.parametrize(
    "changed",
    [
        {"clip_value": 1e-310},
        {"clip_value": 10**400},
        {"max_share_per_device": float("nan")},
        {"release_threshold": True},
        {"more": 1},
    ],
    ids=str,
)
def test_numbers_that_no_policy_can_have_are_refused(changed):
    with pytest.raises(InvalidReleasePolicy):
        ReleasePolicy.from_json(json.dumps(MASKED | changed))


@pytest.mark.parametrize("text", ["", "null", "[]", '"mode"', "{}", "[" * 4000, "9" * 5000])
def test_texts_that_are_no_policy_are_refused(text):
    with pytest.raises(InvalidReleasePolicy):
        ReleasePolicy.from_json(text)
