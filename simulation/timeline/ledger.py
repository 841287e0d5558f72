"""Compiled bookkeeping of tasks: what each cost, how each ended, and what a version is made of."""

import math

from simulation.timeline.compilation import compiled
from simulation.timeline.decisions import oldest_live_version
from simulation.timeline.layout import (
    FAILED,
    FEDAVG,
    OVER_COMMITTED,
    ROUND_ABANDONED,
    ROUND_CLOSED,
    SUCCEEDED,
    Memory,
    Record,
)

NUMBER_BITS = 40
"""Entries of the heap of tasks are ordered by kind, then number."""


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
            close_task(s, memory, number, OVER_COMMITTED, ROUND_CLOSED)
    s.round_first = s.started
    s.round += 1
    s.running = s.offered = s.open_slots = 0


def _begin_collecting(s: Record) -> None:
    s.granted = 0
    s.round_started_s = s.now_s


def _aggregate(s: Record, memory: Memory) -> None:
    """All that is held becomes the next version, as `JobRunner` makes it."""
    if s.held == 0:
        return
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
    if s.strategy == FEDAVG:
        close_round(s, memory)
    decide(s, memory)
    s.oldest_live = oldest_live_version(s)
    begin_collecting(s)
    version.version, version.virtual_s = s.version, s.now_s
    version.staleness_sum, version.staleness_max = staleness_sum, staleness_max
    version.tasks_started, version.in_flight = s.started, s.in_heap
    for outcome in range(6):
        version.outcomes[outcome] = s.outcomes[outcome]
    version.device_s, version.wasted_device_s = s.device_s, s.wasted_device_s
    version.bytes_down, version.bytes_up = s.bytes_down, s.bytes_up


def _abandon_round(s: Record, memory: Memory) -> None:
    """Too few updates came: the round's tasks are cancelled, and what is held is dropped."""
    close_round(s, memory)
    for at in range(s.held):
        close_task(s, memory, memory.held[at], FAILED, ROUND_ABANDONED)
    if s.held > 0:
        s.dropped += s.held
        s.update_s = s.release_s
    s.held = 0
    begin_collecting(s)


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
