"""flint bench: from a model to a page and to the device profiles of a dry-run, and its mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from android_bench.packing import load_model, pack
from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect
from feature_catalog.environment_inputs import EnvironmentInputs
from feature_catalog.measurements import Measurements
from simulation.availability.measurements import read_measurements
from simulation.traces.device_profiles import read_device_profiles

pytestmark = pytest.mark.integration

SHORT = ("--records", "100", "--repeats", "2", "--min-pass-s", "0.05")


class Flint:
    """The command line on a database and a data directory of its own."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "FLINT_HOME": str(home),
            "FLINT_DATABASE_URL": database_url,
            "COLUMNS": "200",
        }
        self.engine = connect(database_url)

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=120, check=False,
            env=self.environment,
        )  # fmt: skip

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "flint", *map(str, arguments)]

    def answer(self, *arguments: object):
        result = self(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        (line,) = result.stdout.splitlines()
        return json.loads(line)

    def measured(self, *arguments: object):
        """Answer of a run that is resumed until the machine was idle enough for every throttle."""
        for _ in range(5):
            result = self(*arguments, "--json")
            assert result.returncode in {0, 2}, result.stderr
            answer = json.loads(result.stdout)
            if not any("too busy" in reason for reason in answer["failures"].values()):
                break
        return answer

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(f"file://{self.home / 'blobs'}")


@pytest.fixture
def flint(tmp_path: Path, database_url: str):
    flint = Flint(tmp_path / "home", database_url)
    yield flint
    flint.engine.dispose()


@pytest.fixture(scope="module")
def packed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is sent to devices: commands go on in copies, without TensorFlow."""
    folder = tmp_path_factory.mktemp("packed") / "run"
    pack(load_model("tiny_mlp"), folder / "package", records=100, repeats=2, min_pass_s=0.05)
    return folder


@pytest.fixture
def run_options(packed_run: Path, tmp_path: Path) -> tuple[object, ...]:
    folder = tmp_path / "run"
    shutil.copytree(packed_run, folder)
    spec, _ = pack(
        load_model("tiny_mlp"), folder / "package", records=100, repeats=2, min_pass_s=0.05
    )
    (folder / "spec.json").write_text(spec.to_json())
    return ("bench", "run", "--model", "tiny_mlp", *SHORT, "--output", folder, "--resume")


def test_from_a_model_to_a_page_and_to_the_profiles_of_a_dry_run(
    flint: Flint, run_options, tmp_path: Path
):
    measured = (*run_options, "--devices", "host,emulated:tier-12,tier-20")
    ran = flint.measured(*measured)
    assert set(ran["devices"]) == {"host", "emulated:tier-12", "emulated:tier-20"}
    figures = ("pass_s_mean", "cpu_percent", "memory_mb", "network_mb", "storage_mb")
    for name, device in ran["devices"].items():
        assert device["ok"], (name, device["reasons"])
        assert all(device[figure] > 0 for figure in figures)
        assert device["loss_last"] < device["loss_first"]
        assert device["emulated"] == name.startswith("emulated")
    assert ran["across_device_models"]["real"]["device_models"] == 1
    assert ran["across_device_models"]["emulated"]["device_models"] == 2
    assert ran["devices"]["emulated:tier-20"]["requested_duty"] == 0.154

    # Going on with a finished run measures nothing, and stores nothing twice.
    again = flint.answer(*measured)
    assert again["devices"] == ran["devices"]
    stored = Measurements(flint.engine, flint.blobs).list()
    assert len([row for row in stored if row.measurement.ok]) == 3

    report = flint.answer("bench", "report", "--html", tmp_path / "devices.html")
    assert [row["fleet"] for row in report["rows"]] == ["this machine", "emulated fleet"]
    assert report["rows"][1]["device_models"] == 2
    assert report["rows"][0]["paper"]["train_s_mean"] == 4.98
    assert "<svg" in (tmp_path / "devices.html").read_text()
    assert "A tiny_mlp" in flint("bench", "report").stdout

    costs = tmp_path / "measurements.csv"
    exported = flint.answer(
        *("bench", "export", "tiny_bench", "--model", "tiny_mlp", "--measurements", costs)
    )
    assert exported["device_profiles"] == "tiny_bench@1"
    assert (exported["device_models"], exported["samples"], exported["emulated"]) == (3, 6, 2)
    refused = flint(
        *("bench", "export", "Bad Name", "--model", "tiny_mlp", "--output", tmp_path / "bad.csv")
    )
    assert (refused.returncode, "FLN-1116" in refused.stderr) == (2, True)
    assert not (tmp_path / "bad.csv").exists()
    inputs = EnvironmentInputs(flint.engine, flint.blobs)
    row = inputs.get("tiny_bench@1")
    assert row.kind == "device_profiles"
    profiles = read_device_profiles(inputs.local_file(row))
    assert len(profiles.device_models) == 3
    # What a criteria file of `flint availability build` judges device models by.
    judged = read_measurements(costs, memory=True)
    assert set(judged.row) == set(profiles.device_models)
    per_model = np.add.reduceat(profiles.samples_s, profiles.offsets[:-1]) / 2
    train_s = [judged.train_s[judged.row[name]] for name in profiles.device_models]
    assert train_s == pytest.approx(5000 * per_model)
    assert (judged.memory_mb > 0).all()


def test_a_benchmark_that_gives_no_figures_says_why_and_ends_with_2(flint: Flint, run_options):
    result = flint(*run_options, "--timeout-s", "0.01", "--json")
    assert result.returncode == 2
    ran = json.loads(result.stdout)
    assert "hung: killed after 0.01 s" in ran["failures"]["host"]
    assert "pass_s_mean" not in ran["devices"]["host"]
    assert "1 of 1 devices gave no figures" in result.stderr
    assert "Traceback" not in result.stderr
    report = flint("bench", "report")
    assert report.returncode == 2
    assert "FLN-2509" in report.stderr


def test_an_interrupted_benchmark_goes_on_where_it_was(flint: Flint, run_options, tmp_path: Path):
    slow = (*run_options, "--devices", "emulated:tier-26,tier-27")
    process = subprocess.Popen(
        flint.command(*slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=flint.environment,
    )  # fmt: skip
    deadline_s = time.monotonic() + 60
    while not (tmp_path / "run" / "state").exists() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert f"--resume --output {tmp_path / 'run'} goes on" in said
    assert "Traceback" not in said
    assert flint.measured(*slow)["failures"] == {}
    other = flint(*run_options, "--seed", 1)
    assert other.returncode == 2
    assert "seed 0, and 1 is asked for" in other.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--model", "tiny_mpl"), "FLN-1501"),
        (("--model", "tiny_mlp", "--devices", "hots"), "FLN-2507"),
        (("--model", "tiny_mlp", "--records", "0"), "FLN-2501"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(flint: Flint, options, code: str):
    result = flint("bench", "run", *options)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert code in line
    assert not (flint.home / "benchmarks").exists()
