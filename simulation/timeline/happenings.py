"""What happens in the compiled engine: check-ins, and ends of tasks.

Each event does to counts and columns what gateway and fleet do to theirs, and is news to the
coordinator or not.
"""

import math

from server.coordination import selection
from simulation import durations
from simulation.clock import EventKind
from simulation.timeline.compilation import compiled
from simulation.timeline.courses import (
    DOWNLOAD,
    DROP_OUT,
    EXAMPLES,
    OPENING,
    TRAIN,
    UPLOAD,
    WAIT,
    WORTH_DRAWING,
    draw_course,
    draw_courses,
    draw_wait_s,
    draw_waits,
    note_share,
)
from simulation.timeline.device_keys import SELECTION, device_key
from simulation.timeline.devices import (
    NOT_DRAWN,
    earliest_return_s,
    later_tick,
    next_check_in,
    told_interval_s,
)
from simulation.timeline.draws import device_draw
from simulation.timeline.ends import NUMBER_BITS, drop_first_end, put_end
from simulation.timeline.layout import (
    BASE_VERSION,
    COUNTS,
    DEADLINE,
    DROPOUT,
    FAILED,
    HEARD,
    INTERRUPTED,
    NOT_FINITE,
    REJECTED,
    STALE,
    UNKNOWN,
    Memory,
    Record,
    Traces,
)
from simulation.timeline.ledger import (
    close_task,
    end_on_device,
    forget_ends,
    note_end,
)
from simulation.timeline.look_ahead import BLOCK, look_ahead
from simulation.timeline.queues import (
    NOTHING,
    client_of,
    drop_first_check_in,
    schedule,
)
from simulation.timeline.sightings import (
    forget_before,
    forget_eligible_before,
    note_eligible,
    see,
)

NO_NEWS, STARTED, COMPLETED, ENDED = range(4)
"""What the coordinator hears of an event."""

_COMPLETES, _EXPIRES, _LEAVES = (
    int(kind) for kind in (EventKind.COMPLETED, EventKind.EXPIRED, EventKind.LEFT)
)
_BLOCK_MASK = BLOCK - 1
_NUMBERS = (1 << NUMBER_BITS) - 1
_LEAST_WINDOW_S = 60.0

_first_end = compiled(durations.first_end)
_moved = compiled(durations.moved)
_even_chance = compiled(selection.even_chance)


def _take_slot(s: Record, memory: Memory, number: int, slots: int) -> bool:
    """See `simulation.check_ins.CheckIns.take`."""
    client = memory.clients[number]
    see(s, memory, client)
    remembered_s = max(_LEAST_WINDOW_S, 2 * told_interval_s(s, 0))
    forget_before(s, memory, s.now_s - remembered_s)
    check_in = client.check_ins
    client.check_ins += 1
    if s.is_uniform:
        then_s = s.now_s - told_interval_s(s, slots)
        forget_eligible_before(s.eligible, memory.eligible, memory.eligible_s, then_s)
        if memory.eligible_s[number] < 0.0:
            s.eligible[0] += 1
        memory.eligible_s[number] = s.now_s
        note_eligible(s.eligible, memory.eligible, number, s.now_s)
    if slots == 0 or (s.pins and memory.taken_round[number] == s.round):
        return False
    if s.is_uniform:
        chance = _even_chance(slots, s.eligible[0])
        if chance < 1.0:
            draw = device_draw(s.seed, device_key(number, SELECTION, memory.scratch), check_in)
            if draw >= chance:
                return False
    s.open_slots -= 1
    if s.pins:
        memory.taken_round[number] = s.round
    return True


def _start(
    s: Record, traces: Traces, memory: Memory, number: int, place: int, wait_s: float
) -> None:
    """A client takes a task, whose course is decided now; see `VirtualClients.task`.

    Args:
        place: Of its check-in among those ready; -1 if it is not one of them.
        wait_s: How long its system then lets it wait.
    """
    client = memory.clients[number]
    ordinal = client.tasks
    if place >= s.drawn_beyond and s.task_share >= WORTH_DRAWING:
        draw_courses(s, traces, memory, place)
    if s.drawn_first <= place < s.drawn_beyond:
        lane, courses = place - s.drawn_first, memory.courses
        examples = memory.lanes[EXAMPLES + lane]
        download_s, train_s = courses[DOWNLOAD + lane], courses[TRAIN + lane]
        upload_s, drop_out_s = courses[UPLOAD + lane], courses[DROP_OUT + lane]
    else:
        examples, download_s, train_s, upload_s, drop_out_s = draw_course(
            s, traces, number, ordinal
        )
    client.tasks += 1
    drops_out_s = s.now_s + drop_out_s
    completes_s = s.now_s + (download_s + train_s + upload_s)
    deadline_s = s.now_s + s.task_timeout_s
    end_s, ending = _first_end(completes_s, client.open_until_s, drops_out_s, deadline_s)
    task_number = s.started
    task = memory.tasks[task_number]
    s.started += 1
    task.started_s, task.ended_s = s.now_s, math.nan
    task.download_s, task.train_s, task.upload_s = download_s, train_s, upload_s
    task.wait_s = wait_s
    task.bytes_down, task.bytes_up = s.download_bytes, s.upload_bytes
    if ending > 0:
        worked_s = end_s - s.now_s
        task.bytes_down = _moved(s.download_bytes, worked_s, download_s)
        task.bytes_up = _moved(s.upload_bytes, worked_s - download_s - train_s, upload_s)
    task.client, task.base_version, task.version = number, s.version, -1
    task.examples, task.round, task.ending = examples, s.round, ending
    task.outcome, task.reason, task.is_decided = -1, -1, 0
    kind = _COMPLETES if ending == 0 else _EXPIRES if ending == DEADLINE else _LEAVES
    put_end(s, memory, later_tick(end_s), (kind << NUMBER_BITS) | task_number)


def _finish(s: Record, memory: Memory, kind: int, task_number: int) -> int:
    """A device is done with a task, or the server waits no longer for a silent one.

    Returns:
        What the coordinator hears of it.
    """
    task = memory.tasks[task_number]
    drop_first_end(s, memory)
    if kind != _EXPIRES or task.ending != DROPOUT:
        end_on_device(s, task, s.now_s)
    if kind == _LEAVES and task.ending == DROPOUT:
        given_up_s = later_tick(task.started_s + s.task_timeout_s)
        put_end(s, memory, max(given_up_s, s.now_s), (_EXPIRES << NUMBER_BITS) | task_number)
        return NO_NEWS
    if kind == _COMPLETES and len(memory.participated_s) > 0:
        memory.participated_s[task.client] = s.now_s
    if s.pins and task.round != s.round:
        return NO_NEWS
    if kind == _COMPLETES and task.base_version >= s.oldest_live:
        if s.in_lock_step and is_refused(s, memory, task_number):
            return ENDED
        memory.held[s.held] = task_number
        s.held += 1
        s.update_s = s.now_s
        forget_ends(s)
        return COMPLETED
    outcome, reason = INTERRUPTED, int(task.ending)
    if kind == _COMPLETES:
        outcome, reason = STALE, BASE_VERSION
    note_end(s, reason)
    close_task(s, memory, task_number, outcome, reason)
    return ENDED


def _is_refused(s: Record, memory: Memory, task_number: int) -> bool:
    """Whether the gate refuses an update that has arrived; then its task has ended."""
    reason = memory.results[task_number]
    memory.results[task_number] = reason | HEARD
    if reason in (UNKNOWN, COUNTS):
        return False
    note_end(s, reason)
    close_task(s, memory, task_number, FAILED if reason == NOT_FINITE else REJECTED, reason)
    return True


def _awaits_result(s: Record, memory: Memory) -> bool:
    """Whether what comes next of tasks is an update that is not trained, and must be to decide."""
    sequence = s.next_end
    number = sequence & _NUMBERS
    task = memory.tasks[number]
    return bool(
        sequence >> NUMBER_BITS == _COMPLETES
        and memory.results[number] == UNKNOWN
        and task.base_version >= s.oldest_live
        and not (s.pins and task.round != s.round)
    )


def _come_back(
    s: Record,
    traces: Traces,
    memory: Memory,
    number: int,
    slots: int,
    after_task: int,
    wait_s: float,
    opening: float,
) -> None:
    """Schedule the next check-in of a client that has no task; see `CheckIns.next_s`."""
    client = memory.clients[number]
    back_s = earliest_return_s(s, memory, client, number, slots, after_task, wait_s)
    if len(memory.participated_s) > 0:
        back_s = max(back_s, memory.participated_s[number] + s.rest_s)
    at_s = next_check_in(s, traces, client, number, later_tick(back_s), client.check_ins, opening)
    if at_s < math.inf:
        schedule(s, memory, number, at_s)


def _happen(s: Record, traces: Traces, memory: Memory, check_in: int) -> int:
    """The next event happens: a check-in, or what comes next of tasks if that is `NOTHING`.

    Returns:
        What the coordinator hears of it.
    """
    returning, slots, after_task, wait_s, opening = -1, s.open_slots, 0, 0.0, NOT_DRAWN
    if check_in != NOTHING:
        number = client_of(check_in)
        place = -1
        if drop_first_check_in(s, memory, check_in):
            place = s.taken - 1
            if place & _BLOCK_MASK == 0:
                look_ahead(s, traces, memory, place)
            if place >= s.waits_beyond:
                draw_waits(s, memory, place)
            lane = place - s.waits_first
            wait_s, opening = memory.courses[WAIT + lane], memory.courses[OPENING + lane]
        else:
            wait_s = draw_wait_s(s, number, memory.clients[number].check_ins + 1)
        news = NO_NEWS
        if take_slot(s, memory, number, slots):
            start(s, traces, memory, number, place, wait_s)
            note_share(s, 1)
            news = STARTED
        else:
            note_share(s, 0)
            returning = number
    else:
        sequence = s.next_end
        kind, task_number = sequence >> NUMBER_BITS, sequence & _NUMBERS
        if kind != _LEAVES or memory.tasks[task_number].ending != DROPOUT:
            # Its own task has just made room for another, as at the gateway.
            task = memory.tasks[task_number]
            returning, slots, after_task, wait_s = task.client, slots + 1, 1, task.wait_s
        news = finish(s, memory, kind, task_number)
    if returning >= 0:
        come_back(s, traces, memory, returning, slots, after_task, wait_s, opening)
    return news


is_refused = compiled(_is_refused)
awaits_result = compiled(_awaits_result)
take_slot = compiled(_take_slot)
start = compiled(_start)
finish = compiled(_finish)
come_back = compiled(_come_back)
happen = compiled(_happen)
