"""Compiled draws are those of the gateway, for clients of any number."""

import numpy as np
import pytest

from server.coordination.selection import draw
from simulation.timeline.draws import PACE, SELECTION, device_draw, device_key

CLIENTS = [0, 7, 10, 99, 12_345, 16_422_290, 2**31 - 1]


@pytest.mark.parametrize(("purpose", "name"), [(PACE, "pace"), (SELECTION, "selection")])
def test_a_device_draws_what_the_gateway_draws_for_it(purpose, name):
    room = np.zeros(64, np.uint32)
    for client in CLIENTS:
        key = np.uint64(device_key(client, purpose, room))
        for seed, check_in in ((0, 0), (7, 3), (2**63 - 1, 100_000)):
            found = device_draw(np.uint64(seed), key, check_in)
            assert found == draw(seed, str(client), check_in, purpose=name)
