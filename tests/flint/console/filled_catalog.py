"""A catalog with something of everything, as a deployment's processes would have filled it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from feature_catalog.blobs import BlobStore
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.featurize import FieldRoles
from feature_catalog.jobs import JobQueue
from feature_catalog.model_store import ModelStore, NewVersion
from feature_catalog.schema import DeviceRecord
from feature_catalog.simulation_runs import NewSimulationRun, RunInput, SimulationRuns
from feature_catalog.task_outcomes import TaskOutcomeRow
from tests.feature_catalog.definitions.examples import parsed, with_change
from tests.feature_catalog.models import DENSE_MODEL

HOSTILE = "<script>alert('owned')</script>"
"""What a user may write wherever a text is free."""

VERSIONS = 12


@dataclass(frozen=True)
class Filled:
    """What was put in.

    Attributes:
        old_contract: Of ``ads_ctr_v1`` before its view changed; the finished job's.
        contract: Of ``ads_ctr_v1`` now.
        finished: Job that has ended, with its versions ``ads@1`` to ``ads@13``.
        running: Job that is at work.
        run: Dry-run that broke off.
    """

    old_contract: str
    contract: str
    finished: str
    running: str
    run: str


def fill(engine: Engine, blobs: BlobStore, folder: Path) -> Filled:
    """Fill an empty catalog.

    Args:
        folder: For the data set's file.
    """
    registry = FeatureRegistry(engine)
    registry.apply(parsed(), actor="ann@desk")
    old = registry.state().contracts["ads_ctr_v1"]
    kept = "    retention: {max_age: 30d"
    hostile = f'    description: "{HOSTILE}"\n    tags: {{team: "{HOSTILE}"}}\n{kept}'
    changed = with_change(kept, hostile, with_change("ttl: 2d", "ttl: 36h"))
    registry.apply(parsed(changed), actor=f"{HOSTILE}@desk")
    now = registry.state().contracts["ads_ctr_v1"]
    add_dataset(engine, blobs, folder)
    add_devices(engine)
    finished = add_finished_job(engine, blobs, old)
    return Filled(old, now, finished, add_running_job(engine), add_run(engine, blobs))


def add_devices(engine: Engine) -> None:
    """Three enrolled devices, of a model that says what it likes."""
    with Session(engine) as session, session.begin():
        session.add_all(
            DeviceRecord(
                device_id=f"d-{number}",
                public_key_der=b"",
                app_id="com.example.feed",
                device_model=HOSTILE,
                os_release="2021-10",
            )
            for number in range(3)
        )


def add_dataset(engine: Engine, blobs: BlobStore, folder: Path) -> None:
    """``clicks@1``, of 30 clients."""
    random = np.random.default_rng(1)
    columns = {
        "user": [f"u{n % 30}" for n in range(300)],
        "clicked": random.integers(0, 2, 300),
        "a": random.random(300),
        "b": random.random(300),
    }
    path = folder / "clicks.parquet"
    pq.write_table(pa.table(columns), path)
    DatasetCatalog(engine, blobs).add(path, FieldRoles("user", "clicked"), DENSE_MODEL)


def add_finished_job(engine: Engine, blobs: BlobStore, contract: str) -> str:
    """A job with a version for each of its aggregations; its fifth version is in production."""
    queue, models = JobQueue(engine), ModelStore(engine, blobs)
    job = {
        "name": "ads",
        "model": "tiny",
        "seed": 7,
        "feature_service": f"ads_ctr_v1@{contract}",
        "evaluation": {"dataset": "clicks@1", "every": 1},
    }
    job_id = queue.submit(json.dumps(job), "ads", 4711)
    epoch, parent_id = queue.claim(job_id), None
    for number in range(VERSIONS + 1):
        outcome = TaskOutcomeRow(
            job_id, f"{job_id}-{number}", f"d-{number % 5}", 0, "succeeded", "", 0, b"", number
        )
        metric = 0.3 + 0.25 * (1 - math.exp(-number / 4)) + 0.01 * math.sin(3 * number)
        stored = models.add_version(
            NewVersion(
                "ads",
                "tiny",
                f"{job_id} {number}".encode(),
                parent_id=parent_id,
                job_id=job_id,
                job_version=number,
                job_epoch=epoch,
                metrics={"metric": metric},
                strategy_state={"totals": {"updates": 20 * number}},
                feature_contract_sha256=bytes.fromhex(contract),
            ),
            [outcome] if number else [],
        )
        parent_id = stored.id
    queue.finish(job_id, "finished", "12 aggregations")
    models.promote("ads", 5)
    return job_id


def add_running_job(engine: Engine) -> str:
    """A job at work, with the progress its coordinator reports."""
    queue = JobQueue(engine)
    job_id = queue.submit('{"name": "ads-next", "model": "tiny", "seed": 8}', "ads-next", 4712)
    queue.claim(job_id)
    queue.update_progress(
        job_id,
        {
            "version": 3,
            "metric": 0.41,
            "metric_version": 2,
            "updates": 60,
            "updates_per_s": 2.5,
            "in_flight": 17,
            "offered": 4,
            "held": 5,
            "elapsed_s": 75.0,
            "outcomes": {"succeeded": 60, "stale": 3, "failed": 1},
            "reasons": {"max_staleness": 3, "battery_low": 12},
            "sessions": {"-v[]+^": 60, "-v[!": 4},
        },
    )
    return job_id


def add_run(engine: Engine, blobs: BlobStore) -> str:
    """A dry-run whose process is gone."""
    run = NewSimulationRun(
        name="ads",
        kind="job",
        job_json='{"name": "ads"}',
        environment_json='{"trials": 2}',
        inputs={"bandwidth": RunInput("links", 1, "ab" * 32)},
        seed=7,
        trials=2,
        executors=1,
        code_version="0.1.0",
    )
    return SimulationRuns(engine, blobs).create(run).run_id
