"""`participation.device` in a dry-run: clients on devices that the job excludes never take part."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.device_criteria import DeviceCriteria
from server.job import Participation
from simulation.device_admission import (
    admitted_clients,
    device_notes,
    with_device_measurements,
)
from simulation.durations import TaskWork
from simulation.eligibility import NothingCanStart, count_eligible, require_startable
from simulation.executors import NoTraining
from simulation.population import PopulationMapping
from simulation.traces.device_profiles import read_device_profiles
from simulation.trial import Trial
from tests.simulation.small_worlds import FEDBUFF, Phone, make_dry_run, make_job

SPEEDS_S = (0.001, 0.02, 0.024, 0.025, 1.0)
"""Per example; 5,000 of them take 5, 100, 120, 125 and 5,000 s."""


def dry_run(*, memory_mb=None, **criteria):
    participation = Participation(device=DeviceCriteria(**criteria))
    job = make_job(FEDBUFF, stop={"max_updates": 20}, participation=participation)
    phones = [Phone(per_example_s=speed_s) for speed_s in SPEEDS_S]
    made = make_dry_run(phones, job)
    judged = with_device_measurements(job, made.world, made.devices, memory_mb or {})
    return make_dry_run(phones, judged)


def notes_of(made):
    return device_notes(made.job, made.world, made.devices)


def counts_of(made):
    everyone = np.arange(len(SPEEDS_S))
    work = TaskWork(1, 500, 1, 1)
    counts = count_eligible(
        made.world,
        PopulationMapping(everyone, everyone),
        made.devices,
        made.records,
        made.job,
        work,
    )
    require_startable(counts, len(everyone), made.job)
    return {count.name: count.remaining for count in counts}


def test_slow_devices_are_counted_out_and_never_given_a_task():
    made = dry_run(max_train_s=120)
    assert admitted_clients(made.job, made.world, made.devices).tolist() == [True] * 3 + [False] * 2
    assert counts_of(made)["participation.device.max_train_s"] == 3
    result = Trial(made, 0, NoTraining(made.model.parameter_count), None).run()
    assert set(result.tasks["client"].to_pylist()) == {0, 1, 2}


def test_memory_is_judged_where_the_catalog_knows_it_and_the_rest_is_said():
    memory_mb = {"phone-000": 51.0, "phone-001": 50.0}
    made = dry_run(max_memory_mb=50, memory_mb=memory_mb)
    assert counts_of(made)["participation.device.max_memory_mb"] == 4
    admits, note = notes_of(made)
    assert admits == "participation.device admits the devices of 4 of 5 clients"
    assert "cannot be judged for 3 of 5 device models, the first phone-002" in note
    everyone = {f"phone-{n:03}": 10.0 for n in range(5)}
    assert len(notes_of(dry_run(max_memory_mb=50, memory_mb=everyone))) == 1


def test_an_environment_that_tells_no_releases_says_so():
    made = dry_run(min_os_release="2019-09")
    assert made.job.participation.device.measured is None
    assert admitted_clients(made.job, made.world, made.devices).all()
    (note,) = notes_of(made)
    assert "min_os_release cannot be judged" in note


def test_a_limit_nobody_meets_is_refused_with_the_mend():
    with pytest.raises(NothingCanStart) as refused:
        counts_of(dry_run(max_train_s=1))
    assert "participation.device.max_train_s excludes everyone" in str(refused.value)
    assert "no clients train on 5,000 records within 1 s" in str(refused.value)


def test_a_job_without_device_criteria_is_left_as_it_is():
    job = make_job(FEDBUFF, stop={"max_updates": 5})
    made = make_dry_run([Phone()], job)
    assert with_device_measurements(job, made.world, made.devices, {}) is job
    assert notes_of(made) == []
    assert admitted_clients(job, made.world, made.devices).tolist() == [True]


def test_means_of_samples_and_of_distributions(tmp_path):
    path = tmp_path / "profiles.parquet"
    pq.write_table(
        pa.table({"device_model": ["b", "a", "b"], "per_example_s": [3.0, 5.0, 1.0]}), path
    )
    assert read_device_profiles(path).mean_s().tolist() == [5.0, 2.0]
    pq.write_table(
        pa.table({"device_model": ["b", "a"], "mean_s": [3.0, 0.5], "stdev_s": [2.0, 0.0]}), path
    )
    assert read_device_profiles(path).mean_s() == pytest.approx([0.5, 3.0])
