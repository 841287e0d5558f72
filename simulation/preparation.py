"""From a job file and an environment file to a dry-run: everything read, checked, and joined."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError, named_in
from device_runtime.update_codec import encode_parameters, flatten
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.feature_fit import check_same_features
from feature_catalog.featurize import FieldRoles
from feature_catalog.model_store import ModelStore
from feature_catalog.opened_dataset import Dataset, check_dataset
from feature_catalog.simulation_runs import RunInput
from modeling.spec import ModelSpec
from modeling.zoo import get_model
from server.initial_version import starting_point
from server.job import Job
from simulation.client_data import training_records
from simulation.device_admission import device_notes, with_device_measurements
from simulation.durations import TaskWork
from simulation.eligibility import CriterionCount, count_eligible, require_startable
from simulation.environment import (
    DatasetInput,
    Environment,
    PopulationSettings,
    RecordCounts,
    is_file_reference,
)
from simulation.executors.records import ClientRecords
from simulation.inputs import FileInputs, InputResolver
from simulation.population import Counts
from simulation.record_counts import draw_record_counts, read_record_counts
from simulation.traces.spans import repairs_in_words
from simulation.trial import DryRun
from simulation.update_bytes import update_bytes
from simulation.world import load_world, populate


class MissingDataset(FlintError):
    """A job is dry-run in an environment without data."""

    code = "FLN-1733"


@dataclass(frozen=True)
class Preparation:
    """A dry-run, ready to start.

    Attributes:
        data_clients: Ids of those who hold records, in the order of `PopulationMapping`.
        record_counts: How many each of these holds, shape ``(data clients,)``.
        records: Of these; None where only their number is known, so that nothing can be trained.
        evaluation: Whose held-out clients versions are measured on; None if the job asks for no
            evaluation.
        inputs: Where everything came from, by key of job and environment.
        criteria: How many clients each of the job's criteria leaves, in order.
        notes: What the user should know before it starts.
    """

    dry_run: DryRun
    data_clients: pa.Array
    record_counts: Counts
    records: ClientRecords | None
    evaluation: Dataset | None
    inputs: Mapping[str, RunInput]
    criteria: Sequence[CriterionCount]
    notes: Sequence[str]


def prepare(
    job: Job,
    environment: Environment,
    folder: Path,
    resolver: InputResolver,
    datasets: DatasetCatalog,
    models: ModelStore,
    seed: int,
    memory_mb: Mapping[str, float] = MappingProxyType({}),
    *,
    trains: bool = True,
) -> Preparation:
    """Read all that job and environment name, and check that a task can ever be done.

    Args:
        folder: What paths of the environment are relative to.
        resolver: Finds the environment's traces.
        seed: Of every draw but those of the population.
        memory_mb: That training the job's model takes, by device model, as the catalog knows it.
        trains: Whether updates are to be trained; if not, the number of records is enough.

    Raises:
        FlintError: If something is missing, does not fit, or excludes everyone; one sentence.
    """
    model = get_model(job.model)
    initial = starting_point(job, model, models).parameters
    held = _who_holds_what(environment, folder, job, model, datasets, trains=trains)
    inputs = dict(held.inputs)
    world = load_world(environment, resolver)
    inputs |= {
        key: RunInput(found.reference, found.version, found.sha256)
        for key, found in world.inputs.items()
    }
    evaluation = None
    if job.evaluation is not None:
        with named_in("evaluation.dataset"):
            evaluation = datasets.open(job.evaluation.dataset)
            check_same_features(evaluation.row, job.feature_service)
            check_dataset(evaluation, model)
        row = evaluation.row
        inputs["evaluation.dataset"] = RunInput(
            job.evaluation.dataset, row.version, _sha256(evaluation)
        )
    counts = held.counts
    mapping, devices = populate(world, environment, counts)
    job = with_device_measurements(job, world, devices, memory_mb)
    work = _work(job, model, initial)
    criteria = count_eligible(world, mapping, devices, counts, job, work)
    require_startable(criteria, len(mapping), job)
    dry_run = DryRun(
        job,
        model,
        environment,
        world,
        mapping,
        devices,
        mapping.held(counts),
        work,
        flatten(initial),
        seed,
    )
    notes = [
        *repairs_in_words(world.trace.repairs),
        *device_notes(job, world, devices),
        *_notes(job),
    ]
    return Preparation(dry_run, held.ids, counts, held.records, evaluation, inputs, criteria, notes)


@dataclass(frozen=True)
class _Holdings:
    """Who holds how many records, and these records where there are any."""

    ids: pa.Array
    counts: Counts
    records: ClientRecords | None
    inputs: Mapping[str, RunInput]


def _who_holds_what(
    environment: Environment,
    folder: Path,
    job: Job,
    model: ModelSpec,
    datasets: DatasetCatalog,
    *,
    trains: bool,
) -> _Holdings:
    told = environment.population.records
    if environment.dataset is None and told is not None and not trains:
        return _counted_only(told, environment.population, folder)
    if environment.dataset is None:
        raise MissingDataset(
            "dataset is missing from the environment: population.records says how many records "
            "clients hold, but not which; add dataset: FILE or NAME@VERSION, or train nothing "
            "(--no-training)"
            if told is not None
            else "dataset is missing from the environment: nobody says which records clients hold; "
            "add dataset: FILE or NAME@VERSION"
            + ("" if trains else ", or population.records, which is enough with --no-training")
        )
    dataset, inputs = _open_dataset(environment.dataset, folder, model, datasets)
    with named_in("dataset"):
        check_same_features(dataset.row, job.feature_service)
        records = training_records(dataset, model)
    return _Holdings(pa.array(dataset.clients()), dataset.train_record_counts, records, inputs)


def _counted_only(told: RecordCounts, population: PopulationSettings, folder: Path) -> _Holdings:
    inputs = {}
    if told.source is not None:
        found = FileInputs(folder).resolve("population.records", told.source)
        inputs["population.records"] = RunInput(found.reference, None, found.sha256)
        with named_in("population.records"):
            counts = read_record_counts(found.path)
    else:
        counts = draw_record_counts(told, population.clients or 0, population.seed)
    return _Holdings(pa.array(np.arange(len(counts))), counts, None, inputs)


def _open_dataset(
    wanted: DatasetInput, folder: Path, model: ModelSpec, datasets: DatasetCatalog
) -> tuple[Dataset, dict[str, RunInput]]:
    if not is_file_reference(wanted.source):
        with named_in("dataset"):
            dataset = datasets.open(wanted.source)
        digest = _sha256(dataset)
    else:
        found = FileInputs(folder).resolve("dataset", wanted.source)
        row = datasets.add(found.path, _roles(wanted), model)
        dataset = datasets.open(f"{row.name}@{row.version}")
        digest = found.sha256
    return dataset, {"dataset": RunInput(wanted.source, dataset.row.version, digest)}


def _roles(wanted: DatasetInput) -> FieldRoles:
    return FieldRoles(
        wanted.client_field, wanted.label_field, wanted.text_field, wanted.exclude_fields
    )


def _sha256(dataset: Dataset) -> str:
    """Digest of a data set's records and clients."""
    records = dataset.source.records
    digest = hashlib.sha256(dataset.source.clients)
    if isinstance(records, Path):
        with records.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    else:
        digest.update(hashlib.sha256(records).digest())
    return digest.hexdigest()


def _work(job: Job, model: ModelSpec, initial: Sequence[NDArray[np.float32]]) -> TaskWork:
    """What each task does; bytes are those of the real messages."""
    download = encode_parameters(model.parameters, initial)
    return TaskWork(
        job.client.local_epochs, job.client.max_records, len(download), update_bytes(job, model)
    )


def _notes(job: Job) -> list[str]:
    notes = []
    state = job.participation.state.model_dump(exclude_none=True, exclude={"allowed_hours"})
    user = job.participation.user.model_dump(
        exclude_none=True, exclude={"min_hours_between_participations"}
    )
    if state or user:
        named = ", ".join([*(f"state.{k}" for k in state), *(f"user.{k}" for k in user)])
        notes.append(
            f"participation.{{{named}}} cannot be judged on a trace of sessions: give an "
            "availability trace of devices that meet them"
        )
    return notes
