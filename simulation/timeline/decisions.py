"""A strategy's decisions in the compiled engine: the very functions that the coordinator calls.

Those of a strategy in Python have been answered beforehand (`simulation.timeline.asked_strategy`).
"""

import math

from server.coordination import limits
from server.strategies import fedavg, fedbuff
from server.strategies.strategy import Step
from simulation.timeline.compilation import compiled
from simulation.timeline.layout import FEDBUFF, PYTHON, Record

_missing_tasks = compiled(fedbuff.missing_tasks)
_buffer_step = compiled(fedbuff.buffer_step)
_oldest_live = compiled(fedbuff.oldest_live)
_round_tasks = compiled(fedavg.round_tasks)
_missing_round_tasks = compiled(fedavg.missing_round_tasks)
_round_step = compiled(fedavg.round_step)
_limit_reached = compiled(limits.limit_reached)


def _tasks_to_start(s: Record) -> int:
    """`Strategy.tasks_to_start`; a virtual fleet loses no task with a gateway."""
    if s.strategy == PYTHON:
        return int(s.tasks)
    if s.strategy == FEDBUFF:
        return _missing_tasks(s.offered, s.running, s.concurrency)
    return _missing_round_tasks(s.granted, 0, _round_tasks(s.cohort_size, s.over_commitment))


def _next_step(s: Record) -> int:
    """`Strategy.next_step`: a `Step`."""
    if s.strategy == PYTHON:
        return int(s.step)
    if s.strategy == FEDBUFF:
        return _buffer_step(s.held, s.buffer_size)
    if s.granted == 0:
        return Step.WAIT
    unfinished = s.offered + s.running
    deadline_s = s.round_started_s + s.round_deadline_s
    return _round_step(s.held, unfinished, s.now_s, deadline_s, s.cohort_size, s.min_updates)


def _wakes_s(s: Record) -> float:
    """Until when the coordinator waits for an event, from `Strategy.deadline_s`."""
    if s.strategy == FEDBUFF:
        return math.inf
    deadline_s = s.deadline_s
    if s.strategy != PYTHON:
        deadline_s = s.round_started_s + s.round_deadline_s
    return float(s.now_s + max(0.0, deadline_s - s.now_s))


def _oldest_live_version(s: Record) -> int:
    """`Strategy.oldest_live_version` of the newest version."""
    if s.strategy == PYTHON:
        return int(s.next_oldest_live)
    if s.strategy == FEDBUFF:
        return _oldest_live(s.version, s.max_staleness)
    return int(s.version)


def _limit(s: Record) -> int:
    """The job's limit that has been reached."""
    return _limit_reached(
        s.version, s.succeeded, s.now_s, s.max_aggregations, s.max_updates, s.max_hours
    )


tasks_to_start = compiled(_tasks_to_start)
next_step = compiled(_next_step)
wakes_s = compiled(_wakes_s)
oldest_live_version = compiled(_oldest_live_version)
limit = compiled(_limit)
