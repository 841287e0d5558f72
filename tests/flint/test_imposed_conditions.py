"""What `flint device fleet` imposes is what its options or an environment say."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.imposed_conditions import AvailabilityWindows, ImposedConditions
from flint.imposed_conditions import (
    ConditionOptions,
    InvalidConditionOption,
    UnimposableEnvironment,
    conditions_of_environment,
    conditions_of_options,
)
from simulation.environment import load_environment
from simulation.inputs import FileInputs
from simulation.world import load_world, populate

RECORDS = np.array([5, 80, 12, 40, 7, 33, 21, 9, 100, 64])
CLIENTS = len(RECORDS)


@pytest.fixture
def world(tmp_path) -> Path:
    """A folder with the four files of an environment, and the environment."""
    write(
        tmp_path / "profiles.parquet",
        device_model=["slow", "fast", "middle", "middle", "middle"],
        per_example_s=[0.9, 0.1, 0.3, 0.5, 0.4],
    )
    write(tmp_path / "shares.parquet", device_model=["slow", "fast", "middle"], share=[1, 1, 2])
    write(
        tmp_path / "links.parquet",
        down_kbps=[1000.0, 2000.0, 4000.0],
        up_kbps=[500.0, 800.0, 900.0],
    )
    write(
        tmp_path / "sessions.parquet",
        client_id=[1, 1, 2, 3, 4],
        start_s=[0, 50, 10, 0, 30],
        end_s=[20, 90, 70, 100, 95],
        repeat_every_s=[100] * 5,
    )
    (tmp_path / "environment.yaml").write_text(
        "dataset: clicks@1\n"
        "population: {assignment: by_activity, resample: {availability: true}, seed: 3}\n"
        "availability: sessions.parquet\n"
        "device_profiles: profiles.parquet\n"
        "device_population: shares.parquet\n"
        "bandwidth: links.parquet\n"
    )
    return tmp_path


def write(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def of_environment(folder: Path) -> list[ImposedConditions]:
    return conditions_of_environment(folder / "environment.yaml", FileInputs(folder), RECORDS)


def test_nothing_asked_for_imposes_nothing():
    options = ConditionOptions()
    options.check()
    assert options.conditions(RECORDS, FileInputs) is None


def test_numbers_are_the_same_for_everybody():
    options = ConditionOptions(slowdown="0.05", bandwidth="2.5")
    options.check(epoch=1e9)
    expected = ImposedConditions(0.05, 2.5e6, 2.5e6, None)
    assert options.conditions(RECORDS, FileInputs) == [expected] * CLIENTS


def test_identity_i_gets_what_simulated_client_i_gets(world):
    environment = load_environment(world / "environment.yaml")
    simulated = load_world(environment, FileInputs(world))
    _, devices = populate(simulated, environment, RECORDS)
    imposed = of_environment(world)
    assert len(imposed) == CLIENTS
    assert len({c.per_example_s for c in imposed}) == 3
    for i, conditions in enumerate(imposed):
        samples = {"slow": 0.9, "fast": 0.1, "middle": 0.4}  # medians
        model = simulated.profiles.device_models[devices.device_model[i]]
        assert conditions.per_example_s == samples[model]
        down = simulated.bandwidth.down.median_kbps[devices.down_link[i]]
        up = simulated.bandwidth.up.median_kbps[devices.up_link[i]]
        assert (conditions.down_bits_per_s, conditions.up_bits_per_s) == (down * 1000, up * 1000)
        for t in np.random.default_rng(i).uniform(0, 1000, 50):
            assert conditions.window(t) == pytest.approx(
                simulated.trace.window(int(devices.device[i]), t)
            ) or (simulated.trace.window(int(devices.device[i]), t)[1] == math.inf)


def test_a_device_that_is_always_there_has_no_windows(world):
    imposed = of_environment(world)
    assert {c.windows is None for c in imposed} == {True, False}


def test_files_one_by_one_give_the_population_of_the_same_seed(world):
    text = (world / "environment.yaml").read_text()
    (world / "environment.yaml").write_text(text.replace("assignment: by_activity, ", ""))
    options = ConditionOptions(
        slowdown=str(world / "profiles.parquet"),
        device_population=world / "shares.parquet",
        bandwidth=str(world / "links.parquet"),
        windows=world / "sessions.parquet",
        seed=3,
    )
    options.check()
    assert conditions_of_options(options, RECORDS) == of_environment(world)


def test_without_population_every_device_model_is_as_likely(world):
    options = ConditionOptions(slowdown=str(world / "profiles.parquet"))
    imposed = conditions_of_options(options, np.full(3000, 10))
    counts = np.unique([c.per_example_s for c in imposed], return_counts=True)[1]
    assert np.all(np.abs(counts - 1000) < 120)


def test_device_models_the_sessions_name_are_those_of_their_clients(world):
    write(
        world / "named.parquet",
        client_id=[1, 2],
        start_s=[0, 500],
        end_s=[100, 600],
        device_model=["fast", "slow"],
    )
    options = ConditionOptions(
        slowdown=str(world / "profiles.parquet"), windows=world / "named.parquet"
    )
    for conditions in conditions_of_options(options, RECORDS):
        expected = {0.1: ((0.0, 100.0),), 0.9: ((500.0, 600.0),)}[conditions.per_example_s]
        assert conditions.windows == AvailabilityWindows(expected)
    with pytest.raises(InvalidConditionOption, match="--device-population"):
        conditions_of_options(
            ConditionOptions(
                slowdown=str(world / "profiles.parquet"),
                windows=world / "named.parquet",
                device_population=world / "shares.parquet",
            ),
            RECORDS,
        )


def test_a_population_that_leaves_clients_out_is_refused(world):
    path = world / "environment.yaml"
    path.write_text(path.read_text().replace("population: {", "population: {clients: 9, "))
    with pytest.raises(UnimposableEnvironment, match=r"population.clients is 9 .* 10 training"):
        of_environment(world)


def test_random_drop_outs_are_refused(world):
    with (world / "environment.yaml").open("a") as file:
        file.write("dropout: {hazard_per_hour: 0.5}\n")
    with pytest.raises(UnimposableEnvironment, match="remove dropout"):
        of_environment(world)


@pytest.mark.parametrize(
    ("options", "epoch", "said"),
    [
        ({"slowdown": "1", "environment": Path("e.yaml")}, None, "what --slowdown says too"),
        ({"seed": 4, "environment": Path("e.yaml")}, None, "what --conditions-seed says"),
        ({"device_population": Path("p.csv")}, None, "leave --device-population out"),
        ({}, 12.0, "leave --epoch out"),
        ({"slowdown": "1"}, math.nan, "--epoch is nan"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, epoch, said):
    with pytest.raises(InvalidConditionOption, match=said):
        ConditionOptions(**options).check(epoch=epoch)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slowdown": "0"}, "--slowdown is 0 seconds per example"),
        ({"slowdown": "nan"}, "--slowdown is nan"),
        ({"slowdown": "quick"}, "--slowdown quick is neither a number of seconds per example"),
        ({"bandwidth": "-1"}, "--bandwidth is -1 Mbit/s"),
        ({"bandwidth": "inf"}, "--bandwidth is inf"),
        ({"bandwidth": "2,5"}, "--bandwidth 2,5 is neither a number of Mbit/s nor a file"),
        ({"slowdown": "1", "device_population": Path("p.csv")}, "give that file with --slowdown"),
        ({"bandwidth": "1", "device_population": Path("p.csv")}, "give that file with --slowdown"),
    ],
)
def test_values_that_are_none_are_refused(options, said):
    with pytest.raises(InvalidConditionOption, match=said):
        conditions_of_options(ConditionOptions(**options), RECORDS)


def test_the_environment_names_the_data_set_of_the_catalog(world):
    options = ConditionOptions(environment=world / "environment.yaml")
    options.check()
    assert options.dataset() == "clicks@1"
    assert ConditionOptions(slowdown="1").dataset() is None
    path = world / "environment.yaml"
    path.write_text(path.read_text().replace("clicks@1", "clicks.parquet"))
    assert options.dataset() is None
