"""Worlds large enough that columns grow, buckets fill, and sightings are superseded."""

import numpy as np
import pytest

from server.job import Job
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.inputs import FileInputs
from simulation.traces.generate import GeneratedAvailability, write_world
from simulation.trial import DryRun
from simulation.world import load_world, populate
from tests.simulation.small_worlds import FEDAVG, FEDBUFF, MODEL, make_job
from tests.simulation.timeline.test_equal_to_the_plain_loop import require_equal

CLIENTS = 700


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, GeneratedAvailability(devices=CLIENTS), seed=3)
    return folder


def dry_run(folder, job: Job, **check_in: float) -> DryRun:
    environment = Environment.model_validate(
        {
            "availability": "sessions.parquet",
            "device_profiles": "device_profiles.parquet",
            "device_population": "device_population.parquet",
            "bandwidth": "bandwidth.parquet",
            "dropout": {"hazard_per_hour": 1.0},
            "check_in": check_in,
        }
    )
    world = load_world(environment, FileInputs(folder))
    records = np.random.default_rng(0).integers(1, 4000, len(world.trace))
    mapping, devices = populate(world, environment, records)
    return DryRun(
        job,
        MODEL,
        environment,
        world,
        mapping,
        devices,
        records[mapping.data_client],
        TaskWork(1, 5000, 400_000, 400_000),
        np.zeros(MODEL.parameter_count, np.float32),
        7,
    )


@pytest.mark.parametrize(
    ("strategy", "selection", "check_in"),
    [
        (FEDBUFF | {"buffer_size": 20, "concurrency": 60}, "arrival", {"check_ins_per_s": 0.5}),
        (FEDAVG | {"cohort_size": 20}, "uniform", {"period_s": 120.0}),
    ],
)
def test_hours_of_hundreds_of_phones_go_as_in_the_plain_loop(folder, strategy, selection, check_in):
    job = make_job(
        strategy,
        client={"max_records": 5000},
        stop={"max_hours": 15},
        selection={"name": selection},
        participation={"user": {"min_hours_between_participations": 0.5}},
    )
    result = require_equal(dry_run(folder, job, **check_in))
    assert len(result.trajectory) > 10
    assert "window" in result.tasks["reason"].to_pylist()
