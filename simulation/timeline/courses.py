"""The courses of tasks, and the waits between check-ins, drawn for many of those that come next.

How long a task takes hangs on its client and on its number there, not on when it starts; and how
long a client's system lets it wait hangs on how often it has checked in. So these draws are made
together for the next check-ins of the slot that is open, in loops without branches that the
compiler turns into vectors, with the same arithmetic in the same order: a draw in a vector costs a
tenth of one alone. Courses are drawn where many check-ins get a task; what is not used is drawn
again when it is.
"""

import math

import numpy as np
from numpy.typing import NDArray

from simulation.timeline.compilation import compiled
from simulation.timeline.devices import bits_per_s, per_example_s
from simulation.timeline.draws import (
    LEAST_USUAL,
    exp_of,
    log_of,
    quantile_near_centre,
    uniform,
    uniform_of,
    usual_tail,
)
from simulation.timeline.layout import LANES, Memory, Record, Traces
from simulation.timeline.queues import client_of

ALL_GET_TASKS = 1 << 16
"""`STATE`'s ``task_share`` where each of the check-ins lately got a task."""
WORTH_DRAWING = ALL_GET_TASKS >> 3
"""Of eight check-ins one, from which on drawing for eight at once is less work than for one."""
_LEAST_LANES = 8

DOWNLOAD, TRAIN, UPLOAD, DROP_OUT, WAIT, OPENING = (row * LANES for row in range(6))
"""Where in `Memory.courses` each row begins: seconds; the last has numbers between 0 and 1."""
EXAMPLES, _CLIENTS, _TASKS = 0, LANES, 2 * LANES
"""Where in `Memory.lanes`."""
_DRAWN, _MEDIAN, _SPREAD, _TAILS = (row * LANES for row in (6, 9, 12, 15))
"""Of three rows each: download, training, upload."""
_TAIL_PLACES = 3 * LANES
COURSES_SIZE, LANES_SIZE = 18 * LANES + 1, 6 * LANES + 1
"""A place more, since lists of tails are written one beyond their end."""

_MOST_USUAL = 1.0 - LEAST_USUAL


def _draw_course(
    s: Record, traces: Traces, number: int, ordinal: int
) -> tuple[int, float, float, float, float]:
    """A task's records; seconds of its download, training and upload, and until a drop-out."""
    examples = min(traces.records[number], s.max_records)
    model, down, up = traces.device_model[number], traces.down_link[number], traces.up_link[number]
    seconds = per_example_s(traces, model, uniform(s.speed_key, number, ordinal, 0))
    down_bits = bits_per_s(s, traces.down_kbps, traces.down_log_stdev, down, number, ordinal, 0)
    up_bits = bits_per_s(s, traces.up_kbps, traces.up_log_stdev, up, number, ordinal, 1)
    download_s = s.download_bytes * 8.0 / down_bits
    train_s = seconds * np.float64(s.local_epochs * examples)
    upload_s = s.upload_bytes * 8.0 / up_bits
    drop_out_s = math.inf
    if s.dropout_scale_s < math.inf:
        drop_out_s = -log_of(uniform(s.dropout_key, number, ordinal, 0)) * s.dropout_scale_s
    return examples, download_s, train_s, upload_s, drop_out_s


def _draw_wait_s(s: Record, number: int, check_ins: int) -> float:
    """See `simulation.virtual_clients.VirtualClients.interval_s`."""
    spread = 2.0 * uniform(s.interval_key, number, check_ins, 0) - 1.0 if s.jitter else 0.0
    return float(s.period_s * (1.0 + s.jitter * spread))


def _draw_waits(s: Record, memory: Memory, first: int) -> None:
    """Draw the waits that follow check-ins of the open slot, from the one at ``first`` on.

    And what those draw that next check in as a window opens; each is of the next check-in.
    """
    count = min(LANES, s.ready - first)
    clients, check_ins = memory.lanes[_CLIENTS:_TASKS], memory.lanes[_TASKS : _TASKS + LANES]
    waits = memory.courses[WAIT : WAIT + LANES]
    openings = memory.courses[OPENING : OPENING + LANES]
    jitter, period_s = s.jitter, s.period_s
    if jitter == 0.0:
        waits[:] = period_s
    else:
        for lane in range(count):
            number = client_of(memory.ready[first + lane])
            clients[lane], check_ins[lane] = number, memory.clients[number].check_ins + 1
        key_0, key_1 = np.uint64(s.interval_key[0]), np.uint64(s.interval_key[1])
        for lane in range(count):
            spread = 2.0 * uniform_of(key_0, key_1, clients[lane], check_ins[lane], 0) - 1.0
            waits[lane] = period_s * (1.0 + jitter * spread)
        fill_uniforms(s.opening_key, 0, count, clients, check_ins, openings)
    s.waits_first, s.waits_beyond = first, first + count


def _draw_openings(s: Record, memory: Memory, first: int, count: int) -> None:
    """Draw what clients, numbered from ``first`` on, need as their first window opens."""
    clients, tasks = memory.lanes[_CLIENTS:_TASKS], memory.lanes[_TASKS : _TASKS + LANES]
    tasks[:count] = 0
    for lane in range(count):
        clients[lane] = first + lane
    fill_uniforms(s.opening_key, 0, count, clients, tasks, memory.courses[OPENING:])


def _fill_uniforms(
    key: NDArray[np.uint32],
    draw: int,
    count: int,
    clients: NDArray[np.int64],
    tasks: NDArray[np.int64],
    drawn: NDArray[np.float64],
) -> None:
    """Draw a number for each lane."""
    key_0, key_1 = np.uint64(key[0]), np.uint64(key[1])
    for lane in range(count):
        drawn[lane] = uniform_of(key_0, key_1, clients[lane], tasks[lane], draw)


def _lognormals(
    memory: Memory, count: int, drawn: NDArray[np.float64], spread: NDArray[np.float64]
) -> bool:
    """Turn so many uniform numbers into ``exp(spread * quantile)``, in place.

    Few are in the tails, so these are drawn apart from the others, again in vectors.

    Returns:
        Whether a draw is so near to 0 or 1 that it takes more than this: then nothing counts.
    """
    tails, places = memory.courses[_TAILS:], memory.lanes[_TAIL_PLACES:]
    in_tails = 0
    for at in range(count):
        p = drawn[at]
        tails[in_tails], places[in_tails] = p, at
        in_tails += int(abs(p - 0.5) > 0.425)
    unusual = False
    for at in range(in_tails):
        p = tails[at]
        unusual |= (p < LEAST_USUAL) | (p > _MOST_USUAL)
        tails[at] = usual_tail(p)
    for at in range(count):
        drawn[at] = quantile_near_centre(drawn[at] - 0.5)
    for at in range(in_tails):
        drawn[places[at]] = tails[at]
    for at in range(count):
        drawn[at] = exp_of(spread[at] * drawn[at])
    return unusual


def _draw_courses(s: Record, traces: Traces, memory: Memory, first: int) -> None:
    """Draw for check-ins of the open slot from the one at ``first`` on: the more, the surer."""
    most = LANES if 2 * s.task_share > ALL_GET_TASKS else _LEAST_LANES
    count = min(most, s.ready - first)
    lanes, rows = memory.lanes, memory.courses
    clients, tasks, examples = lanes[_CLIENTS:_TASKS], lanes[_TASKS:_TAIL_PLACES], lanes[:LANES]
    drawn, median, spread = rows[_DRAWN:_MEDIAN], rows[_MEDIAN:_SPREAD], rows[_SPREAD:_TAILS]
    median_speed, spread_speed = median[count:], spread[count:]
    median_up, spread_up = median[2 * count :], spread[2 * count :]
    for lane in range(count):
        number = client_of(memory.ready[first + lane])
        clients[lane], tasks[lane] = number, memory.clients[number].tasks
        examples[lane] = min(traces.records[number], s.max_records)
        model = traces.device_model[number]
        down, up = traces.down_link[number], traces.up_link[number]
        median[lane], spread[lane] = traces.down_kbps[down], traces.down_log_stdev[down]
        median_speed[lane], spread_speed[lane] = traces.median_s[model], traces.log_stdev[model]
        median_up[lane], spread_up[lane] = traces.up_kbps[up], traces.up_log_stdev[up]
    fill_uniforms(s.link_key, 0, count, clients, tasks, drawn)
    fill_uniforms(s.speed_key, 0, count, clients, tasks, drawn[count:])
    fill_uniforms(s.link_key, 1, count, clients, tasks, drawn[2 * count :])
    if lognormals(memory, 3 * count, drawn, spread):
        return
    for at in range(3 * count):
        drawn[at] = median[at] * drawn[at]
    drawn_speed, drawn_up = drawn[count:], drawn[2 * count :]
    if len(traces.samples_s) > 0:
        for lane in range(count):
            model = traces.device_model[clients[lane]]
            if traces.sample_offsets[model] < traces.sample_offsets[model + 1]:
                draw = uniform(s.speed_key, clients[lane], tasks[lane], 0)
                drawn_speed[lane] = per_example_s(traces, model, draw)
    download, train, upload = rows[:TRAIN], rows[TRAIN:UPLOAD], rows[UPLOAD:DROP_OUT]
    download_bits, upload_bits = s.download_bytes * 8.0, s.upload_bytes * 8.0
    epochs, scale_s = s.local_epochs, s.dropout_scale_s
    for lane in range(count):
        download[lane] = download_bits / (drawn[lane] * 1000.0)
    for lane in range(count):
        train[lane] = drawn_speed[lane] * np.float64(epochs * examples[lane])
    for lane in range(count):
        upload[lane] = upload_bits / (drawn_up[lane] * 1000.0)
    if scale_s < math.inf:
        drop_out = rows[DROP_OUT:WAIT]
        fill_uniforms(s.dropout_key, 0, count, clients, tasks, drop_out)
        for lane in range(count):
            drop_out[lane] = -log_of(drop_out[lane]) * scale_s
    s.drawn_first, s.drawn_beyond = first, first + count


def _note_share(s: Record, got_task: int) -> None:
    """Keep the share of check-ins that got a task: its mean over the last 16, or so."""
    s.task_share += ((got_task << 16) - s.task_share) >> 4


note_share = compiled(_note_share)
draw_course = compiled(_draw_course)
draw_wait_s = compiled(_draw_wait_s)
fill_uniforms = compiled(_fill_uniforms)
draw_waits = compiled(_draw_waits)
draw_openings = compiled(_draw_openings)
lognormals = compiled(_lognormals)
draw_courses = compiled(_draw_courses)
