"""Compiled draws are those of the gateway, for clients of any number."""

import hashlib

import numpy as np
import pytest

from server.coordination.selection import draw
from simulation.portable_math import normal_quantile, portable_exp, portable_log
from simulation.timeline.device_keys import (
    KEYS,
    PACE,
    SCRATCH_WORDS,
    SELECTION,
    device_key,
    made_key,
    make_keys,
)
from simulation.timeline.draws import (
    LEAST_USUAL,
    device_draw,
    exp_of,
    log_of,
    quantile_near_centre,
    quantile_of,
    usual_tail,
)

CLIENTS = [0, 7, 10, 99, 12_345, 16_422_290, 2**31 - 1]


@pytest.mark.parametrize(("purpose", "name"), [(PACE, "pace"), (SELECTION, "selection")])
def test_a_device_draws_what_the_gateway_draws_for_it(purpose, name):
    room = np.zeros(SCRATCH_WORDS, np.uint32)
    for client in CLIENTS:
        key = np.uint64(device_key(client, purpose, room))
        for seed, check_in in ((0, 0), (7, 3), (2**63 - 1, 100_000)):
            found = device_draw(np.uint64(seed), key, check_in)
            assert found == draw(seed, str(client), check_in, purpose=name)


@pytest.mark.parametrize("first", [0, 5, 90, 992, 16_422_270, 2**31 - KEYS])
def test_keys_made_at_once_are_those_of_each_device(first):
    room = np.full(SCRATCH_WORDS, 7, np.uint32)
    make_keys(first, KEYS, PACE, room)
    for lane in range(KEYS):
        expected = hashlib.sha256(b"pace\0" + str(first + lane).encode()).digest()[:8]
        assert made_key(lane, room) == int.from_bytes(expected, "big")


def test_compiled_functions_have_the_bits_of_the_plain_ones():
    p = np.concatenate(
        [
            np.random.default_rng(3).random(2000) * 0.999 + 0.0005,
            [LEAST_USUAL, 1e-9, 1e-5, 0.075, 0.5, 0.925, 1.0 - 1e-9, 1.0 - LEAST_USUAL],
        ]
    )
    for found, plain in (
        (quantile_of, normal_quantile),
        (log_of, portable_log),
    ):
        assert [found(x) for x in p.tolist()] == plain(p).tolist()
    centre = p[abs(p - 0.5) <= 0.425]
    assert [quantile_near_centre(x - 0.5) for x in centre.tolist()] == normal_quantile(
        centre
    ).tolist()
    tails = p[abs(p - 0.5) > 0.425]
    assert [usual_tail(x) for x in tails.tolist()] == normal_quantile(tails).tolist()
    x = np.concatenate([(p - 0.5) * 1400.0, (p - 0.5) * 10.0, [-800.0, 0.0, 800.0]])
    assert [exp_of(value) for value in x.tolist()] == portable_exp(x).tolist()
