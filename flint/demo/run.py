"""The demo: a server of its own, many devices, and one job a strategy, on the user's data or ours.

Nothing here is a shortcut: the server is what `flint up` starts, jobs go in by `flint submit`,
devices are enrolled identities behind TLS, and every number printed was stored by the coordinator.
"""

import json
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from device_runtime.errors import FlintError
from feature_catalog.datasets import Dataset
from feature_catalog.table_files import open_table
from flint.demo.central_baseline import central_metric
from flint.demo.command import DemoJobFailed, FlintCommand
from flint.demo.data import DemoData, generate_demo_data
from flint.demo.feature_steps import make_feature_dataset
from flint.demo.jobs import BATCH_SIZE, DemoJob
from flint.demo.report import plot_runs
from flint.demo.results import StrategyRun, read_measurements
from flint.demo.screen import Screen
from flint.deployment import Deployment
from flint.extras import require
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.job_view import ENDED
from flint.submission import stop
from modeling.zoo import get_model
from server.operations.up import ServerOptions, start_up

MODEL = "sparse_mlp"
GENERATED_CLIENTS = 200
GENERATED_MAX_UPDATES = 2_000
FEATURE_CLIENTS = 100
FEATURE_MAX_UPDATES = 1_000

_ENROL_TIMEOUT_S = 300.0
_ENROL_POLL_S = 0.2
_JOB_POLL_S = 0.5
# While no task is free, pace steering lets a quarter of this rate check in; that fills the next
# round of 40 within a second.
_CHECK_INS_PER_S = 240.0


class EnrolmentStalled(FlintError):
    """The devices of the demo did not all enrol in time."""

    code = "FLN-1256"
    exit_code = 1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a user may choose.

    Attributes:
        home: Data directory of the demo's own server.
        output: Where model files and plot go.
        data: The user's file; None generates one.
        features: Train on features of a service, which devices join from what their users did and
            what the cloud knows.
        clients: Training clients to generate.
        max_updates: Aggregated per strategy.
        max_hours: Each job ends after this long.
    """

    home: Path
    output: Path
    data: DemoData | None
    strategies: tuple[str, ...]
    clients: int = GENERATED_CLIENTS
    max_updates: int = GENERATED_MAX_UPDATES
    max_hours: float = 2.0
    target: float | None = None
    processes: int = 2
    seed: int = 7
    features: bool = False


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo gave.

    Attributes:
        central: Metric of the central baseline.
        chance: Share of positives among held-out records: AUPRC of guessing.
    """

    runs: tuple[StrategyRun, ...]
    metric: str
    central: float
    chance: float
    plot: Path


def run_demo(options: DemoOptions, screen: Screen) -> DemoResult:
    """Run the whole; whatever was started is stopped again, also on errors and Ctrl-C.

    Raises:
        FlintError: In one sentence what went wrong.
    """
    require("sklearn", purpose="the demo's central baseline")
    require("matplotlib", purpose="the demo's plot")
    require("tensorflow", purpose="building the demo's model")
    if options.data is not None:  # a wrong column is told before anything starts
        open_table(options.data.path).require(options.data.roles.named())
    # The demo has a server of its own; it never touches the database of another.
    for variable in ("FLINT_DATABASE_URL", "FLINT_BLOB_URL"):
        os.environ.pop(variable, None)
    with ExitStack() as stack:
        screen.step("starting Postgres, SuperLink, coordinator and gateway (TLS)")
        supervisor = start_up(options.home, _server_options())
        stack.callback(screen.step, "stopped everything")
        stack.callback(supervisor.stop)
        stack.callback(screen.step, "stopping")
        deployment = Deployment.attach(options.home)
        stack.callback(deployment.engine.dispose)
        _end_old_jobs(deployment)
        artifact = stack.enter_context(
            FlintCommand(["models", "build", MODEL, "--batch-size", str(BATCH_SIZE)], options.home)
        )
        dataset = _add_dataset(deployment, options, screen)
        fleet, devices = _start_fleet(deployment, dataset, options, screen, stack)
        screen.step("training a logistic regression on all data in one place, to compare with")
        model = get_model(MODEL)
        central = central_metric(model, dataset.train(), dataset.heldout())
        screen.done(f"central AUPRC {central:.4f}")
        artifact.output()
        runs = tuple(
            _run_job(deployment, _job(strategy, dataset, devices, options), fleet, options, screen)
            for strategy in options.strategies
        )
        chance = float(dataset.heldout()[1].mean())
        plot = options.output / "auprc.png"
        title = f"{dataset.row.name}: {devices:,} devices, {model.name}"
        plot_runs(runs, plot, central=central, chance=chance, title=title)
    return DemoResult(runs, model.metric, central, chance, plot)


def _server_options() -> ServerOptions:
    """Free ports, so that a demo never meets another server."""
    return ServerOptions(
        gateway_port=0,
        coordinator_port=0,
        superlink_port=0,
        gateway_metrics_port=0,
        coordinator_metrics_port=0,
        check_ins_per_s=_CHECK_INS_PER_S,
    )


def _end_old_jobs(deployment: Deployment) -> None:
    """In a directory used before, a demo that was interrupted may have left a job."""
    for row in deployment.jobs.list():
        if row.status not in ENDED:
            stop(deployment, row.job_id)


def _add_dataset(deployment: Deployment, options: DemoOptions, screen: Screen) -> Dataset:
    if options.features:
        return make_feature_dataset(
            deployment,
            options.home / "data" / "features",
            get_model(MODEL),
            screen,
            training_clients=options.clients,
            seed=options.seed,
        )
    data = options.data
    if data is None:
        screen.step("generating click data")
        data = generate_demo_data(
            options.home / "data", training_clients=options.clients, seed=options.seed
        )
    else:
        screen.step(f"reading {data.path}")
    row = deployment.datasets.add(data.path, data.roles, get_model(MODEL), seed=0)
    screen.done(
        f"{row.records:,} records of {row.clients:,} clients (mean {row.mean_records:.1f}, most "
        f"{row.max_records:,}), {row.label_ratio:.1%} positive, {row.heldout_clients:,} clients "
        "held out"
    )
    return deployment.datasets.open(f"{row.name}@{row.version}")


def _start_fleet(
    deployment: Deployment,
    dataset: Dataset,
    options: DemoOptions,
    screen: Screen,
    stack: ExitStack,
) -> tuple[LocalFleet, int]:
    folder = dataset_folder(deployment.settings, dataset)
    events = deployment.datasets.user_events(dataset)
    given = "the records of its client" if events is None else "what its user did"
    screen.step(f"giving every device {given}")
    devices = fill_stores(dataset, folder, None, lambda _: None, events)
    fleet = stack.enter_context(
        LocalFleet(deployment, folder, devices, processes=options.processes)
    )
    screen.step(f"enrolling {devices:,} devices in {fleet.processes} processes")
    deadline_s = time.monotonic() + _ENROL_TIMEOUT_S
    while (enrolled := deployment.devices.count()) < devices:
        fleet.check()
        if time.monotonic() > deadline_s:
            raise EnrolmentStalled(
                f"only {enrolled} of {devices} devices enrolled in {_ENROL_TIMEOUT_S:.0f} s; the "
                f"reason is in {deployment.settings.logs} (gateway.log, fleet-0.log)"
            )
        time.sleep(_ENROL_POLL_S)
    screen.done(f"{devices:,} devices are enrolled")
    return fleet, devices


def _job(strategy: str, dataset: Dataset, devices: int, options: DemoOptions) -> DemoJob:
    return DemoJob(
        strategy=strategy,
        dataset=f"{dataset.row.name}@{dataset.row.version}",
        devices=devices,
        max_updates=options.max_updates,
        max_hours=options.max_hours,
        seed=options.seed,
        feature_service=dataset.row.feature_service,
    )


def _run_job(
    deployment: Deployment,
    job: DemoJob,
    fleet: LocalFleet,
    options: DemoOptions,
    screen: Screen,
) -> StrategyRun:
    path = job.write(options.home / "jobs")
    screen.step(f"flint submit {path}")
    with FlintCommand(["submit", str(path), "--json"], options.home) as submit:
        job_id = str(json.loads(submit.output())["job_id"])
    with screen.watch() as show:
        row = deployment.jobs.get(job_id)
        while row.status not in ENDED:
            show(row)
            time.sleep(_JOB_POLL_S)
            fleet.check()
            row = deployment.jobs.get(job_id)
        show(row)
    versions = [v for v in deployment.models.list_versions(job.name) if v.job_id == job_id]
    measurements = read_measurements(versions)
    if row.status == "failed" or not measurements:
        raise DemoJobFailed(
            f"the {job.strategy} job {row.status} ({row.detail or 'no version was measured'}); "
            f"logs are in {deployment.settings.logs}"
        )
    best = max((v for v in versions if "metric" in v.metrics), key=lambda v: v.metrics["metric"])
    screen.step(f"exporting the job's best version, {best.job_version}")
    exported = _export(f"{best.name}@{best.number}", job.name, options)
    return StrategyRun(
        strategy=job.strategy,
        devices=job.devices,
        measurements=measurements,
        versions=max(int(v.job_version or 0) for v in versions),
        updates=int(row.progress["updates"]),
        outcomes=dict(row.progress["outcomes"]),
        reasons=dict(row.progress["reasons"]),
        seconds=float(row.progress["elapsed_s"]),
        model_path=exported,
    )


def _export(version: str, stem: str, options: DemoOptions) -> Path:
    """Write a version as a torch state dict and as TFLite; returns the TFLite file."""
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{stem}.tflite"
    files = [str(path), str(path.with_suffix(".pt"))]
    with FlintCommand(["models", "export", version, *files], options.home) as export:
        export.output()
    return path
