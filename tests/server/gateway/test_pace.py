import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gateway.pace import PaceSteering
from server.gateway.population import Population

PACE = PaceSteering(check_ins_per_s=200)


def test_a_million_devices_come_at_the_rate_aimed_at():
    interval_s = PACE.interval_s(recent_devices=10**6, open_slots=100)
    assert 10**6 / interval_s == pytest.approx(200)


def test_a_small_population_comes_back_soon_and_sooner_when_there_is_work():
    assert PACE.interval_s(recent_devices=50, open_slots=10) == PACE.soonest_s
    assert PACE.interval_s(recent_devices=50, open_slots=0) == PACE.idle_soonest_s


def test_nobody_is_sent_away_for_longer_than_the_longest():
    assert PACE.interval_s(recent_devices=10**9, open_slots=0) == PACE.longest_s


@given(
    devices=st.integers(0, 10**8),
    slots=st.integers(0, 10**5),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_jitter_spreads_evenly_around_the_interval(devices, slots, draw):
    interval_s = PACE.interval_s(recent_devices=devices, open_slots=slots)
    told_s = PACE.come_back_after_s(recent_devices=devices, open_slots=slots, draw=draw)
    assert interval_s * 0.7 <= told_s <= interval_s * 1.3
    assert PACE.come_back_after_s(
        recent_devices=devices, open_slots=slots, draw=0.5
    ) == pytest.approx(interval_s)


def test_more_devices_never_come_back_sooner():
    intervals = [PACE.interval_s(recent_devices=n, open_slots=5) for n in range(0, 10**6, 997)]
    assert intervals == sorted(intervals)


def test_a_fleet_that_obeys_settles_at_the_rate_aimed_at():
    """Simulated: 3,000 devices told when to come back, from a synchronised start."""
    pace = PaceSteering(check_ins_per_s=20, idle_factor=1.0)
    population = Population(pace)
    due = [(0.0, f"d{n}") for n in range(3000)]
    times = []
    import heapq

    heapq.heapify(due)
    while due[0][0] < 1500:
        now_s, device = heapq.heappop(due)
        ordinal = population.see(device, now_s, open_slots=0)
        times.append(now_s)
        wait_s = population.come_back_after_s(device, ordinal, 0, open_slots=0)
        heapq.heappush(due, (now_s + wait_s, device))
    steady = [t for t in times if t > 600]
    assert len(steady) / 900 == pytest.approx(20, rel=0.15)


def test_devices_that_stay_away_are_forgotten():
    population = Population(PACE)
    for n in range(100):
        population.see(f"d{n}", 0.0, open_slots=1)
        population.see_eligible(f"d{n}", 0.0)
    assert population.see_eligible("new", 0.5) == 101
    population.see("new", 500.0, open_slots=1)
    assert population.see_eligible("new", 500.0) == 1
    assert population.check_ins("d3") == 0
    assert population.check_ins("new") == 1
