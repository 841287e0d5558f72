"""A recorded dry-run of a Flower app: prepared, run trial by trial, and kept in the catalog."""

import hashlib
import importlib.metadata
import io
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.errors import FlintError
from feature_catalog.code_version import code_version
from feature_catalog.simulation_runs import (
    NewSimulationRun,
    RunInput,
    SimulationRunRow,
    SimulationRuns,
)
from simulation.environment import Environment, InvalidEnvironmentValue
from simulation.flower.app_folder import FlowerApp
from simulation.flower.rounds import Progress
from simulation.flower.trial import FlowerDryRun, FlowerTrial, run_flower_trial
from simulation.inputs import InputResolver
from simulation.run_summary import availability_table, over_trials, population_table, summarise
from simulation.trial import TrialResult
from simulation.world import load_world, populate

_COMPUTES = ("flwr", "numpy", "torch", "tensorflow", "jax", "sklearn", "xgboost")
_CODE = {".py", ".toml"}

OnProgress = Callable[[int, Progress], None]
"""Told the trial and its progress, after every round."""


def prepare_flower_run(
    app: FlowerApp,
    environment: Environment,
    resolver: InputResolver,
    seed: int,
    local_epochs: int = 1,
) -> FlowerDryRun:
    """Read an environment's traces and put a client of the app on each device of its population.

    Args:
        local_epochs: How often the app passes over its examples in a task of training: its replies
            say how many examples there are, not how often each was used.

    Raises:
        InvalidEnvironmentValue: If ``population.clients`` is missing: an app does not say it.
        FlintError: What `load_world` and `populate` raise.
    """
    clients = environment.population.clients
    if clients is None:
        raise InvalidEnvironmentValue(
            f"population.clients is missing: {app.name} brings its own data, so nobody else says "
            "how many clients there are; add population: {clients: ...}"
        )
    records = np.ones(clients, np.int64)
    world = load_world(environment, resolver)
    mapping, devices = populate(world, environment, records)
    return FlowerDryRun(app, environment, world, mapping, devices, records, seed, local_epochs)


def notes(environment: Environment) -> list[str]:
    """What of an environment a Flower app does not use."""
    said = []
    if environment.dataset is not None:
        said.append("dataset is not used: a Flower app brings its own data")
    if environment.population.records is not None:
        said.append("population.records is not used: a Flower app says how many records it uses")
    if environment.executors.count > 1 or environment.executors.kind == "ray":
        said.append("executors is not used: clients of a Flower app train in this process")
    return said


def new_flower_run(dry_run: FlowerDryRun, trials: int) -> NewSimulationRun:
    """The record of a run that begins."""
    app = dry_run.app
    started = {
        "app": app.name,
        "version": app.version,
        "serverapp": app.server,
        "clientapp": app.client,
        "run_config": app.run_config,
        "local_epochs": dry_run.local_epochs,
        "code_sha256": _code_sha256(app.folder),
    }
    return NewSimulationRun(
        name=app.name,
        kind="flower_app",
        job_json=json.dumps(started),
        environment_json=dry_run.environment.to_json(),
        inputs={
            key: RunInput(each.reference, each.version, each.sha256)
            for key, each in dry_run.world.inputs.items()
        },
        seed=dry_run.seed,
        trials=trials,
        executors=1,
        code_version=code_version(),
        versions={"python": platform.python_version(), **versions_that_compute()},
    )


def versions_that_compute() -> dict[str, str]:
    """Versions of what a Flower app's numbers come from, by distribution, imported so far."""
    # A module's distribution has often another name: tensorflow-cpu, scikit-learn.
    distributions = importlib.metadata.packages_distributions()
    return {
        distribution: importlib.metadata.version(distribution)
        for module in _COMPUTES
        if module in {"flwr", "numpy"} or module in sys.modules
        for distribution in sorted(set(distributions.get(module, ())))
    }


def run_flower_trials(
    dry_run: FlowerDryRun,
    runs: SimulationRuns,
    row: SimulationRunRow,
    on_progress: OnProgress = lambda *_: None,
) -> SimulationRunRow:
    """Run all trials of a recorded run; returns its finished record.

    A run that fails is recorded as failed, with why; one that is asked to end, as interrupted.

    Raises:
        FlintError: See `run_flower_trial`.
    """
    with runs.driving(row.run_id):
        try:
            done = [
                run_flower_trial(dry_run, trial, lambda told, trial=trial: on_progress(trial, told))  # type: ignore[misc]
                for trial in range(row.trials)
            ]
        except Exception as error:  # who asks it to end leaves it interrupted
            said = str(error) if isinstance(error, FlintError) else type(error).__name__
            runs.fail(row.run_id, said)
            raise
        return runs.finish(row.run_id, summary_of(dry_run, done), files_of(dry_run, done))


def summary_of(dry_run: FlowerDryRun, done: Sequence[FlowerTrial]) -> dict[str, Any]:
    """Figures of a run, as they are recorded; those of every dry-run and the app's own."""
    trials = [_trial_summary(dry_run, each) for each in done]
    return {
        "metric_name": done[0].metric_name,
        "metric_source": done[0].metric_source,
        "clients": len(dry_run.records),
        "trials": trials,
        "over_trials": over_trials(trials),
    }


def _trial_summary(dry_run: FlowerDryRun, trial: FlowerTrial) -> dict[str, Any]:
    result = TrialResult(
        trial=trial.trial,
        stop_reason="the ServerApp ended",
        is_exhausted=False,
        virtual_s=trial.virtual_s,
        trajectory=trial.trajectory,
        tasks=trial.tasks,
        weights=np.empty(0, np.float32),
        wall_s=trial.wall_s,
    )
    errors = sorted(trial.client_errors.items(), key=lambda item: (-item[1], item[0]))
    return {
        **summarise(dry_run.population, result, None),
        "aggregations": trial.aggregations,
        "messages": trial.messages,
        "undelivered": trial.undelivered,
        "client_errors": [{"error": error, "tasks": count} for error, count in errors],
    }


def files_of(dry_run: FlowerDryRun, done: Sequence[FlowerTrial]) -> dict[str, bytes]:
    """Files of a run, as those of any dry-run, and the final arrays of each trial (NPZ)."""
    until_s = max(each.virtual_s for each in done)
    partitions = pa.array(np.arange(len(dry_run.population)))
    population = dry_run.population
    return {
        "trajectory": _parquet(pa.concat_tables([each.trajectory for each in done])),
        "tasks": _parquet(pa.concat_tables([each.tasks for each in done])),
        "population": _parquet(population_table(population, partitions)),
        "availability": _parquet(availability_table(population, until_s)),
        **{f"arrays-{each.trial}": _npz(each) for each in done if each.arrays},
    }


def _npz(trial: FlowerTrial) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **cast(dict[str, Any], trial.arrays))
    return buffer.getvalue()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _code_sha256(folder: Path) -> str:
    """Digest of an app's code: names and contents of its Python and TOML files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in within.parts)
        if path.suffix in _CODE and path.is_file() and not is_hidden:
            digest.update(f"{within.as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
