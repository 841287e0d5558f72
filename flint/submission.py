"""From a job file to a job in the queue, with everything the coordinator will ask for in place."""

from collections.abc import Callable
from dataclasses import dataclass

from device_runtime.errors import FlintError, named_in
from feature_catalog.asset_files import missing_assets, said_missing
from feature_catalog.contract_lookup import find_contract
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.definitions.contracts import thaw
from feature_catalog.feature_fit import check_same_features
from feature_catalog.jobs import JobRow
from feature_catalog.model_store import ArtifactRow
from feature_catalog.opened_dataset import check_dataset
from feature_catalog.references import split_reference
from flint.deployment import Deployment
from flint.extras import require
from flint.measured_devices import with_measured_devices
from modeling.spec import ModelSpec
from modeling.zoo import get_model
from server.feature_service import pin_feature_service, require_fitting_features
from server.initial_version import resolve_initial_version
from server.job import FedAvgSettings, Job
from server.operations.settings import ServerSettings


class NoEnclave(FlintError):
    """A secure job on a deployment that has no enclave."""

    code = "FLN-1817"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a job is known by.

    Attributes:
        flower_run_id: Its run on the SuperLink, as `flwr list` shows it.
        jobs_before: Jobs that run or wait before it.
    """

    job_id: str
    flower_run_id: int
    jobs_before: int


def submit(deployment: Deployment, job: Job, note: Callable[[str], None]) -> Submission:
    """Check what the job names, build its artefact where needed, and queue it.

    Args:
        note: Told what takes long.

    Raises:
        FlintError: If data set, feature service or initial version do not exist or do not fit, no
            device was measured that the job admits, the artefact cannot be built, or the SuperLink
            does not take the run.
    """
    from server.flower.adapter import stop_run, submit_run

    model = get_model(job.model)
    job = pin_evaluation(job, deployment.datasets)
    if job.privacy.secure_aggregation is not None and not deployment.settings.has_enclave:
        raise NoEnclave(
            f"job {job.name} asks for privacy.secure_aggregation, and this deployment sums updates "
            "without an enclave; start it with `flint up --aggregator enclave`"
        )
    job = pin_feature_service(job, deployment.features)
    if job.evaluation is not None:
        with named_in("evaluation.dataset"):
            dataset = deployment.datasets.open(job.evaluation.dataset)
            check_same_features(dataset.row, job.feature_service)
            check_dataset(dataset, model)
    if job.feature_service is not None:
        require_fitting_features(job, model, deployment.features)
        note(
            f"devices join the features of {job.feature_service} and train on those; Flower nodes, "
            "which cannot, take no part"
        )
    resolve_initial_version(job, deployment.models)
    job = with_measured_devices(job, deployment.measurements, note)
    _note_small_rounds(deployment.settings, job, note)
    _note_missing_assets(deployment, job, note)
    ensure_artifact(
        deployment,
        model,
        batch_size=job.client.batch_size,
        optimizer=job.client.optimizer.name,
        proximal=job.client.proximal_mu > 0,
        note=note,
    )
    waiting = sum(row.status in {"queued", "running"} for row in deployment.jobs.list())
    # The run first: a job in the queue may be claimed at once, and must name its run by then.
    run_id = submit_run(deployment.settings, job.name)
    try:
        job_id = deployment.jobs.submit(job.to_json(), job.name, run_id)
    except BaseException:
        stop_run(deployment.settings, run_id)
        raise
    return Submission(job_id, run_id, waiting)


def _note_small_rounds(settings: ServerSettings, job: Job, note: Callable[[str], None]) -> None:
    secure, strategy = job.privacy.secure_aggregation, job.strategy
    if secure is None or not isinstance(strategy, FedAvgSettings):
        return
    needed = settings.gateways * secure.release_threshold
    if strategy.min_updates < needed:
        note(
            f"each of {settings.gateways} gateways' enclaves needs {secure.release_threshold} "
            f"devices: a round below {needed} updates may be abandoned; raise strategy.min_updates"
        )


def _note_missing_assets(deployment: Deployment, job: Job, note: Callable[[str], None]) -> None:
    """Without the file of an asset, devices that need it decline the job's tasks."""
    if job.feature_service is None:
        return
    name, sha256 = split_reference(job.feature_service)
    contract = find_contract(deployment.engine, name, bytes.fromhex(sha256 or ""))
    if contract is None:
        return
    for asset in missing_assets(thaw(contract), deployment.blobs, [name]):
        note(said_missing(asset))


def stop(deployment: Deployment, job_id: str) -> JobRow:
    """Ask for a job's end; returns the job as it is then.

    Raises:
        UnknownJob: If there is no such job.
    """
    from server.flower.adapter import stop_run

    waiting = deployment.jobs.get(job_id).status == "queued"
    row = deployment.jobs.request_stop(job_id)
    # A running job's coordinator ends its Flower run; nobody else would end that of a waiting one.
    if waiting and row.status == "stopped" and row.flower_run_id is not None:
        stop_run(deployment.settings, row.flower_run_id)
    return row


def ensure_artifact(
    deployment: Deployment,
    model: ModelSpec,
    *,
    batch_size: int,
    optimizer: str,
    proximal: bool,
    note: Callable[[str], None],
) -> ArtifactRow:
    """The artefact of one model, batch size and optimiser; built on first use (takes seconds).

    Raises:
        MissingExtra: If it must be built and TensorFlow is not installed.
    """
    found = deployment.models.find_artifact(model.name, batch_size, optimizer, proximal)
    if found is not None:
        return found
    require("tensorflow", purpose="building a model artefact")
    from modeling.tflite import build_artifact

    note(f"building the artefact of {model.name} for batch size {batch_size} ...")
    artifact = build_artifact(model, batch_size=batch_size, optimizer=optimizer, proximal=proximal)
    return deployment.models.register_artifact(artifact.model_bytes, artifact.manifest)


def pin_evaluation(job: Job, datasets: DatasetCatalog) -> Job:
    """The job with its data set as ``name@version``: a newer one never comes under way.

    Raises:
        UnknownDataset: If there is none of that name, or no such version.
    """
    if job.evaluation is None:
        return job
    with named_in("evaluation.dataset"):
        row = datasets.get(job.evaluation.dataset)
    evaluation = job.evaluation.model_copy(update={"dataset": f"{row.name}@{row.version}"})
    return job.model_copy(update={"evaluation": evaluation})
