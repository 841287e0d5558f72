"""``flint bandwidth fit`` and ``flint population build`` as a user runs them."""

import json

import numpy as np
import pytest

from flint.catalog_session import open_catalog
from simulation.traces.bandwidth import read_bandwidth
from simulation.traces.device_profiles import read_device_population
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
    assert "1 of 601 rows have no speed" in result.stderr
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


@pytest.mark.integration
def test_a_population_and_links_go_into_the_catalog(phones, transfers, flint_home):
    with open_catalog(flint_home):  # Postgres starts once for all commands
        output = phones / "people.parquet"
        arguments = ("population", "build", phones / "log.csv", "--hardware", phones / "phones.csv")
        result = flint(*arguments, "--profiles", phones / "profiles.csv", "-o", output, "--json",
                       home=flint_home)  # fmt: skip
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert found["trace"] == "people@1"
        assert found["devices_by_match"] == {"same": 2, "alias": 0, "nearest": 1, "unmatched": 1}
        assert found["unmatched_share"] == 0.25
        assert "25.0% of the devices have no measured model" in result.stderr
        population = read_device_population(output)
        assert population.device_models == ("a", "b")
        assert population.share == pytest.approx([1 / 3, 2 / 3])
        assert (phones / "people-mapping.parquet").is_file()

        result = flint("bandwidth", "fit", transfers, *COLUMNS, "-o", phones / "links.parquet",
                       home=flint_home)  # fmt: skip
        assert result.returncode == 0, result.stderr
        shown = json.loads(flint("trace", "show", "links", "--json", home=flint_home).stdout)
        assert shown["kind"] == "bandwidth"
        assert shown["statistics"]["fit"]["down"]["links"] == 300

        flint("trace", "add", phones / "profiles.csv", "--kind", "device_profiles", home=flint_home)
        named = flint(*arguments, "--profiles", "profiles", "-o", output, "--json", home=flint_home)
        assert json.loads(named.stdout)["devices_by_match"] == found["devices_by_match"]
        wrong = flint(*arguments, "--profiles", "links", "-o", output, home=flint_home)
        assert "links@1 is bandwidth" in sentence(wrong)


def test_a_log_without_the_column_is_one_sentence(phones):
    result = flint("population", "build", phones / "log.csv", "--profiles", phones / "profiles.csv",
                   "--device-column", "phone", "-o", phones / "p.csv", home=phones)  # fmt: skip
    assert "there is no column 'phone'" in sentence(result)
    assert not (phones / "p.csv").exists()
