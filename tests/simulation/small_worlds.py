"""Worlds of a few phones, each written out by hand, and trials in them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.update_codec import flatten
from modeling.zoo import get_model
from server.job import Job
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.executors import NoTraining
from simulation.executors.local import LocalExecutor
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan
from simulation.inputs import FileInputs
from simulation.population import PopulationMapping
from simulation.trial import DryRun, Trial, TrialResult
from simulation.update_training import outputs_needed
from simulation.world import ClientDevices, load_world
from tests.device_runtime.records import draw_records

MODEL = get_model("tiny_mlp")
BYTES = 1000
"""A model or an update; over a link of 8 kbit/s it takes a second."""


@dataclass(frozen=True)
class Phone:
    """One client and its device.

    Attributes:
        windows: In which it is available, ``(start_s, end_s)``.
    """

    windows: Sequence[tuple[float, float]] = ((0, 10**7),)
    per_example_s: float = 1.0
    records: int = 10
    down_kbps: float = 8.0
    up_kbps: float = 8.0


def make_job(strategy: Mapping[str, Any], **blocks: Any) -> Job:
    """A job on the small model; ``client`` is merged with one that can train."""
    client = {"optimizer": {"learning_rate": 0.1}} | blocks.pop("client", {})
    return Job.model_validate(
        {"name": "test", "model": MODEL.name, "strategy": strategy, "client": client} | blocks
    )


EVERY_VERSION = {"every": 1, "dataset": "held-out"}
"""Evaluation of every version."""

FEDBUFF = {"name": "fedbuff", "buffer_size": 3, "concurrency": 5, "max_staleness": 3}
FEDAVG = {"name": "fedavg", "cohort_size": 3, "over_commitment": 1.5, "round_deadline_s": 300}


def make_dry_run(
    phones: Sequence[Phone],
    job: Job,
    *,
    seed: int = 7,
    repeat_every_s: float | None = None,
    dropout_per_hour: float | None = None,
    **check_in: float,
) -> DryRun:
    """Phone ``i`` is client ``i``, with records ``i``, device ``i`` and a link of its own.

    Args:
        check_in: Of the environment; without jitter unless it says so.
    """
    availability = {"source": "sessions.parquet", "repeat_every_s": repeat_every_s}
    environment = Environment.model_validate(
        {
            "availability": availability,
            "device_profiles": "profiles.parquet",
            "bandwidth": "bandwidth.parquet",
            "check_in": {"period_s": 100.0, "jitter": 0.0} | check_in,
            "dropout": dropout_per_hour and {"hazard_per_hour": dropout_per_hour},
        }
    )
    count = len(phones)
    models = [f"phone-{i:03}" for i in range(count)]
    spans = [(i, float(a), float(b)) for i, phone in enumerate(phones) for a, b in phone.windows]
    client, start_s, end_s = zip(*spans, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "sessions": {
                "client_id": client,
                "start_s": start_s,
                "end_s": end_s,
                "device_model": [models[i] for i in client],
            },
            "profiles": {
                "device_model": models,
                "per_example_s": [float(phone.per_example_s) for phone in phones],
            },
            "bandwidth": {
                "down_kbps": [float(phone.down_kbps) for phone in phones],
                "up_kbps": [float(phone.up_kbps) for phone in phones],
            },
        }
        for name, columns in tables.items():
            pq.write_table(pa.table(columns), Path(folder) / f"{name}.parquet")
        world = load_world(environment, FileInputs(Path(folder)))
    everyone = np.arange(count)
    return DryRun(
        job=job,
        model=MODEL,
        environment=environment,
        world=world,
        mapping=PopulationMapping(everyone, everyone),
        devices=ClientDevices(everyone, everyone.astype(np.int32), everyone, everyone),
        records=np.array([phone.records for phone in phones]),
        work=TaskWork(job.client.local_epochs, job.client.max_records, BYTES, BYTES),
        initial_weights=flatten(MODEL.initial_parameters(0)),
        seed=seed,
    )


def records_of(phones: Sequence[Phone], spoilt: Sequence[int] = ()) -> ClientRecords:
    """Records that the model can learn from; those of the spoilt make its update overflow."""
    counts = np.array([phone.records for phone in phones])
    x, y = draw_records(MODEL, int(counts.sum()), seed=3)
    first = np.cumsum(counts) - counts
    for client in spoilt:
        x[first[client] : first[client] + counts[client]] *= np.float32(1e30)
    return ClientRecords(x, y, first, counts)


def training(dry_run: DryRun, phones: Sequence[Phone], spoilt: Sequence[int] = ()) -> LocalExecutor:
    """An executor that really trains."""
    return LocalExecutor(
        MODEL,
        LocalPlan.of(dry_run.job.client, outputs_needed(dry_run.job)),
        records_of(phones, spoilt),
    )


def run_training(
    phones: Sequence[Phone],
    job: Job,
    *,
    number: int = 0,
    spoilt: Sequence[int] = (),
    world: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[TrialResult, list[np.ndarray]]:
    """A whole trial with real training; also the weights of all versions evaluated."""
    dry_run = make_dry_run(phones, job, **(world or {}))
    versions: list[np.ndarray] = []
    trial = Trial(
        dry_run,
        number,
        training(dry_run, phones, spoilt),
        weights_by_version(versions) if job.evaluation else None,
        **options,
    )
    return trial.run(), versions


def system_only(dry_run: DryRun, **options: Any) -> Trial:
    """A trial that trains nothing."""
    return Trial(dry_run, 0, NoTraining(MODEL.parameter_count), None, **options)


def weights_by_version(versions: list[np.ndarray]):
    """An evaluation that measures nothing but notes the weights of every version."""

    def evaluate(weights: np.ndarray) -> dict[str, float]:
        versions.append(weights.copy())
        return {"metric": 0.0, "loss": 0.0}

    return evaluate


def with_phones(phones: Sequence[Phone], **changes: Phone) -> list[Phone]:
    """The phones, some replaced: ``c3=Phone(...)`` replaces the fourth."""
    return [changes.get(f"c{i}", phone) for i, phone in enumerate(phones)]


def rows(table: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    """Some columns of a table, row by row."""
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
