"""The compiled event loop: `JobRunner` on a `VirtualFleet`, without objects.

Events happen in the order of the fleet's contract (time, kind, number), and each does to counts and
columns what coordinator, gateway and fleet do to theirs; what a strategy decides is decided by its
own functions (`simulation.timeline.decisions`). Nothing is trained: durations hang on no result.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

from simulation.patience import PATIENCE_S
from simulation.timeline.compilation import Signature, compiled, entry_point
from simulation.timeline.courses import (
    OPENING,
    draw_openings,
)
from simulation.timeline.decisions import limit, tasks_to_start, wakes_s
from simulation.timeline.devices import (
    next_check_in,
)
from simulation.timeline.happenings import NO_NEWS, STARTED, awaits_result, happen
from simulation.timeline.layout import (
    CLIENT,
    DUE,
    EVENT,
    IN_STEP,
    LANES,
    PYTHON,
    SIGHTING,
    STATE,
    STEP,
    TASK,
    TURN,
    VERSION,
    Memory,
    Record,
    Traces,
)
from simulation.timeline.ledger import (
    hear_of_diverged,
    take_step,
)
from simulation.timeline.look_ahead import look_ahead_in_turn, look_at_first
from simulation.timeline.queues import (
    NOTHING,
    check_in_s_of,
    first_check_in,
    open_slot,
    schedule,
    slot_start_s,
)
from simulation.timeline.sightings import (
    MOST_BETWEEN,
    _sweep,
)

PAUSED, STOPPED, TRACE_ENDED, EXHAUSTED, NO_ROOM, ASKS, RESULTS, DECIDES = range(8)
"""Why `advance` returned: enough events, a limit of the job, nobody left who can check in, nobody
waits any longer, a column is full, which of the updates held are finite decides what follows, what
the next task that completes has learnt does, or a strategy in Python does."""


def _begin_turn(s: Record) -> None:
    """Start what is to be started, and decide how long to wait for an event."""
    tasks = tasks_to_start(s)
    if tasks > 0:
        if s.granted == 0:
            s.round_started_s = s.now_s
        s.granted += tasks
        s.offered += tasks
        s.open_slots += tasks
    s.until_s = wakes_s(s)
    s.waits = s.until_s < math.inf
    if s.now_s < s.horizon_s:
        s.until_s = min(s.until_s, s.horizon_s)
    s.is_answered = 0
    s.phase = EVENT


def _hear(s: Record, news: int) -> None:
    """The coordinator hears the news."""
    s.phase = STEP
    if news == STARTED:
        s.offered -= 1
        s.running += 1
    elif news != NO_NEWS:
        s.running -= 1


def _room(s: Record, memory: Memory) -> int:
    """For how many events there is room."""
    events = min(
        len(memory.tasks) - s.started,
        len(memory.ends) - s.ends_to_come - 2,
        len(memory.due) - s.due - 1,
        (min(len(memory.seen) - (s.seen[2] - s.seen[1]), s.sweep_at - s.seen[2]) - MOST_BETWEEN)
        // (MOST_BETWEEN + 1),
    )
    return int(min(events, len(memory.eligible) - s.eligible[2]) if s.is_uniform else events)


begin_turn = compiled(_begin_turn)
hear = compiled(_hear)
room = compiled(_room)


def _next_news(s: Record, traces: Traces, memory: Memory) -> int:
    """Let events happen until there is news or the wait is over.

    Returns:
        The news, or ``-1`` less the number of the reason why `advance` must return.
    """
    if s.versions >= len(memory.versions):
        return -1 - NO_ROOM
    while True:
        if s.events >= s.next_look:
            events = min(room(s, memory), s.enough - s.events)
            if events <= 0:
                return -1 - (PAUSED if s.events >= s.enough else NO_ROOM)
            s.next_look = s.events + events
        task_s = s.next_end_s
        check_in = first_check_in(s, memory)
        while check_in == NOTHING and s.waiting > 0 and slot_start_s(s.slot + 1) <= task_s:
            open_slot(s, memory)
            look_at_first(s, traces, memory)
            check_in = first_check_in(s, memory)
        check_in_s = check_in_s_of(s, check_in) if check_in != NOTHING else math.inf
        at_s = min(task_s, check_in_s)
        # With nothing to come, what is held may still make an aggregate at the deadline.
        is_over = at_s == math.inf and not (s.held > 0 and s.waits)
        if at_s > s.until_s and not is_over:
            s.now_s = s.until_s
            return NO_NEWS
        if is_over or at_s > s.update_s + PATIENCE_S:
            return -1 - (TRACE_ENDED if is_over else EXHAUSTED)
        if s.in_lock_step == IN_STEP and check_in_s >= task_s and awaits_result(s, memory):
            return -1 - RESULTS
        s.now_s = at_s
        s.events += 1
        news = happen(s, traces, memory, check_in if check_in_s < task_s else NOTHING)
        if news != NO_NEWS:
            return news


next_news = compiled(_next_news)


def _advance(state: NDArray[np.void], traces: Traces, memory: Memory) -> int:
    """Go on until there are ``enough`` events; returns why it stopped (`PAUSED` and the others)."""
    s = state[0]
    s.next_look = 0
    while True:
        if s.phase == TURN:
            if limit(s) > 0:
                return STOPPED
            if s.strategy == PYTHON and not s.is_answered:
                return DECIDES
            begin_turn(s)
        if s.phase == EVENT:
            began_s = s.now_s
            if s.unheard > 0:
                hear_of_diverged(s, memory)
                news, began_s = NO_NEWS, -1.0
            else:
                news = next_news(s, traces, memory)
                if news < 0:
                    return -1 - news
            hear(s, news)
            if s.strategy == PYTHON:
                s.idle_turns = s.idle_turns + 1 if news == NO_NEWS and s.now_s == began_s else 0
                s.is_over = limit(s) > 0
                return DECIDES
        if not take_step(s, memory):
            return ASKS


def _open_fleet(
    state: NDArray[np.void], traces: Traces, memory: Memory, asks: NDArray[np.bool_]
) -> None:
    """Schedule the first check-in of each client that asks for work; shape ``(clients,)``."""
    s = state[0]
    for number in range(len(asks)):
        lane = number % LANES
        if lane == 0:
            draw_openings(s, memory, number, min(LANES, len(asks) - number))
        look_ahead_in_turn(traces, number)
        if asks[number]:
            client, opening = memory.clients[number], memory.courses[OPENING + lane]
            at_s = next_check_in(s, traces, client, number, 0.0, 0, opening)
            if at_s < math.inf:
                schedule(s, memory, number, at_s)


def _forget_superseded(state: NDArray[np.void], memory: Memory) -> None:
    """Drop sightings of eligible devices that are not their last, to make room for others."""
    s = state[0]
    kept = 0
    for at in range(s.eligible[1], s.eligible[2]):
        entry = memory.eligible[at]
        if memory.eligible_s[entry.client] == entry.seen_s:
            memory.eligible[kept].seen_s = entry.seen_s
            memory.eligible[kept].client = entry.client
            kept += 1
    s.eligible[1], s.eligible[2] = 0, kept


_types: Signature = numba.types
_type_of: Signature = numba.from_dtype


def _array(dtype: object) -> Signature:
    return _types.Array(_type_of(np.dtype(dtype)), 1, "C")  # type: ignore[call-overload]


_STATE = _array(STATE)
_TRACES = _types.NamedTuple(
    [
        *map(_array, (np.int32, np.float64, np.float64, np.float64)),
        *map(_array, [np.int32] * 5),
        *map(_array, (np.int64, *[np.float64] * 7)),
    ],
    Traces,
)
_MEMORY = _types.NamedTuple(
    [
        *map(_array, (CLIENT, np.float64, np.int32, np.float64, np.int32, np.int64, DUE)),
        *map(_array, (np.int64, np.int64, np.int32, np.int64)),
        *map(_array, (np.int32, np.int32, np.int64, np.int64, np.int64, DUE)),
        *map(_array, (TASK, np.int32, np.int32, np.int64, VERSION)),
        *map(_array, (np.uint32, np.uint8, SIGHTING, np.float64, np.int64, np.uint32)),
        _array(np.int8),
    ],
    Memory,
)
_INT, _NONE = _types.int64, _types.void

advance = entry_point(_advance, _INT(_STATE, _TRACES, _MEMORY))
open_fleet = entry_point(_open_fleet, _NONE(_STATE, _TRACES, _MEMORY, _array(np.bool_)))
forget_superseded = entry_point(_forget_superseded, _NONE(_STATE, _MEMORY))
sweep = entry_point(_sweep, _NONE(_STATE, _MEMORY))
