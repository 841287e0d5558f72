"""The traces of an environment fit together, and someone can take part; else it is said why not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.job_file import parse_job
from simulation.durations import TaskWork
from simulation.eligibility import NothingCanStart, count_eligible, require_startable
from simulation.environment import InvalidEnvironmentValue, parse_environment
from simulation.inputs import FileInputs
from simulation.traces.criteria import DailyHours
from simulation.traces.device_profiles import UnknownDeviceModel
from simulation.traces.generate import write_world
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.world import load_world, populate

ENVIRONMENT = """
dataset: data.parquet
population: {resample: {availability: true}, seed: 3}
availability: sessions.parquet
device_profiles: device_profiles.parquet
device_population: device_population.parquet
bandwidth: bandwidth.parquet
"""
JOB = """
name: test
model: tiny_mlp
client: {optimizer: {learning_rate: 0.1}}
strategy: {name: fedavg, cohort_size: 4, min_updates: 3}
stop: {max_updates: 10}
"""
JOB_FOR_ONE = JOB.replace("min_updates: 3", "min_updates: 1")
WORK = TaskWork(local_epochs=1, max_records=500, download_bytes=10_000, upload_bytes=10_000)
RECORDS = np.array([5, 900, 30, 1, 77, 12])
HOUR = 3600


@pytest.fixture
def folder(tmp_path):
    write_world(tmp_path, GeneratedAvailability(40), seed=1)
    return tmp_path


def sessions(folder, rows, **columns) -> None:
    """Replace the trace by ``(client, start, end)`` rows."""
    client, start, end = zip(*rows, strict=True)
    table = pa.table({"client_id": client, "start_s": start, "end_s": end} | columns)
    pq.write_table(table, folder / "sessions.parquet")


def loaded(folder, text: str = ENVIRONMENT):
    return load_world(parse_environment(text), FileInputs(folder))


def judged(folder, job_text: str = JOB, *, records=RECORDS, work: TaskWork = WORK):
    job, world = parse_job(job_text), loaded(folder)
    mapping, devices = populate(world, parse_environment(ENVIRONMENT), records)
    counts = count_eligible(world, mapping, devices, records, job, work)
    require_startable(counts, len(mapping), job)
    return {count.name: count.remaining for count in counts}


def test_a_generated_world_is_populated_reproducibly(folder):
    environment = parse_environment(ENVIRONMENT)
    world = loaded(folder)
    mapping, devices = populate(world, environment, RECORDS)
    again, same = populate(loaded(folder), environment, RECORDS)
    assert np.array_equal(mapping.device, again.device)
    assert np.array_equal(devices.device_model, same.device_model)
    assert np.array_equal(devices.down_link, devices.up_link)  # generated links are paired
    assert set(world.inputs) == {
        "availability",
        "device_profiles",
        "device_population",
        "bandwidth",
    }


def test_device_models_follow_the_shares(folder):
    environment = parse_environment(ENVIRONMENT)
    world = loaded(folder)
    _, devices = populate(world, environment, np.ones(20_000, dtype=np.int64))
    drawn = np.bincount(devices.device_model, minlength=20) / 20_000
    assert drawn == pytest.approx(world.device_population.share, abs=0.01)


def test_device_models_of_the_trace_are_kept(folder):
    sessions(folder, [(1, 0, 9), (2, 0, 9)], device_model=["model-07", "model-03"])
    text = ENVIRONMENT.replace("device_population: device_population.parquet\n", "")
    world = loaded(folder, text)
    mapping, devices = populate(world, parse_environment(text), RECORDS)
    expected = {0: "model-07", 1: "model-03"}
    names = [world.profiles.device_models[code] for code in devices.device_model]
    assert names == [expected[int(device)] for device in mapping.device]
    with pytest.raises(InvalidEnvironmentValue, match="already names each client's device_model"):
        loaded(folder)


def test_devices_of_unknown_speed_are_refused(folder):
    sessions(folder, [(1, 0, 9)], device_model=["model-7"])
    text = ENVIRONMENT.replace("device_population: device_population.parquet\n", "")
    with pytest.raises(
        UnknownDeviceModel, match=r"availability: device model 'model-7' .*model-07"
    ):
        loaded(folder, text)


def test_a_world_that_names_no_device_models_is_refused(folder):
    text = ENVIRONMENT.replace("device_population: device_population.parquet\n", "")
    with pytest.raises(InvalidEnvironmentValue, match="device_population is missing"):
        loaded(folder, text)


def test_in_a_generated_world_everyone_can_take_part(folder):
    assert set(judged(folder).values()) == {6}


def test_each_criterion_takes_away_those_it_excludes(folder):
    hours = {1: (0, 1), 2: (3, 4), 3: (20, 21), 4: (5, 5), 5: (0, 9), 6: (100, 101)}
    sessions(folder, [(client, a * HOUR, b * HOUR) for client, (a, b) in hours.items()])
    job = JOB_FOR_ONE.replace("max_updates: 10", "max_hours: 50")
    job += 'participation: {state: {allowed_hours: "03:00-05:00"}}\n'
    counts = judged(folder, job, records=np.array([9, 9, 9, 9, 9, 9]))
    assert counts == {
        "dataset": 6,
        "availability": 5,  # client 4 has an empty span only
        "participation.state.allowed_hours": 3,  # 2, 5 and, on the fifth day, 6
        "stop.max_hours": 2,
        "task duration": 2,
    }


@pytest.mark.parametrize(
    ("rows", "job", "records", "work", "said"),
    [
        ([(1, 0, 600)], JOB, [0, 0], WORK, "dataset excludes everyone: no clients hold records"),
        (
            [(1, 5, 5)],
            JOB,
            [9, 9],
            WORK,
            "availability excludes everyone: no clients have a device that is ever available "
            "(of 2 clients 2 hold records)",
        ),
        (
            [(1, 0, HOUR)],
            JOB + 'participation: {state: {allowed_hours: "12:00-13:00"}}',
            [9, 9],
            WORK,
            "participation.state.allowed_hours excludes everyone: no clients are ever available "
            "within 12:00-13:00 (of 2 clients 2 hold records, 2 have a device",
        ),
        (
            [(1, 3 * HOUR, 4 * HOUR)],
            JOB.replace("max_updates: 10", "max_hours: 2"),
            [9, 9],
            WORK,
            "stop.max_hours excludes everyone: no clients are available before the job ends after "
            "2 h",
        ),
        (
            [(1, 0, 60)],
            JOB,
            [9, 9],
            TaskWork(1, 500, 10**10, 10**10),
            "task duration excludes everyone: no clients have a window as long as their shortest",
        ),
        (
            [(1, 0, 600)],
            JOB,
            [9, 9],
            WORK,
            "strategy.min_updates is 3, but only 2 of 2 clients can do a task",
        ),
    ],
)
def test_why_nothing_can_start_is_said(folder, rows, job, records, work, said):
    sessions(folder, rows)
    with pytest.raises(NothingCanStart) as caught:
        judged(folder, job, records=np.array(records), work=work)
    assert said in str(caught.value)


def test_a_window_that_goes_on_past_the_week_is_open_at_its_beginning(folder):
    week = 604_800
    sessions(folder, [(1, 0, 600), (1, week - 600, week)], repeat_every_s=[week, week])
    job = JOB_FOR_ONE.replace("max_updates: 10", "max_hours: 1")
    assert judged(folder, job, records=np.array([9]))["stop.max_hours"] == 1


@pytest.mark.parametrize("hours", [None, "22:00-06:00", "09:30-17:00", "00:00-00:00"])
def test_allowed_hours_equal_the_clock(hours):
    window = DailyHours.parse(hours)
    minutes = np.arange(0, 3 * 1440, 6)

    def inside(minute: int) -> bool:
        if hours is None or hours == "00:00-00:00":
            return True
        start, end = (int(t[:2]) * 60 + int(t[3:]) for t in hours.split("-"))
        clock = minute % 1440
        return start <= clock < end if start < end else clock >= start or clock < end

    expected = [next(m for m in range(m0, m0 + 1441) if inside(m)) * 60.0 for m0 in minutes]
    assert window.next_allowed_many(minutes * 60.0).tolist() == expected
    assert [window.next_allowed(float(m) * 60.0) for m in minutes] == expected
