"""Compiled devices: when each may take part, when it checks in, and how fast it is.

What `simulation.virtual_clients`, `simulation.traces` and `simulation.check_ins` do one by one, on
the same arrays, with the same arithmetic in the same order.
"""

import math

import numpy as np
from numpy.typing import NDArray

from server.gateway import pace
from simulation.timeline.compilation import compiled
from simulation.timeline.device_keys import KEYS, PACE, made_key, make_keys
from simulation.timeline.draws import device_draw, exp_of, quantile_of, uniform
from simulation.timeline.layout import Memory, Record, Traces
from simulation.timeline.sightings import times_seen
from simulation.traces import criteria
from simulation.traces.criteria import DAY_S
from simulation.virtual_clients import PERIODS_AHEAD, last_tick, next_tick

NOT_DRAWN = -1.0
_MOST_WHOLE_S = 2.0**52
"""Whole seconds up to here are exact."""

mean_interval_s = compiled(pace.mean_interval_s)
_spread_s = compiled(pace.spread_s)
_last_opening_s = compiled(criteria.last_opening_s)
_next_allowed_s = compiled(criteria.next_allowed_s, last_opening_s=_last_opening_s)
_last_tick = compiled(last_tick)
later_tick = compiled(next_tick)


def _time_of_period(t: float, period_s: float) -> float:
    """``fmod(t, period_s)`` of times that are not negative, which the library takes long for.

    With a period of whole seconds, a multiple of it is exact, and so is what is over: the remainder
    has no more bits than ``t``.
    """
    if t < period_s:
        return t
    if period_s > _MOST_WHOLE_S or t > _MOST_WHOLE_S or math.floor(period_s) != period_s:
        return float(np.fmod(t, period_s))
    over_s = t - math.floor(t / period_s) * period_s  # the quotient may be rounded up
    return over_s + period_s if over_s < 0.0 else over_s


time_of_period = compiled(_time_of_period)


def _window(
    offsets: NDArray[np.int32],
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    repeat_s: NDArray[np.float64],
    device: int,
    t: float,
) -> tuple[float, float]:
    """See `simulation.traces.sessions.AvailabilityTrace.window`."""
    first, beyond = offsets[device], offsets[device + 1]
    if first == beyond:
        return math.inf, math.inf
    period_s = repeat_s[min(device, len(repeat_s) - 1)]
    base_s, phase_s = 0.0, t
    if period_s != math.inf:
        phase_s = time_of_period(t, period_s)
        base_s = t - phase_s
        last_end_s = end_s[beyond - 1]
        if last_end_s != math.inf and phase_s < last_end_s - period_s:
            return start_s[beyond - 1] + (base_s - period_s), last_end_s + (base_s - period_s)
    low, high = first, beyond
    while low < high:
        middle = (low + high) >> 1
        if end_s[middle] > phase_s:
            high = middle
        else:
            low = middle + 1
    if low == beyond:
        if period_s == math.inf:
            return math.inf, math.inf
        base_s += period_s
        low = first
    return start_s[low] + base_s, end_s[low] + base_s


window = compiled(_window)


def _open_window(
    s: Record,
    offsets: NDArray[np.int32],
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    repeat_s: NDArray[np.float64],
    device: int,
    t: float,
) -> tuple[float, float]:
    """See `simulation.virtual_clients.VirtualClients.open_window`."""
    is_always = s.hours_length_s >= DAY_S
    last_s = t + PERIODS_AHEAD * repeat_s[min(device, len(repeat_s) - 1)] + DAY_S
    while t <= last_s:
        opens_s, closes_s = window(offsets, start_s, end_s, repeat_s, device, t)
        if opens_s == math.inf:
            break
        open_s = max(opens_s, t)
        if is_always:
            return open_s, closes_s
        open_s = _next_allowed_s(open_s, s.hours_start_s, s.hours_length_s)
        if open_s < closes_s:
            allowed_end_s = _last_opening_s(open_s, s.hours_start_s) + s.hours_length_s
            return open_s, min(closes_s, allowed_end_s)
        t = closes_s
    return math.inf, math.inf


open_window = compiled(_open_window)


def _next_check_in(
    s: Record,
    traces: Traces,
    client: Record,
    number: int,
    earliest_s: float,
    ordinal: int,
    opening: float,
) -> float:
    """See `simulation.virtual_clients.VirtualClients.next_check_in`.

    Args:
        client: Its record; until when it is then available is noted there.
        number: Of the client.
        opening: Its draw for this check-in; `NOT_DRAWN` if it is not made yet.
    """
    if 0.0 < earliest_s < client.open_until_s:
        return earliest_s  # still in the window of its last check-in
    open_s, end_s = open_window(
        s,
        traces.offsets,
        traces.start_s,
        traces.end_s,
        traces.repeat_s,
        traces.device[number],
        earliest_s,
    )
    client.open_until_s = end_s
    if (earliest_s > 0.0 and open_s == earliest_s) or open_s == math.inf:
        return open_s
    spread_s = s.jitter * min(s.period_s, end_s - open_s)
    if spread_s == 0.0:
        return open_s
    draw = opening if opening != NOT_DRAWN else uniform(s.opening_key, number, ordinal, 0)
    return _last_tick(open_s + spread_s * draw)


next_check_in = compiled(_next_check_in)


def _earliest_return_s(
    s: Record,
    memory: Memory,
    client: Record,
    number: int,
    slots: int,
    after_task: int,
    wait_s: float,
) -> float:
    """When a client's system wakes it, but not before it was told to come.

    Args:
        client: Its record.
        number: Of the client.
        slots: Open as it was told.
        after_task: 1 if it was told as it ended a task, 0 at a check-in.
        wait_s: How long its system lets it wait.
    """
    interval_s = told_interval_s(s, slots)
    if interval_s * (1.0 + s.pace_jitter) > wait_s:
        if client.pace_key == 0:
            note_keys(memory, number)
        draw = device_draw(s.seed, client.pace_key, times_seen(s, client) - (1 - after_task))
        wait_s = max(wait_s, _spread_s(interval_s, s.pace_jitter, draw))
    return float(s.now_s + wait_s)


def _note_keys(memory: Memory, number: int) -> None:
    """Note a client's key of its draws of pace, and those of its neighbours with it."""
    first = number - number % KEYS
    count = min(KEYS, len(memory.clients) - first)
    make_keys(first, count, PACE, memory.scratch)
    for lane in range(count):
        memory.clients[first + lane].pace_key = made_key(lane, memory.scratch)


def _told_interval_s(s: Record, slots: int) -> float:
    """See `server.gateway.population.Population.interval_s`."""
    return mean_interval_s(
        s.seen[0],
        slots,
        s.pace_check_ins_per_s,
        s.pace_soonest_s,
        s.pace_idle_soonest_s,
        s.pace_longest_s,
        s.pace_idle_factor,
    )


note_keys = compiled(_note_keys)
told_interval_s = compiled(_told_interval_s)
earliest_return_s = compiled(_earliest_return_s)


def _per_example_s(traces: Traces, model: int, draw: float) -> float:
    """See `simulation.traces.device_profiles.DeviceProfiles.per_example_s`."""
    first, beyond = traces.sample_offsets[model], traces.sample_offsets[model + 1]
    if first < beyond:
        within = min(int(draw * (beyond - first)), beyond - first - 1)
        return float(traces.samples_s[first + within])
    spread = traces.log_stdev[model] * quantile_of(draw)
    return float(traces.median_s[model] * exp_of(spread))


def _bits_per_s(
    s: Record,
    kbps: NDArray[np.float64],
    log_stdev: NDArray[np.float64],
    link: int,
    client: int,
    task: int,
    direction: int,
) -> float:
    """See `simulation.traces.bandwidth.LinkSpeeds.bits_per_s`."""
    spread = log_stdev[link]
    if spread == 0.0:
        return float(kbps[link] * 1000.0)
    draw = uniform(s.link_key, client, task, direction)
    return float(kbps[link] * exp_of(spread * quantile_of(draw)) * 1000.0)


per_example_s = compiled(_per_example_s)
bits_per_s = compiled(_bits_per_s)
