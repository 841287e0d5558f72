import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.coordination.selection import draw, lease_probability, shuffle_seed, takes_task
from server.job import Selection

ARRIVAL, UNIFORM = Selection(name="arrival"), Selection(name="uniform")


def test_arrival_gives_every_open_slot_to_whoever_comes_first():
    assert lease_probability(ARRIVAL, open_slots=1, eligible_devices=10**6) == 1.0
    assert lease_probability(ARRIVAL, open_slots=0, eligible_devices=1) == 0.0


@given(slots=st.integers(0, 1000), devices=st.integers(0, 10**6))
def test_uniform_spreads_the_slots_over_the_devices_seen(slots, devices):
    probability = lease_probability(UNIFORM, open_slots=slots, eligible_devices=devices)
    assert 0.0 <= probability <= 1.0
    if devices:
        assert probability * devices <= slots + 1e-9
    if slots >= devices and slots:
        assert probability == 1.0


def test_uniform_leases_about_as_many_tasks_as_there_are_slots():
    taken = sum(
        takes_task(
            UNIFORM,
            open_slots=50,
            eligible_devices=1000,
            seed=3,
            device_id=f"d{n}",
            check_in=0,
        )
        for n in range(1000)
    )
    assert 25 <= taken <= 75  # mean 50, standard deviation 6.9


def test_draws_are_uniform_and_do_not_depend_on_each_other():
    draws = np.array([draw(1, f"d{n % 50}", n // 50, purpose="selection") for n in range(5000)])
    assert abs(draws.mean() - 0.5) < 0.02
    assert np.abs(np.histogram(draws, 10, (0, 1))[0] - 500).max() < 100
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.05


@given(st.integers(0, 2**63 - 1), st.text(max_size=40), st.integers(1, 2**40), st.text(max_size=10))
def test_a_draw_is_what_numpys_philox_gives(seed, device_id, check_in, purpose):
    digest = hashlib.sha256(f"{purpose}\0{device_id}".encode()).digest()
    key = np.array([seed, int.from_bytes(digest[:8], "big")], np.uint64)
    counter = np.array([check_in, 0, 0, 0], np.uint64)
    drawn = np.random.Generator(np.random.Philox(counter=counter, key=key)).random()
    assert draw(seed, device_id, check_in, purpose=purpose) == drawn


def test_a_draw_depends_on_its_arguments_only():
    first = draw(7, "d1", 3, purpose="selection")
    assert first == draw(7, "d1", 3, purpose="selection")
    others = [
        draw(8, "d1", 3, purpose="selection"),
        draw(7, "d2", 3, purpose="selection"),
        draw(7, "d1", 4, purpose="selection"),
        draw(7, "d1", 3, purpose="pace"),
    ]
    assert first not in others


@given(st.integers(0, 2**63 - 1), st.text(), st.integers(0, 2**40))
def test_a_draw_lies_between_0_and_1_for_any_device(seed, device_id, check_in):
    assert 0.0 <= draw(seed, device_id, check_in, purpose="selection") < 1.0


def test_seeds_and_draws_are_stable_for_ever():
    assert shuffle_seed(7, "t-1") == 0x187589376F972EE9
    assert draw(7, "d1", 3, purpose="selection") == 0.8587741619705686


@pytest.mark.parametrize(("seed", "task_id"), [(0, ""), (2**63 - 1, "t-x")])
def test_shuffle_seeds_fit_a_uint64(seed, task_id):
    assert 0 <= shuffle_seed(seed, task_id) < 2**64
