"""From a job file and an environment file to a recorded dry-run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_runtime.errors import FlintError
from feature_catalog.simulation_runs import SimulationRunRow
from flint.catalog_session import CatalogSession
from server.job import Job
from server.job_file import load_job
from simulation.catalog_inputs import CatalogInputs
from simulation.environment import Environment, load_environment
from simulation.evaluation import TorchEvaluation, metric_by_group
from simulation.executors.executor import Executor
from simulation.executors.make import make_executor
from simulation.experiment import OnProgress, Training, new_run, require_same, run_trials
from simulation.preparation import Preparation, prepare
from simulation.update_bytes import require_room_for_residuals


@dataclass(frozen=True, slots=True)
class DryRunOptions:
    """What the command line adds to job and environment.

    Attributes:
        trials: None: as the environment says.
        seed: None: the job's.
        executors: Processes that train; None: as the environment says.
        resume: Run to go on with.
        system_only: Train nothing: only time, devices and bytes are simulated.
    """

    trials: int | None = None
    seed: int | None = None
    executors: int | None = None
    checkpoint_every: int = 25
    resume: str | None = None
    system_only: bool = False


def simulate(
    catalog: CatalogSession,
    job_file: Path,
    environment_file: Path,
    options: DryRunOptions,
    note: Callable[[str], None],
    on_progress: OnProgress,
) -> SimulationRunRow:
    """Dry-run a job in an environment; returns the finished run.

    Args:
        note: Told the run's id, and what the user should know.

    Raises:
        FlintError: If a file or what it names is wrong, or the run cannot go on; one sentence. The
            run is then recorded as failed, and can be resumed where it had a checkpoint.
    """
    job, environment = load_job(job_file), load_environment(environment_file)
    job = _without_evaluation(job) if options.system_only else job
    prepared = _prepared(catalog, job, environment, environment_file.parent, options.seed)
    if not options.system_only:
        require_room_for_residuals(job, prepared.dry_run.model, len(prepared.dry_run.records))
    executors = options.executors or environment.executors.count
    begun = new_run(prepared, trials=options.trials or environment.trials, executors=executors)
    runs = catalog.simulation_runs
    if options.resume is None:
        row = runs.create(begun)
    else:
        row = runs.get(options.resume)
        require_same(row, begun)
    note(f"run {row.run_id} of {job.name}: {len(prepared.dry_run.records)} clients")
    for sentence in prepared.notes:
        note(sentence)
    with runs.driving(row.run_id):
        executor = make_executor(
            "none" if options.system_only else "local",
            executors,
            prepared.dry_run.model,
            job.client,
            prepared.records,
        )
        try:
            return run_trials(
                prepared,
                _training(prepared, executor),
                runs,
                row,
                checkpoint_every=options.checkpoint_every,
                on_progress=on_progress,
            )
        except FlintError as error:
            runs.fail(row.run_id, str(error))
            raise
        finally:
            executor.close()


def _prepared(
    catalog: CatalogSession, job: Job, environment: Environment, folder: Path, seed: int | None
) -> Preparation:
    return prepare(
        job,
        environment,
        folder,
        CatalogInputs(folder, catalog.environment_inputs),
        catalog.datasets,
        catalog.models,
        job.seed if seed is None else seed,
    )


def _training(prepared: Preparation, executor: Executor) -> Training:
    evaluation = prepared.dry_run.job.evaluation
    if evaluation is None or prepared.evaluation is None:
        return Training(executor, None, None)
    model = prepared.dry_run.model
    return Training(
        executor,
        TorchEvaluation(model, *prepared.evaluation.heldout(), evaluation.metric),
        lambda weights, data_client, tiers: metric_by_group(
            model, weights, prepared.records, data_client, tiers, evaluation.metric
        ),
    )


def _without_evaluation(job: Job) -> Job:
    """The job with nothing measured: a model that is not trained has no metric to report."""
    stop = job.stop.model_copy(update={"target": None})
    return job.model_copy(update={"evaluation": None, "stop": stop})
