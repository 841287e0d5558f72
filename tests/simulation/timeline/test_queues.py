"""Check-ins to come, and devices seen lately, against a plain heap and the gateway's own code."""

import heapq

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.gateway.recent_devices import RecentDevices
from simulation.timeline.ends import END_SLOTS, drop_first_end, put_end
from simulation.timeline.engine import sweep
from simulation.timeline.layout import CLIENT, DUE, SIGHTING, STATE, TASK, VERSION, Memory
from simulation.timeline.queues import (
    CHUNK,
    MOST_TALLY_BITS,
    NOTHING,
    SLOTS,
    check_in_s_of,
    client_of,
    drop_first_check_in,
    first_check_in,
    open_slot,
    schedule,
)
from simulation.timeline.sightings import forget_before, see, times_seen

DAY_S = 86_400.0
SEEN = 64
ENDS = 512


def nothing_yet(clients: int) -> tuple[np.ndarray, Memory]:
    state = np.zeros(1, STATE)
    state["slot"], state["chunks"], state["sweep_at"] = -1, 1, 1 << 40
    state["next_end_s"] = np.inf
    none, many = np.zeros(0, np.int64), np.zeros(clients, np.int64)
    return state, Memory(
        clients=np.zeros(clients, CLIENT),
        participated_s=none.astype(float),
        taken_round=none.astype(np.int32),
        eligible_s=none.astype(float),
        slot_end=np.zeros(SLOTS, np.int32),
        chunks=np.zeros(CHUNK * (1 + min(clients, clients // (CHUNK - 1) + SLOTS)), np.int64),
        far=np.zeros(clients, DUE),
        ready=many,
        spare=many.copy(),
        tally=np.zeros((1 << MOST_TALLY_BITS) + 1, np.int32),
        due=np.zeros(clients + 1, np.int64),
        end_slots=np.zeros(END_SLOTS, np.int32),
        end_links=np.zeros(ENDS, np.int32),
        ends=np.zeros(ENDS, np.int64),
        ends_ready=np.zeros(ENDS, np.int64),
        ends_spare=np.zeros(ENDS, np.int64),
        ends_apart=np.zeros(ENDS, DUE),
        tasks=np.zeros(0, TASK),
        undecided=none.astype(np.int32),
        held=none.astype(np.int32),
        diverged=none,
        versions=np.zeros(0, VERSION),
        seen=np.zeros(SEEN, np.uint32),
        superseded=np.zeros(SEEN // 8, np.uint8),
        eligible=np.zeros(0, SIGHTING),
        courses=none.astype(float),
        lanes=none,
        scratch=np.zeros(0, np.uint32),
        results=none.astype(np.int8),
    )


@numba.njit(error_model="numpy")
def check_in_and_come_back(state, memory, first_s, delays_s, client, at_s):
    """All check in first, then each again after the next of the delays, while there are any."""
    s = state[0]
    for number in range(len(first_s)):
        schedule(s, memory, number, first_s[number])
    for event in range(len(client)):
        key = first_check_in(s, memory)
        while key == NOTHING:
            open_slot(s, memory)
            key = first_check_in(s, memory)
        client[event], at_s[event] = client_of(key), check_in_s_of(s, key)
        drop_first_check_in(s, memory, key)
        if event < len(delays_s):
            schedule(s, memory, client[event], at_s[event] + delays_s[event])


@pytest.mark.parametrize(
    "moments_s", [[0.0, 0.5, 64.0], [10.0, 900.0, DAY_S], [3 * DAY_S, 40 * DAY_S]]
)
@pytest.mark.parametrize("clients", [1, 7, 3000])
def test_check_ins_come_in_order_of_time_then_client(clients, moments_s):
    draws = np.random.default_rng(clients)
    state, memory = nothing_yet(clients)
    first_s = draws.choice(moments_s, clients)
    spread_s = np.where(draws.random(2 * clients) < 0.5, draws.integers(0, 2**27, 2 * clients), 0)
    delays_s = 2.0**-20 + draws.choice(moments_s, 2 * clients) + spread_s * 2.0**-20
    client, at_s = np.zeros(3 * clients, np.int64), np.zeros(3 * clients)
    check_in_and_come_back(state, memory, first_s, delays_s, client, at_s)

    heap = [(t, number) for number, t in enumerate(first_s.tolist())]
    heapq.heapify(heap)
    for event in range(3 * clients):
        t, number = heapq.heappop(heap)
        assert (t, number) == (at_s[event], client[event])
        if event < len(delays_s):
            heapq.heappush(heap, (t + float(delays_s[event]), number))
    assert state["waiting"][0] == 0


@numba.njit(error_model="numpy")
def end_and_start_again(state, memory, later_s, at_s, sequence):
    """Tasks of number 0 and up, of which each ends so much later than the event that starts it."""
    s = state[0]
    started = len(later_s) - len(at_s)
    for number in range(started):
        put_end(s, memory, later_s[number], number)
    for event in range(len(at_s)):
        s.now_s = at_s[event] = s.next_end_s
        sequence[event] = s.next_end
        drop_first_end(s, memory)
        put_end(s, memory, s.now_s + later_s[started], started)
        started += 1


@pytest.mark.parametrize("most_s", [2.0**-18, 0.5, 30.0, 4000.0, 20_000.0, 1e6])
@pytest.mark.parametrize("at_once", [1, 5, 500])
def test_tasks_end_in_order_of_time_then_number(at_once, most_s):
    draws = np.random.default_rng(at_once)
    state, memory = nothing_yet(1)
    scale_s = np.where(draws.random(at_once + 3000) < 0.02, 100 * most_s, most_s)
    later_s = np.floor(draws.random(at_once + 3000) * scale_s * 2.0**20) / 2.0**20
    at_s, sequence = np.zeros(3000), np.zeros(3000, np.int64)
    end_and_start_again(state, memory, later_s, at_s, sequence)

    heap = [(t, number) for number, t in enumerate(later_s[:at_once].tolist())]
    heapq.heapify(heap)
    for event in range(3000):
        t, number = heapq.heappop(heap)
        assert (t, number) == (at_s[event], sequence[event])
        heapq.heappush(heap, (t + float(later_s[at_once + event]), at_once + event))
    assert state["ends_to_come"][0] == at_once


@numba.njit(error_model="numpy")
def see_and_forget(state, memory, number, now_s, then_s):
    s = state[0]
    s.now_s = now_s
    see(s, memory, memory.clients[number])
    forget_before(s, memory, then_s)


@numba.njit(error_model="numpy")
def how_often(state, memory, number):
    return times_seen(state[0], memory.clients[number])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([2.0**-20, 1.0, 4095.0, 4096.0, 5000.0, 40_000.0, 70_000.0, 1e7]),
            st.sampled_from([0.5, 60.0, 9000.0, 43_200.0]),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_devices_seen_lately_are_those_of_the_gateway(visits):
    state, memory = nothing_yet(4)
    state["seen"][0][1:] = (1 << 32) - 5  # numbers of 32 bits soon begin anew
    oracle, now_s = RecentDevices(), 0.0
    for number, later_s, remembered_s, sweeps in visits:
        now_s += later_s
        see_and_forget(state, memory, number, now_s, now_s - remembered_s)
        oracle.see(str(number), now_s)
        oracle.forget_before(now_s - remembered_s)
        if sweeps:
            sweep(state, memory)
        assert state["seen"][0][0] == len(oracle)
        for each in range(4):
            assert how_often(state, memory, each) == oracle.times(str(each))
        if state["seen"][0][2] - state["seen"][0][1] + 20 > len(memory.seen):
            memory = memory._replace(
                seen=np.tile(memory.seen, 2), superseded=np.tile(memory.superseded, 2)
            )
