"""The courses of tasks, drawn several at once: those of the check-ins that come next.

How long a task takes hangs on its client and on its number there, not on when it starts. So while
one check-in after the other gets a task, the draws for the next ones are made together, in loops
without branches that the compiler turns into vectors, with the same arithmetic in the same order.
What is not used is drawn again when it is.
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
    uniform,
    uniform_of,
    usual_quantile,
)
from simulation.timeline.layout import LANES, Memory, Record, Traces
from simulation.timeline.queues import client_of

IN_A_ROW = 4
"""Check-ins that got a task one after the other, from which on the next are expected to."""

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


def _lognormal(
    key: NDArray[np.uint32],
    draw: int,
    clients: NDArray[np.int64],
    tasks: NDArray[np.int64],
    median: NDArray[np.float64],
    spread: NDArray[np.float64],
    drawn: NDArray[np.float64],
) -> bool:
    """Draw a lognormal number for each lane.

    Returns:
        Whether a draw is so near to 0 or 1 that it takes more than this: then nothing counts.
    """
    key_0, key_1 = np.uint64(key[0]), np.uint64(key[1])
    for lane in range(LANES):
        drawn[lane] = uniform_of(key_0, key_1, clients[lane], tasks[lane], draw)
    unusual = False
    for lane in range(LANES):
        p = drawn[lane]
        unusual |= (p < LEAST_USUAL) | (p > _MOST_USUAL)
        drawn[lane] = median[lane] * exp_of(spread[lane] * usual_quantile(p))
    return unusual


def _draw_courses(s: Record, traces: Traces, memory: Memory, first: int) -> None:
    """Draw for the check-ins of the open slot from the one at ``first`` on."""
    lanes, rows = memory.lanes, memory.courses
    clients, tasks, examples = lanes[:LANES], lanes[LANES : 2 * LANES], lanes[2 * LANES : 3 * LANES]
    download, train, upload, drop_out = (
        rows[:LANES],
        rows[LANES : 2 * LANES],
        rows[2 * LANES : 3 * LANES],
        rows[3 * LANES : 4 * LANES],
    )
    speed_median, speed_spread = rows[4 * LANES : 5 * LANES], rows[5 * LANES : 6 * LANES]
    down_median, down_spread = rows[6 * LANES : 7 * LANES], rows[7 * LANES : 8 * LANES]
    up_median, up_spread = rows[8 * LANES : 9 * LANES], rows[9 * LANES : 10 * LANES]
    for lane in range(LANES):
        number = client_of(memory.ready[min(first + lane, s.ready - 1)])
        clients[lane], tasks[lane] = number, memory.clients[number].tasks
        examples[lane] = min(traces.records[number], s.max_records)
        model = traces.device_model[number]
        down, up = traces.down_link[number], traces.up_link[number]
        speed_median[lane] = traces.median_s[model]
        speed_spread[lane] = traces.log_stdev[model]
        down_median[lane] = traces.down_kbps[down]
        down_spread[lane] = traces.down_log_stdev[down]
        up_median[lane] = traces.up_kbps[up]
        up_spread[lane] = traces.up_log_stdev[up]
    unusual = lognormal(s.link_key, 0, clients, tasks, down_median, down_spread, download)
    unusual |= lognormal(s.speed_key, 0, clients, tasks, speed_median, speed_spread, train)
    unusual |= lognormal(s.link_key, 1, clients, tasks, up_median, up_spread, upload)
    if unusual:
        return
    if len(traces.samples_s) > 0:
        for lane in range(LANES):
            model = traces.device_model[clients[lane]]
            if traces.sample_offsets[model] < traces.sample_offsets[model + 1]:
                draw = uniform(s.speed_key, clients[lane], tasks[lane], 0)
                train[lane] = per_example_s(traces, model, draw)
    download_bits, upload_bits = s.download_bytes * 8.0, s.upload_bytes * 8.0
    epochs, scale_s = s.local_epochs, s.dropout_scale_s
    for lane in range(LANES):
        download[lane] = download_bits / (download[lane] * 1000.0)
        train[lane] = train[lane] * np.float64(epochs * examples[lane])
        upload[lane] = upload_bits / (upload[lane] * 1000.0)
    if scale_s < math.inf:
        key_0, key_1 = np.uint64(s.dropout_key[0]), np.uint64(s.dropout_key[1])
        for lane in range(LANES):
            drop_out[lane] = uniform_of(key_0, key_1, clients[lane], tasks[lane], 0)
        for lane in range(LANES):
            drop_out[lane] = -log_of(drop_out[lane]) * scale_s
    s.drawn_first, s.drawn_beyond = first, min(first + LANES, s.ready)


draw_course = compiled(_draw_course)
lognormal = compiled(_lognormal)
draw_courses = compiled(_draw_courses)
