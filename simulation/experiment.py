"""A whole dry-run: its trials one after the other, its record and its checkpoints."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from device_runtime.update_codec import encode_parameters, unflatten
from feature_catalog.code_version import code_version, package_versions
from feature_catalog.simulation_runs import NewSimulationRun, SimulationRunRow, SimulationRuns
from server.coordination.job_runner import Evaluate
from server.coordination.progress import JobProgress
from server.job import Job
from simulation.checkpoint import (
    CheckpointPace,
    UnusableCheckpoint,
    decode_checkpoint,
    encode_checkpoint,
)
from simulation.enclave_load import enclave_load
from simulation.environment import Environment
from simulation.event_path import EventPath, choose_event_path
from simulation.executors.executor import Executor
from simulation.patience import FleetExhausted
from simulation.preparation import Preparation
from simulation.run_summary import (
    MetricByTier,
    availability_table,
    over_trials,
    population_table,
    summarise,
)
from simulation.table_bytes import parquet_bytes
from simulation.trial import DryRun, TrialResult
from simulation.update_bytes import enclave_bytes
from simulation.update_log import DivergedUpdate, diverged_as_json, diverged_sentence

_COMPUTES = ("numpy", "torch", "pyarrow")
_EVERY_VERSION = 2**62

OnProgress = Callable[[int, JobProgress, float], None]
"""Told the trial, its progress and its virtual seconds, after every event."""


@dataclass(frozen=True, slots=True)
class Training:
    """What trains and measures.

    Attributes:
        evaluate: None if the job asks for no evaluation, or nothing is trained.
        by_tier: Measures a version on the records of each device tier.
        path: How updates are trained, and why, a sentence; None if nothing is trained.
        trains: Whether updates are trained; if not, the executor's are zero.
    """

    executor: Executor
    evaluate: Evaluate | None
    by_tier: MetricByTier | None
    path: str | None = None
    trains: bool = True


def new_run(prepared: Preparation, *, trials: int, executors: int) -> NewSimulationRun:
    """The record of a run that begins.

    Args:
        executors: Processes or actors that train; 0 for a run that trains nothing.
    """
    dry_run = prepared.dry_run
    return NewSimulationRun(
        name=dry_run.job.name,
        kind="job",
        job_json=dry_run.job.to_json(),
        environment_json=dry_run.environment.to_json(),
        inputs=prepared.inputs,
        seed=dry_run.seed,
        trials=trials,
        executors=executors,
        code_version=code_version(),
        versions=package_versions(_COMPUTES),
    )


def require_same(row: SimulationRunRow, run: NewSimulationRun) -> None:
    """Refuse to go on with a run that was of something else.

    What trains may be another: results do not depend on it, and a cluster may be gone.

    Args:
        row: The run to be resumed.
        run: What it would be recorded as now.

    Raises:
        UnusableCheckpoint: Names the first difference.
    """
    if (row.executors == 0) != (run.executors == 0):
        how = "with" if row.executors == 0 else "without"
        raise UnusableCheckpoint(
            f"run {row.run_id} was started {how} --no-training; resume it in the same way"
        )
    for what, kind, then, now in (
        ("job", Job, row.job_json, run.job_json),
        ("environment", Environment, row.environment_json, run.environment_json),
    ):
        found = _difference(_what_decides(then, kind), _what_decides(now, kind))
        if found is not None:
            key, before, after = found
            raise UnusableCheckpoint(
                f"run {row.run_id} is of another {what}: there {key} is {before!r}, here "
                f"{after!r}; resume it with the files it was started with, or start a new run"
            )
    for key, recorded in row.inputs.items():
        if key not in run.inputs or run.inputs[key].sha256 != recorded.sha256:
            raise UnusableCheckpoint(
                f"run {row.run_id} was started with another {key} ({recorded.reference} has "
                "changed since); start a new run"
            )
    for name, then_n, now_n in (
        ("--seed", row.seed, run.seed),
        ("--trials", row.trials, run.trials),
    ):
        if then_n != now_n:
            raise UnusableCheckpoint(
                f"run {row.run_id} was started with {name} {then_n}, not {now_n}; resume it with "
                "the same"
            )


def run_trials(
    prepared: Preparation,
    training: Training,
    runs: SimulationRuns,
    row: SimulationRunRow,
    *,
    checkpoint_every: int | None,
    on_progress: OnProgress = lambda *_: None,
) -> SimulationRunRow:
    """Run, or go on with, all trials of a recorded run; returns its finished record.

    Args:
        row: The record; whoever calls drives the run (`SimulationRuns.driving`).
        checkpoint_every: Aggregations between two checkpoints; None: as `CheckpointPace` has
            it.

    Raises:
        FleetExhausted: If not even one aggregation of any trial came about.
        ModelDiverged: If an aggregation gives a model that is not finite.
        UnusableCheckpoint: If the run's checkpoint cannot be read.
    """
    done, state = _taken_up(runs, row)
    states, pace = [_result_state(each) for each in done], CheckpointPace()

    def save(trial_state: Mapping[str, Any] | None) -> None:
        kept = {"done": states, "trial": trial_state}
        pace.keep(lambda: runs.save_checkpoint(row.run_id, encode_checkpoint(row.run_id, kept)))

    for number in range(len(done), row.trials):
        result = run_trial(
            prepared.dry_run,
            training,
            number,
            state=state,
            save=save,
            checkpoint_every=checkpoint_every or 1,
            is_due=pace.is_due if checkpoint_every is None else lambda: True,
            on_progress=on_progress,
        )
        state = None
        if result.is_exhausted and len(result.trajectory) == 1:
            raise FleetExhausted(_why_nothing_came(result))
        done.append(result)
        if len(done) < row.trials:
            states.append(_result_state(result))
        if not training.trains and len(done) < row.trials:
            save(None)  # within a trial the compiled engine keeps nothing
        training.executor.forget_weights(_EVERY_VERSION)
    return runs.finish(row.run_id, _summary(prepared, training, done), _files(prepared, done))


def run_trial(
    dry_run: DryRun,
    training: Training,
    number: int,
    *,
    state: Mapping[str, Any] | None = None,
    save: Callable[[Mapping[str, Any]], None] = lambda _: None,
    checkpoint_every: int = 0,
    is_due: Callable[[], bool] = lambda: True,
    on_progress: OnProgress = lambda *_: None,
) -> TrialResult:
    """One trial on the compiled engine, as `choose_event_path` says.

    Args:
        number: Of the trial, from 0.
        state: To go on from, of a checkpoint.
        save: Given a state to go on from, every ``checkpoint_every`` aggregations; 0 for never. A
            trial that trains nothing keeps none on the engine: it is soon there again.
        is_due: Asked then whether it is time to save.

    Raises:
        ModelDiverged: If an aggregation gives a model that is not finite.
    """

    def progressed(progress: JobProgress, virtual_s: float) -> None:
        on_progress(number, progress, virtual_s)

    # Compiled only where it is used: Numba takes its time to load.
    from simulation.timeline.lock_step import LockStepTrial
    from simulation.timeline.training import TimelineTrial
    from simulation.timeline.trial import run_compiled

    if not training.trains:
        return run_compiled(dry_run, number, progressed)
    in_lock_step = event_path(dry_run, trains=True).in_lock_step
    trial = (LockStepTrial if in_lock_step else TimelineTrial)(
        dry_run,
        number,
        training.executor,
        training.evaluate,
        on_progress=progressed,
        state=state,
    )
    return trial.run(save, checkpoint_every, is_due)


def event_path(dry_run: DryRun, *, trains: bool) -> EventPath:
    """Which way a dry-run's events go; see `choose_event_path`."""
    return choose_event_path(dry_run.job, trains=trains, own_strategy=dry_run.own_strategy)


def _taken_up(
    runs: SimulationRuns, row: SimulationRunRow
) -> tuple[list[TrialResult], Mapping[str, Any] | None]:
    data = runs.load_checkpoint(row)
    if data is None:
        return [], None
    state = decode_checkpoint(row.run_id, data)
    return [_result_of(each) for each in state["done"]], state["trial"]


def _summary(
    prepared: Preparation, training: Training, done: Sequence[TrialResult]
) -> dict[str, Any]:
    population = prepared.dry_run.population
    trials = [
        summarise(population, result, training.by_tier) | _enclave(prepared, result)
        for result in done
    ]
    evaluation = prepared.dry_run.job.evaluation
    return {
        "metric_name": evaluation.metric if evaluation and training.evaluate else None,
        "clients": len(population),
        "training_path": training.path,
        "event_path": event_path(prepared.dry_run, trains=training.trains).sentence,
        "trials": trials,
        "over_trials": over_trials(trials),
        "criteria": [
            {"name": c.name, "remaining": c.remaining, "sentence": c.sentence}
            for c in prepared.criteria
        ],
    }


def _why_nothing_came(result: TrialResult) -> str:
    said = f"no aggregation came about: {result.stop_reason}"
    diverged = diverged_sentence({"diverged": diverged_as_json(result.diverged)})
    return said if diverged is None else f"{said}; {diverged}"


def _enclave(prepared: Preparation, result: TrialResult) -> dict[str, Any]:
    """What went into the enclave, where the job has one."""
    job = prepared.dry_run.job
    bytes_per_update = enclave_bytes(job, prepared.dry_run.model)
    if bytes_per_update is None:
        return {}
    budget = job.budget.enclave_mb_per_s
    load = enclave_load(bytes_per_update, result.tasks, result.virtual_s, budget)
    return {"enclave": load.as_json()}


def _files(prepared: Preparation, done: Sequence[TrialResult]) -> dict[str, bytes]:
    dry_run = prepared.dry_run
    parameters = dry_run.model.parameters
    until_s = max(result.virtual_s for result in done)
    return {
        "trajectory": parquet_bytes(pa.concat_tables([each.trajectory for each in done])),
        "tasks": parquet_bytes(pa.concat_tables([each.tasks for each in done])),
        "population": parquet_bytes(population_table(dry_run.population, prepared.data_clients)),
        "availability": parquet_bytes(availability_table(dry_run.population, until_s)),
        **{
            f"model-{each.trial}": encode_parameters(
                parameters, unflatten(parameters, each.weights)
            )
            for each in done
        },
    }


def _result_state(result: TrialResult) -> dict[str, Any]:
    return {
        "trial": result.trial,
        "stop_reason": result.stop_reason,
        "is_exhausted": result.is_exhausted,
        "virtual_s": result.virtual_s,
        "trajectory": parquet_bytes(result.trajectory),
        "tasks": parquet_bytes(result.tasks),
        "weights": result.weights,
        "wall_s": result.wall_s,
        "diverged": [list(astuple(each)) for each in result.diverged],
    }


def _result_of(state: Mapping[str, Any]) -> TrialResult:
    tables = {
        name: pq.read_table(pa.py_buffer(np.asarray(state[name]).tobytes()))
        for name in ("trajectory", "tasks")
    }
    diverged = tuple(DivergedUpdate(*each) for each in state.get("diverged", ()))
    return TrialResult(**{**state, **tables, "diverged": diverged})


def _what_decides(file_json: str, kind: type[Job | Environment]) -> dict[str, Any]:
    """A job or an environment without what trains its updates.

    Keys that came into being after a run was recorded have their defaults.
    """
    try:
        whole = kind.model_validate_json(file_json).model_dump(mode="json")
    except ValidationError:  # of a version with other keys or limits: the difference is named
        whole = json.loads(file_json)
    return {key: value for key, value in whole.items() if key != "executors"}


def _difference(then: object, now: object, path: str = "") -> tuple[str, object, object] | None:
    """First key, in order, at which two JSON values differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in [*then, *(key for key in now if key not in then)]:
            below = f"{path}.{key}" if path else key
            found = _difference(then.get(key), now.get(key), below)
            if found is not None:
                return found
        return None
    return None if then == now else (path, then, now)
