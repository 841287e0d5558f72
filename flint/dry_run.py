"""From a job file and an environment file to a recorded dry-run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_runtime.errors import FlintError
from feature_catalog.simulation_runs import SimulationRunRow
from flint.catalog_session import CatalogSession
from flint.measured_devices import measured_memory_mb
from flint.simulation_progress import Expected
from modeling.zoo import get_model
from server.feature_service import pin_feature_service, require_fitting_features
from server.job import Job
from server.job_file import load_job
from simulation.catalog_inputs import CatalogInputs
from simulation.environment import ClientOutput, Environment, load_environment
from simulation.evaluation import TorchEvaluation, metric_by_group
from simulation.event_path import choose_event_path
from simulation.executors.cut_off_records import named_when_cut_off
from simulation.executors.executor import Executor
from simulation.executors.make import executor_notes, make_executor, training_path
from simulation.executors.no_training import NoTraining
from simulation.experiment import (
    OnProgress,
    Training,
    new_run,
    require_same,
    run_trials,
)
from simulation.preparation import Preparation, prepare
from simulation.update_bytes import require_room_for_residuals
from simulation.update_log import outputs_of
from simulation.update_training import outputs_needed


@dataclass(frozen=True, slots=True)
class DryRunOptions:
    """What the command line adds to job and environment.

    Attributes:
        trials: None: as the environment says, or the run that is resumed.
        seed: None: the job's, or that of the run that is resumed.
        executors: Processes or actors that train; None: as for ``trials``.
        checkpoint_every: Aggregations between two checkpoints; None: as often as costs little.
        resume: Run to go on with.
        trains: Whether updates are trained; if not, only time, devices and bytes are simulated.
        client_outputs: What is recorded of each update; None: as for ``trials``.
    """

    trials: int | None = None
    seed: int | None = None
    executors: int | None = None
    checkpoint_every: int | None = None
    resume: str | None = None
    trains: bool = True
    client_outputs: tuple[ClientOutput, ...] | None = None


def simulate(
    catalog: CatalogSession,
    job_file: Path,
    environment_file: Path,
    options: DryRunOptions,
    note: Callable[[str], None],
    on_progress: OnProgress,
    expect: Callable[[Expected], None] = lambda _: None,
) -> SimulationRunRow:
    """Dry-run a job in an environment; returns the finished run.

    Args:
        note: Told the run's id, and what the user should know.
        expect: Told what the run will be, before it begins.

    Raises:
        FlintError: If a file or what it names is wrong, or the run cannot go on; one sentence. The
            run is then recorded as failed, and can be resumed where it had a checkpoint.
    """
    job, environment = load_job(job_file), load_environment(environment_file)
    job = pin_feature_service(job, catalog.features)
    if job.feature_service is not None:
        require_fitting_features(job, get_model(job.model), catalog.features)
    job = job if options.trains else _without_evaluation(job)
    runs = catalog.simulation_runs
    resumed = None if options.resume is None else runs.get(options.resume)
    seed, trials, executors = _as_asked(options, job, environment, resumed)
    environment = _with_outputs(options, environment, resumed)
    prepared = _prepared(
        catalog, job, environment, environment_file.parent, seed, trains=options.trains
    )
    if options.trains:
        require_room_for_residuals(job, prepared.dry_run.model, len(prepared.dry_run.records))
    begun = new_run(prepared, trials=trials, executors=executors)
    if resumed is not None:
        require_same(resumed, begun)
    row = runs.create(begun) if resumed is None else resumed
    note(f"run {row.run_id} of {job.name}: {len(prepared.dry_run.records)} clients")
    if resumed is not None and resumed.checkpoint_sha256 is None:
        note(f"run {row.run_id} was stopped before its first checkpoint: it begins anew")
    for sentence in prepared.notes:
        note(sentence)
    _tell_of_events(job, note, trains=options.trains)
    with runs.driving(row.run_id):
        executor: Executor | None = None
        try:
            executor = _executor(prepared, executors, note)
            path = training_path(executor)
            for sentence in (*executor_notes(executor, executors), *filter(None, [path])):
                note(sentence)
            in_short = None if path is None else path.split(", ")[0].removeprefix("training: ")
            _tell_of_compiling(environment, in_short, note)
            expect(Expected(job.stop, trials, in_short))
            with named_when_cut_off(prepared.records if options.trains else None, row.run_id):
                return run_trials(
                    prepared,
                    _training(prepared, executor, trains=options.trains),
                    runs,
                    row,
                    checkpoint_every=options.checkpoint_every,
                    on_progress=on_progress,
                )
        except FlintError as error:
            runs.fail(row.run_id, str(error))
            raise
        except (KeyboardInterrupt, SystemExit):
            note(f"stopped; the same command with --resume {row.run_id} takes it up again")
            raise
        finally:
            if executor is not None:
                executor.close()


def _tell_of_events(job: Job, note: Callable[[str], None], *, trains: bool) -> None:
    """What the user should know of how a run's events are computed."""
    note(choose_event_path(job, trains=trains).sentence)
    from simulation.timeline.compilation import is_compiled

    if not is_compiled():
        note("compiling the event engine, once for this version of FLINT: some seconds")


def _tell_of_compiling(
    environment: Environment, path: str | None, note: Callable[[str], None]
) -> None:
    """Why the first updates on this machine take so long."""
    if environment.executors.kind != "local":
        return  # a cluster's nodes compile for themselves
    if path != "compiled kernel":
        return
    from simulation.executors.compiled.compiling import is_compiled

    if not is_compiled():
        note("compiling the kernel, once for this version of FLINT: some ten to twenty seconds")


def _as_asked(
    options: DryRunOptions, job: Job, environment: Environment, resumed: SimulationRunRow | None
) -> tuple[int, int, int]:
    """Seed, trials and executors: as the command line says, else the run resumed, else the files.

    A run that trains nothing has 0 executors.
    """
    given = (options.seed, options.trials, options.executors if options.trains else 0)
    if resumed is not None:
        files = (resumed.seed, resumed.trials, resumed.executors or environment.executors.count)
    else:
        files = (job.seed, environment.trials, environment.executors.count)
    seed, trials, executors = (
        default if asked is None else asked for asked, default in zip(given, files, strict=True)
    )
    return seed, trials, executors


def _with_outputs(
    options: DryRunOptions, environment: Environment, resumed: SimulationRunRow | None
) -> Environment:
    """The environment with the outputs that the command line, else the run resumed, asks for."""
    asked = environment.client_outputs if options.client_outputs is None else options.client_outputs
    if options.client_outputs is None and resumed is not None:
        asked = json.loads(resumed.environment_json).get("client_outputs", ())
    if not options.trains:
        asked = ()  # there is nothing to be known of an update that is not trained
    return environment.model_copy(update={"client_outputs": tuple(asked)})


def _prepared(
    catalog: CatalogSession,
    job: Job,
    environment: Environment,
    folder: Path,
    seed: int,
    *,
    trains: bool,
) -> Preparation:
    return prepare(
        job,
        environment,
        folder,
        CatalogInputs(folder, catalog.environment_inputs),
        catalog.datasets,
        catalog.models,
        seed,
        _memory_mb(catalog, job),
        trains=trains,
    )


def _memory_mb(catalog: CatalogSession, job: Job) -> dict[str, float]:
    asked = job.participation.device
    if asked is None or asked.max_memory_mb is None:
        return {}
    return measured_memory_mb(catalog.measurements, job.model)


def _executor(prepared: Preparation, executors: int, note: Callable[[str], None]) -> Executor:
    """What trains the updates: so many processes or actors, none at all if 0."""
    model, client, records = prepared.dry_run.model, prepared.dry_run.job.client, prepared.records
    if executors == 0 or records is None:
        examples = np.minimum(prepared.record_counts, client.max_records)
        return NoTraining(model.parameter_count, examples)
    dry_run = prepared.dry_run
    asked = dry_run.environment.executors
    return make_executor(
        asked.kind,
        executors,
        model,
        client,
        records,
        outputs_needed(dry_run.job) | outputs_of(dry_run.environment.client_outputs),
        dry_run.environment.training,
        cluster=asked.cluster,
        on_replaced=note,
        stall_timeout_s=asked.stall_timeout_s,
    )


def _training(prepared: Preparation, executor: Executor, *, trains: bool) -> Training:
    evaluation, records = prepared.dry_run.job.evaluation, prepared.records
    if evaluation is None or prepared.evaluation is None or records is None:
        return Training(executor, None, None, training_path(executor), trains=trains)
    model = prepared.dry_run.model
    return Training(
        executor,
        TorchEvaluation(model, *prepared.evaluation.heldout(), evaluation.metric),
        lambda weights, data_client, tiers: metric_by_group(
            model, weights, records, data_client, tiers, evaluation.metric
        ),
        training_path(executor),
    )


def _without_evaluation(job: Job) -> Job:
    """The job with nothing measured: a model that is not trained has no metric to report."""
    stop = job.stop.model_copy(update={"target": None})
    return job.model_copy(update={"evaluation": None, "stop": stop})
