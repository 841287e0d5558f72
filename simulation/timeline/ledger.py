"""Compiled bookkeeping of tasks: what each cost, how each ended, and what a version is made of."""

import math

from server.strategies.strategy import Step
from simulation.timeline.compilation import compiled
from simulation.timeline.decisions import next_step, oldest_live_version
from simulation.timeline.layout import (
    FAILED,
    NOT_FINITE,
    RELEASE,
    ROUND_ABANDONED,
    ROUND_CLOSED,
    SUCCEEDED,
    TURN,
    Memory,
    Record,
)


def _end_on_device(s: Record, task: Record, at_s: float) -> None:
    """See `simulation.task_log.TaskLog.end`."""
    task.ended_s = at_s
    device_s = at_s - task.started_s
    s.device_s += device_s
    s.bytes_down += task.bytes_down
    s.bytes_up += task.bytes_up
    if task.is_decided and task.outcome != SUCCEEDED:
        s.wasted_device_s += device_s


def _close_task(s: Record, memory: Memory, number: int, outcome: int, reason: int) -> None:
    """The coordinator knows how a task ended; it is stored with the next version."""
    task = memory.tasks[number]
    task.outcome, task.reason = outcome, reason
    memory.undecided[s.undecided] = number
    s.undecided += 1


def _note_end(s: Record, reason: int) -> None:
    """See `simulation.patience.Patience.ended`."""
    if s.ends[reason] == 0:
        s.ends_order[s.kinds_of_ends] = reason
        s.kinds_of_ends += 1
    s.ends[reason] += 1


def _forget_ends(s: Record) -> None:
    for at in range(s.kinds_of_ends):
        s.ends[s.ends_order[at]] = 0
    s.kinds_of_ends = 0


def _decide(s: Record, memory: Memory) -> None:
    """See `simulation.task_log.TaskLog.decide`: everything that ended since the last version."""
    for at in range(s.undecided):
        task = memory.tasks[memory.undecided[at]]
        task.is_decided = 1
        s.outcomes[task.outcome] += 1
        if task.outcome != SUCCEEDED and not math.isnan(task.ended_s):
            s.wasted_device_s += task.ended_s - task.started_s
    s.undecided = 0


def _close_round(s: Record, memory: Memory) -> None:
    """Cancel the round's tasks, in order of their start; what is not taken is void."""
    for number in range(s.round_first, s.started):
        task = memory.tasks[number]
        is_held = task.ending == 0 and not math.isnan(task.ended_s)
        if task.outcome < 0 and not is_held:
            close_task(s, memory, number, s.late_outcome, ROUND_CLOSED)
    s.round_first = s.started
    s.round += 1
    s.running = s.offered = s.open_slots = 0


def _begin_collecting(s: Record) -> None:
    s.granted = 0
    s.round_started_s = s.now_s


def _aggregate(s: Record, memory: Memory) -> None:
    """All that is held becomes the next version, as `JobRunner` makes it."""
    s.release_s = s.now_s
    s.dropped = 0
    version = memory.versions[s.versions]
    s.versions += 1
    staleness_sum = staleness_max = 0
    for at in range(s.held):
        number = memory.held[at]
        task = memory.tasks[number]
        staleness = s.version - task.base_version
        staleness_sum += staleness
        staleness_max = max(staleness_max, staleness)
        task.version = s.version + 1
        close_task(s, memory, number, SUCCEEDED, 0)
    s.succeeded += s.held
    version.updates = s.held
    s.held = 0
    s.version += 1
    if s.pins:
        close_round(s, memory)
    decide(s, memory)
    s.oldest_live = oldest_live_version(s)
    begin_collecting(s)
    version.version, version.virtual_s = s.version, s.now_s
    version.staleness_sum, version.staleness_max = staleness_sum, staleness_max
    version.tasks_started, version.in_flight = s.started, s.ends_to_come
    for outcome in range(6):
        version.outcomes[outcome] = s.outcomes[outcome]
    version.device_s, version.wasted_device_s = s.device_s, s.wasted_device_s
    version.bytes_down, version.bytes_up = s.bytes_down, s.bytes_up


def _abandon_round(s: Record, memory: Memory) -> None:
    """Too few updates came: what is held is dropped, and a round's tasks are cancelled.

    Those held that are not finite the fleet has given up already.
    """
    if s.pins:
        close_round(s, memory)
    for at in range(s.held):
        close_task(s, memory, memory.held[at], FAILED, ROUND_ABANDONED)
    if s.held > s.unheard:
        s.dropped += s.held - s.unheard
        s.update_s = s.release_s
    s.held = 0
    begin_collecting(s)


def _is_diverged(memory: Memory, number: int) -> bool:
    low, high = 0, len(memory.diverged)
    while low < high:
        middle = (low + high) >> 1
        if memory.diverged[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(memory.diverged) and memory.diverged[low] == number


def _give_up_diverged(s: Record, memory: Memory) -> bool:
    """Note at the fleet that updates held are not finite; returns whether there are any.

    See `simulation.fleet.VirtualFleet.release`.
    """
    if len(memory.diverged) == 0:
        return False
    given_up, update_s = 0, -math.inf
    for at in range(s.held):
        number = memory.held[at]
        if is_diverged(memory, number):
            given_up += 1
            note_end(s, NOT_FINITE)
        else:
            update_s = max(update_s, memory.tasks[number].ended_s)
    if given_up > 0:
        s.update_s = s.release_s if given_up == s.held else update_s
    s.unheard = given_up
    return given_up > 0


def _hear_of_diverged(s: Record, memory: Memory) -> None:
    """The coordinator hears of the first update held that is not finite: its task has failed.

    That is no news of a round that has been given up since.
    """
    s.unheard -= 1
    if s.held == 0:
        return
    place = 0
    while not is_diverged(memory, memory.held[place]):
        place += 1
    close_task(s, memory, memory.held[place], FAILED, NOT_FINITE)
    s.held -= 1
    for at in range(place, s.held):
        memory.held[at] = memory.held[at + 1]


def _take_step(s: Record, memory: Memory) -> bool:
    """Aggregate or abandon the round if that is the strategy's next step.

    Updates that are not finite are given up instead of aggregated. The coordinator hears of them
    one after the other, each in a turn of its own, and decides anew after each; until it has heard
    of all there is nothing to be had from the fleet.

    Returns:
        False if whoever trains is to be asked first which updates held are finite (`asks`); then to
        be called again.
    """
    step = next_step(s)
    if step == Step.ABANDON:
        abandon_round(s, memory)
    elif step == Step.AGGREGATE and s.held > 0 and s.unheard == 0:
        if s.asks and s.phase != RELEASE:
            s.phase = RELEASE
            return False
        if not give_up_diverged(s, memory):
            aggregate(s, memory)
    s.phase = TURN
    return True


end_on_device = compiled(_end_on_device)
close_task = compiled(_close_task)
note_end = compiled(_note_end)
forget_ends = compiled(_forget_ends)
decide = compiled(_decide)
close_round = compiled(_close_round, close_task=close_task)
begin_collecting = compiled(_begin_collecting)
aggregate = compiled(
    _aggregate,
    close_task=close_task,
    close_round=close_round,
    decide=decide,
    begin_collecting=begin_collecting,
)
abandon_round = compiled(
    _abandon_round,
    close_task=close_task,
    close_round=close_round,
    begin_collecting=begin_collecting,
)
is_diverged = compiled(_is_diverged)
give_up_diverged = compiled(_give_up_diverged, is_diverged=is_diverged, note_end=note_end)
hear_of_diverged = compiled(_hear_of_diverged, is_diverged=is_diverged, close_task=close_task)
take_step = compiled(
    _take_step,
    aggregate=aggregate,
    abandon_round=abandon_round,
    give_up_diverged=give_up_diverged,
)
