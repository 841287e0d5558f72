"""Who may be in an aggregate, and with what share of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.release_policy import ReleasePolicy
from server.secure_aggregation.release_rules import (
    Contribution,
    ReleaseRefusal,
    ReleaseRefused,
    host_app_factors,
)
from tests.server.secure_aggregation.secure_devices import SIZE, SecureWorld, delta, secure_job


def policy(**changed):
    fields = {
        "mode": "enclave",
        "release_threshold": 2,
        "max_share_per_device": 1.0,
        "max_share_per_host_app": None,
    }
    return ReleasePolicy(**(fields | changed))


def contributions(*weights_by_app):
    return [
        Contribution(f"{app}{number}", app, weight)
        for app, weights in weights_by_app
        for number, weight in enumerate(weights)
    ]


@given(
    st.lists(st.lists(st.floats(0.01, 500.0), min_size=1, max_size=8), min_size=2, max_size=9),
    st.floats(0.12, 1.0),
)
def test_after_scaling_every_app_is_within_its_share(weights, most):
    given_apps = [(chr(97 + number), each) for number, each in enumerate(weights)]
    some = contributions(*given_apps)
    rules = policy(max_share_per_host_app=most)
    if len(weights) * most < 1 - 1e-9:
        with pytest.raises(ReleaseRefused) as caught:
            host_app_factors(some, rules)
        assert caught.value.refusal is ReleaseRefusal.HOST_APP_SHARE
        return
    factors = host_app_factors(some, rules)
    scaled = {app: factors[app] * sum(each) for app, each in given_apps}
    total = sum(scaled.values())
    assert all(0 < factor <= 1 for factor in factors.values())
    assert all(weight <= most * total * (1 + 1e-6) for weight in scaled.values())
    # No app is scaled without need: those below the cap keep all of their weight.
    for app, each in given_apps:
        if scaled[app] < most * total * (1 - 1e-6):
            assert factors[app] == 1.0, sum(each)


def test_without_a_share_nothing_is_scaled():
    assert host_app_factors(contributions(("a", [1, 1]), ("b", [9])), policy()) == {"a": 1, "b": 1}


def test_a_device_with_more_than_its_share_keeps_the_aggregate_inside():
    rules = policy(max_share_per_device=0.5)
    with pytest.raises(ReleaseRefused, match=r"0\.667 of the aggregate's weight") as caught:
        host_app_factors(contributions(("a", [4.0, 1.0, 1.0])), rules)
    assert caught.value.refusal is ReleaseRefusal.DEVICE_SHARE
    host_app_factors(contributions(("a", [2.0, 1.0, 1.0])), rules)


def test_an_enclave_scales_the_updates_of_an_app_that_is_too_many():
    job = secure_job(
        robustness={"max_share_per_host_app": 0.5},
        strategy={"name": "fedbuff", "buffer_size": 4, "concurrency": 8},
    )
    world = SecureWorld(job)
    many, one = [delta(i) for i in range(3)], delta(9)
    for number, value in enumerate(many):
        world.fold(f"t{number}", value, app="mail")
    world.fold("t9", one, app="maps")
    released = world.release("r1", 0)
    expected = sum(value.astype(np.float64) for value in many) / 3 + one
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-5, atol=1e-6)
    assert released.aggregate.weight == pytest.approx(2.0)


def test_one_app_alone_cannot_be_within_a_share():
    world = SecureWorld(secure_job(robustness={"max_share_per_host_app": 0.5}))
    for number in range(4):
        world.fold(f"t{number}", np.zeros(SIZE))
    with pytest.raises(ReleaseRefused) as caught:
        world.release("r1", 0)
    assert caught.value.refusal is ReleaseRefusal.HOST_APP_SHARE
