"""``flint bandwidth fit`` and ``flint population build`` as a user runs them."""

import json

import numpy as np
import pytest

from simulation.traces.bandwidth import read_bandwidth
from simulation.traces.device_profiles import read_device_population, read_device_profiles
from tests.flint.test_command_line import flint, sentence


def write(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.fixture
def transfers(tmp_path):
    draw = np.random.default_rng(0)
    rows = []
    for device in range(300):
        for direction, median in (("rx", 8000), ("tx", 3000)):
            kbps = median * np.exp(draw.standard_normal())
            rows.append((device, direction, 1_000_000, 8000 / kbps))
    rows.append((7, "rx", 0, 5.0))
    return write(tmp_path / "transfers.csv", "device,way,bytes,took_s", rows)


COLUMNS = ("--bytes-column", "bytes", "--seconds-column", "took_s", "--direction-column", "way",
           "--down-value", "rx", "--up-value", "tx", "--client-column", "device")  # fmt: skip


def test_bandwidth_is_fitted_and_written(transfers, tmp_path):
    output = tmp_path / "links.csv"
    result = flint("bandwidth", "fit", transfers, *COLUMNS, "-o", output, "--links", 500,
                   "--no-add", "--json", home=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "1 of 601 rows are of no use and left out" in result.stderr
    found = json.loads(result.stdout)
    assert found["down"]["median_kbps"] == pytest.approx(8000, rel=0.15)
    assert found["up"]["median_kbps"] == pytest.approx(3000, rel=0.15)
    assert (found["distribution"], found["paired_links"]) == ("lognormal", 300)
    assert len(read_bandwidth(output).down) == 500
    assert "trace" not in found


def test_mistakes_with_measurements_are_one_sentence_and_write_nothing(transfers, tmp_path):
    result = flint("bandwidth", "fit", "--no-add", home=tmp_path)
    assert "give at least one FILE" in sentence(result)
    result = flint("bandwidth", "fit", transfers, "-o", tmp_path / "x.parquet", home=tmp_path)
    assert "--kbps-column" in sentence(result)
    result = flint("bandwidth", "fit", transfers, "-o", tmp_path / "x.txt", home=tmp_path)
    assert sentence(result).endswith("[FLN-2703]")
    assert list(tmp_path.glob("*x.*")) == []


@pytest.fixture
def phones(tmp_path):
    write(tmp_path / "profiles.csv", "device_model,mean_s,stdev_s", [("a", 1, 0), ("b", 2, 0)])
    write(tmp_path / "log.csv", "device_id,device_model",
          [(1, "a"), (1, "a"), (2, "B"), (3, "b2"), (4, "exotic")])  # fmt: skip
    write(tmp_path / "phones.csv", "device_model,score,cores",
          [("a", 1, 2), ("b", 100, 8), ("b2", 110, 8), ("exotic", 5000, 64)])  # fmt: skip
    return tmp_path


def test_a_population_is_built_with_profiles_of_the_logs_models(phones):
    output, profiles = phones / "people.parquet", phones / "more.csv"
    result = flint(
        "population", "build", phones / "log.csv", "--hardware", phones / "phones.csv",
        "--profiles", phones / "profiles.csv", "-o", output, "--profiles-output", profiles,
        "--no-add", "--json", home=phones,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["devices_by_match"] == {"same": 2, "alias": 0, "nearest": 1, "unmatched": 1}
    assert found["unmatched_share"] == 0.25
    assert "25.0% of the devices have no measured model" in result.stderr
    population = read_device_population(output)
    assert population.device_models == ("a", "b")
    assert population.share == pytest.approx([1 / 3, 2 / 3])
    assert read_device_profiles(profiles).device_models == ("B", "a", "b", "b2")
    assert (phones / "people-mapping.parquet").is_file()


def test_a_log_without_the_column_is_one_sentence(phones):
    result = flint("population", "build", phones / "log.csv", "--profiles", phones / "profiles.csv",
                   "--device-column", "phone", "-o", phones / "p.csv", home=phones)  # fmt: skip
    assert "there is no column 'phone'" in sentence(result)
    assert not (phones / "p.csv").exists()
