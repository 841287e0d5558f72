"""A trial without training on the compiled engine: what `simulation.trial.Trial` would record."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.coordination.limits import NOT_REACHED, limit_in_words, limit_reached, limits_of
from server.coordination.progress import JobProgress
from server.coordination.versions import JobTotals
from simulation.durations import TaskDuration, moved_bytes
from simulation.patience import Patience, trace_ended
from simulation.task_log import TASK_SCHEMA
from simulation.timeline.engine import (
    EXHAUSTED,
    PAUSED,
    STOPPED,
    TRACE_ENDED,
)
from simulation.timeline.layout import (
    JOB_ENDED,
    OUTCOMES,
    OVER_COMMITTED,
    REASONS,
    VERSION,
)
from simulation.timeline.timeline import EVENTS_AT_ONCE, Timeline, set_up
from simulation.traces.criteria import DailyHours
from simulation.trajectory import TRAJECTORY_SCHEMA
from simulation.trial import DryRun, TrialResult

_EVENTS_ASKED = 100_000
"""At once, where a strategy in Python is asked at most of them."""


def run_compiled(
    dry_run: DryRun,
    number: int,
    on_progress: Callable[[JobProgress, float], None] = lambda *_: None,
) -> TrialResult:
    """Run a trial that trains nothing, from start to end.

    It gives the tables that `simulation.trial.Trial` gives with `NoTraining`, equal to the bit but
    for ``wall_s``. It keeps no checkpoint: what was killed begins anew, and is soon there again.

    Args:
        number: Of the trial, from 0.
        on_progress: Told of progress and virtual seconds, now and then.
    """
    begun_s = time.monotonic()
    engine = set_up(dry_run, number)
    at_once = EVENTS_AT_ONCE if engine.asked is None else _EVENTS_ASKED
    wall_s = [0.0]
    code = PAUSED
    while code == PAUSED:
        code = engine.go_on(at_once)
        wall_s += [time.monotonic() - begun_s] * (engine.number("versions") + 1 - len(wall_s))
        on_progress(progress_of(engine), engine.seconds("now_s"))
    reason = why_it_ended(dry_run, engine, code)
    end_tasks(dry_run, engine)
    return TrialResult(
        number,
        reason,
        code != STOPPED,
        engine.seconds("now_s"),
        trajectory_table(dry_run, number, engine, wall_s),
        tasks_table(number, engine),
        dry_run.initial_weights,
        time.monotonic() - begun_s,
    )


def progress_of(engine: Timeline, metric: float | None = None) -> JobProgress:
    """How far the engine has come, beside the newest metric."""
    counts = engine.state["outcomes"][0].tolist()
    return JobProgress(
        engine.number("version"),
        metric,
        None,
        JobTotals(
            engine.seconds("now_s"),
            engine.number("succeeded"),
            dict(zip(OUTCOMES, counts, strict=True)),
        ),
        engine.number("running"),
        engine.number("offered"),
        engine.number("held"),
    )


def why_it_ended(dry_run: DryRun, engine: Timeline, code: int) -> str:
    """Why the trial ended, in the words of coordinator and fleet."""
    if code == TRACE_ENDED:
        hours = DailyHours.parse(dry_run.job.participation.state.allowed_hours)
        return trace_ended(engine.seconds("now_s"), hours).sentence
    if code == EXHAUSTED:
        order = engine.state["ends_order"][0][: engine.number("kinds_of_ends")].tolist()
        ends = engine.state["ends"][0]
        patience = Patience()
        patience.restore(
            {
                "update_s": engine.seconds("update_s"),
                "release_s": engine.seconds("release_s"),
                "ends": {REASONS[reason]: int(ends[reason]) for reason in order},
                "dropped": engine.number("dropped"),
            }
        )
        return patience.exhausted().sentence
    stop = dry_run.job.stop
    limit = limit_reached(
        engine.number("version"),
        engine.number("succeeded"),
        engine.seconds("now_s"),
        *limits_of(stop),
    )
    if limit == NOT_REACHED:
        raise RuntimeError("the event engine stopped for no limit of the job")
    return limit_in_words(stop, limit)


def end_tasks(dry_run: DryRun, engine: Timeline) -> None:
    """Devices stop where they are; what the coordinator still counted on comes to nothing."""
    memory, now_s = engine.memory, engine.seconds("now_s")
    tasks = memory.tasks[: engine.number("started")]
    for number in np.flatnonzero(np.isnan(tasks["ended_s"])).tolist():
        task = tasks[number]
        phases = TaskDuration(
            float(task["download_s"]), float(task["train_s"]), float(task["upload_s"])
        )
        spent_s = now_s - float(task["started_s"])
        task["bytes_down"], task["bytes_up"] = moved_bytes(phases, dry_run.work, spent_s)
        task["ended_s"] = now_s
    unfinished = tasks["outcome"] < 0
    tasks["outcome"][unfinished] = OVER_COMMITTED
    tasks["reason"][unfinished] = JOB_ENDED


def tasks_table(trial: int, engine: Timeline) -> pa.Table:
    """Columns of `TASK_SCHEMA`."""
    tasks = engine.memory.tasks[: engine.number("started")]
    count = len(tasks)
    columns = {
        "trial": np.full(count, trial, np.int32),
        "task": np.arange(1, count + 1),
        "device_s": tasks["ended_s"] - tasks["started_s"],
        "version": pa.array(tasks["version"], pa.int64(), mask=tasks["version"] < 0),
        "outcome": pa.array(OUTCOMES).take(pa.array(tasks["outcome"])),
        "reason": pa.array(engine.reasons).take(pa.array(tasks["reason"])),
    }
    for name in TASK_SCHEMA.names:
        if name not in columns:
            columns[name] = np.ascontiguousarray(tasks[name])
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in TASK_SCHEMA],
        schema=TASK_SCHEMA,
    )


def trajectory_table(
    dry_run: DryRun,
    trial: int,
    engine: Timeline,
    wall_s: Sequence[float] | NDArray[np.float64],
    learnt: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """Columns of `TRAJECTORY_SCHEMA`, with the row of version 0 before those of the engine.

    Args:
        wall_s: When each version came about, version 0 too.
        learnt: Columns ``metric, loss, train_loss`` of the same versions; None: nothing was learnt.
    """
    rows = np.concatenate((np.zeros(1, VERSION), engine.memory.versions[: len(wall_s) - 1]))
    count, none = len(rows), rows["version"] == 0
    updates = np.maximum(rows["updates"], 1)
    absent = dict.fromkeys(("metric", "loss", "train_loss"), pa.nulls(count, pa.float64()))
    columns = {
        "trial": np.full(count, trial, np.int32),
        **(learnt or absent),
        "staleness_mean": pa.array(rows["staleness_sum"] / updates, mask=none),
        "staleness_max": pa.array(rows["staleness_max"], mask=none),
        **{outcome: rows["outcomes"][:, at] for at, outcome in enumerate(OUTCOMES)},
        "available": dry_run.population.count_available(rows["virtual_s"]),
        "wall_s": np.array(wall_s),
    }
    for name in TRAJECTORY_SCHEMA.names:
        if name not in columns:
            columns[name] = rows[name]
    return pa.table(
        [pa.array(columns[field.name]).cast(field.type) for field in TRAJECTORY_SCHEMA],
        schema=TRAJECTORY_SCHEMA,
    )
