"""Slots go to gateways by their rate of check-ins, however few are placed at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.fleet_protocol.gateway_link import GatewayLink, share_slots


def links_of(*check_ins_per_s):
    return [
        GatewayLink(gateway_id=str(i), boot_id=str(i), check_ins_per_s=rate)
        for i, rate in enumerate(check_ins_per_s)
    ]


def test_slots_placed_one_by_one_reach_the_quieter_gateway_too():
    """FedBuff grants one slot whenever a task ends: the busiest gateway must not have them all."""
    busy, quiet = links_of(30.0, 10.0)
    got = [link for _ in range(400) for link, _ in share_slots([busy, quiet], 1)]
    assert got.count(busy) == pytest.approx(300, abs=1)
    assert got.count(quiet) == pytest.approx(100, abs=1)


def test_gateways_of_which_no_rate_is_known_yet_share_alike():
    assert sorted(share for _, share in share_slots(links_of(0.0, 0.0, 0.0), 7)) == [2, 2, 3]


@given(
    rates=st.lists(st.floats(0.0, 1e4), min_size=1, max_size=6),
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=40),
)
def test_no_slot_is_lost_and_no_gateway_is_far_from_its_share(rates, counts):
    links = links_of(*rates)
    placed = dict.fromkeys(range(len(links)), 0)
    for count in counts:
        shares = share_slots(links, count)
        assert sum(share for _, share in shares) == count
        for link, share in shares:
            placed[int(link.gateway_id)] += share
    weights = [rate + 1e-6 for rate in rates]
    for i, weight in enumerate(weights):
        assert abs(placed[i] - sum(counts) * weight / sum(weights)) <= len(links)
