"""When virtual clients check in and how their tasks go: pure functions of world and seed."""

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from simulation.durations import TaskWork
from simulation.random_streams import RandomStreams
from simulation.traces.criteria import DailyHours
from simulation.virtual_clients import VirtualClients, last_tick, next_tick
from tests.simulation.small_worlds import BYTES, FEDBUFF, Phone, make_dry_run, make_job

JOB = make_job(FEDBUFF, stop={"max_hours": 1.0})
WORK = TaskWork(1, 500, BYTES, BYTES)
TICK_S = 2.0**-20
HOUR_S = 3600.0
DAY_S = 86_400.0


def clients_of(
    phones, *, hours=None, dropout_per_hour=0.0, seed=1, repeat_every_s=None, **check_in
):
    dry_run = make_dry_run(phones, JOB, repeat_every_s=repeat_every_s, **check_in)
    return VirtualClients(
        dry_run.world,
        dry_run.devices,
        dry_run.records,
        DailyHours.parse(hours),
        dry_run.environment.check_in,
        dropout_per_hour,
        RandomStreams(seed),
    )


@given(st.floats(0, 2.0**32))
def test_ticks_enclose_every_time(t):
    assert last_tick(t) <= t <= next_tick(t)
    assert next_tick(t) - last_tick(t) in {0.0, TICK_S}
    assert (last_tick(t) * 2**20).is_integer()
    assert last_tick(last_tick(t)) == next_tick(last_tick(t)) == last_tick(t)


# -- windows and hours -------------------------------------------------------------------------


@example([0, 361], "22:00-06:00", 1.404771276680549)
@given(
    st.lists(st.integers(0, 2 * 86_400 // 60), min_size=2, max_size=10, unique=True),
    st.sampled_from([None, "09:30-17:00", "22:00-06:00", "00:00-00:00", "23:59-00:01"]),
    st.floats(0, 2 * DAY_S),
)
def test_a_client_may_take_part_in_its_windows_within_the_hours(cuts, hours, t):
    """Against looking at every minute, on which all bounds lie."""
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    spans = [(60 * a, 60 * b) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    clients = clients_of([Phone(spans)], hours=hours)
    minutes = np.arange(2 * 1440 + 1)
    available = np.zeros(len(minutes), np.bool_)
    for start_s, end_s in spans:
        available[start_s // 60 : end_s // 60] = True
    if hours not in {None, "00:00-00:00"}:
        start, end = (int(h[:2]) * 60 + int(h[3:]) for h in hours.split("-"))
        clock = minutes % 1440
        inside = (clock >= start) & (clock < end)
        available &= inside if start < end else (clock >= start) | (clock < end)
    now = int(t // 60)
    from_now = now + np.flatnonzero(available[now:])
    expected = (math.inf, math.inf)
    if len(from_now):
        first = int(from_now[0])
        last = first + int(np.argmin(available[first:]))
        expected = max(t, 60.0 * first), 60.0 * last
    assert clients.open_window(0, t) == expected


def test_windows_that_repeat_are_searched_as_long_as_they_shift_against_the_hours():
    """One minute at the start of every 25 hours meets 05:00 after five of them."""
    clients = clients_of([Phone([(0, 60)])], hours="05:00-05:30", repeat_every_s=25 * HOUR_S)
    assert clients.open_window(0, 0.0) == (125 * HOUR_S, 125 * HOUR_S + 60)


def test_windows_that_miss_the_hours_for_ever_are_never_open():
    clients = clients_of([Phone([(0, 60)])], hours="05:00-05:30", repeat_every_s=DAY_S)
    assert clients.open_window(0, 0.0) == (math.inf, math.inf)
    assert clients.next_check_in(0, 0.0, 0) == math.inf


# -- check-ins ---------------------------------------------------------------------------------


def test_without_jitter_a_client_comes_as_its_window_opens_and_every_period():
    clients = clients_of([Phone([(50, 120), (500, 900)])])
    assert clients.first_check_ins().tolist() == [50.0]
    assert clients.interval_s(0, 1) == 100.0
    assert clients.next_check_in(0, 119.0, 1) == 119.0
    assert clients.next_check_in(0, 150.0, 1) == 500.0
    assert clients.next_check_in(0, 900.0, 1) == math.inf


def test_with_jitter_clients_that_wake_together_do_not_come_together():
    """Spread over ``jitter * period_s``, or over that share of a shorter window."""
    phones = [Phone([(50, 10_000)]), *[Phone([(50, 60)])] * 400, *[Phone([(50, 10_000)])] * 400]
    clients = clients_of(phones, period_s=1000.0, jitter=0.5)
    first_s = clients.first_check_ins()
    short_s, long_s = first_s[1:401], first_s[401:]
    for times_s, width_s in ((short_s, 5.0), (long_s, 500.0)):
        shares = (times_s - 50.0) / width_s
        assert shares.min() >= 0.0
        assert shares.max() < 1.0
        assert np.abs(np.histogram(shares, 8, (0, 1))[0] - 50).max() < 4 * 50**0.5
        assert len(set(times_s.tolist())) == 400
        assert all((at_s / TICK_S).is_integer() for at_s in times_s.tolist())


def test_intervals_spread_evenly_around_the_period():
    clients = clients_of([Phone()], period_s=1000.0, jitter=0.5)
    waits_s = np.array([clients.interval_s(0, n) for n in range(2000)])
    assert waits_s.min() >= 500.0
    assert waits_s.max() <= 1500.0
    assert np.abs(np.histogram(waits_s, 8, (500, 1500))[0] - 250).max() < 4 * 250**0.5


def test_inside_a_window_a_client_comes_when_it_may():
    clients = clients_of([Phone([(50, 10_000)])], period_s=1000.0, jitter=0.5)
    assert clients.next_check_in(0, 77.25, 3) == 77.25


def test_answers_do_not_depend_on_the_order_of_questions():
    phones = [Phone([(10 * i, 5000)]) for i in range(8)]
    clients, others = (clients_of(phones, jitter=0.5, dropout_per_hour=9.0) for _ in range(2))
    questions = [(client, ordinal) for client in range(8) for ordinal in range(4)]

    def answer(asked, client, ordinal):
        return (
            asked.next_check_in(client, 0.0, ordinal),
            asked.interval_s(client, ordinal),
            asked.task(client, ordinal, 100.0, WORK, 900.0),
        )

    forward = [answer(clients, *question) for question in questions]
    backward = [answer(others, *question) for question in reversed(questions)]
    assert forward == backward[::-1]


# -- tasks -------------------------------------------------------------------------------------


def test_a_task_takes_its_phases_and_ends_with_what_comes_first():
    clients = clients_of([Phone([(0, 40)], per_example_s=2.0, up_kbps=2.0)])
    duration, course = clients.task(0, 0, 5.0, WORK, 100.0)
    assert (duration.download_s, duration.train_s, duration.upload_s) == (1.0, 20.0, 4.0)
    assert (course.end_s, course.reason, course.bytes_up) == (30.0, "", BYTES)
    _, cut = clients.task(0, 0, 17.0, WORK, 100.0)
    assert (cut.end_s, cut.reason, cut.bytes_down, cut.bytes_up) == (40.0, "window", BYTES, 500)
    _, late = clients.task(0, 0, 5.0, WORK, 27.0)
    assert (late.end_s, late.reason, late.bytes_up) == (27.0, "deadline", 250)


def test_allowed_hours_that_end_interrupt_a_task_as_a_window_does():
    clients = clients_of([Phone([(0, 1000)])], hours="00:00-00:01")
    _, course = clients.task(0, 0, 55.0, WORK, 900.0)
    assert (course.end_s, course.reason) == (60.0, "window")


def test_drop_outs_come_at_the_hazard_asked_for():
    clients = clients_of([Phone(per_example_s=60.0)], dropout_per_hour=6.0)
    courses = [clients.task(0, n, 0.0, WORK, math.inf)[1] for n in range(2000)]
    dropped = [course for course in courses if course.reason == "dropout"]
    hours = sum(course.end_s for course in courses) / HOUR_S
    assert abs(len(dropped) - 6.0 * hours) < 4 * (6.0 * hours) ** 0.5
