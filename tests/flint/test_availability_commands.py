"""``flint availability`` as a user runs it."""

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from android_bench.devices.emulated import shipped_profiles
from tests.flint.test_command_line import flint, sentence

EXAMPLES = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Folder of a small generated log with benchmark results and criteria."""
    folder = tmp_path_factory.mktemp("example")
    result = flint("availability", "example", folder, "--clients", 300, "--json", home=folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"] > 5000
    return folder


def test_a_log_becomes_a_trace_and_figures(example, tmp_path):
    result = flint(
        *("availability", "build", example / "sessions.parquet"),
        *("-c", example / "criteria.yaml", "-o", tmp_path / "trace.parquet"),
        *("--facts", tmp_path / "facts.parquet", "--json"),
        home=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (
        found["sessions_in"]
        > found["sessions_out"]
        == pq.read_metadata(tmp_path / "trace.parquet").num_rows
    )
    assert found["clients"] == pq.read_metadata(tmp_path / "facts.parquet").num_rows
    assert 0 < found["share_all"] < min(found["share_by_criterion"].values())
    assert 0 < found["eligible_mean_share"] < found["eligible_peak_share"] < 1
    assert len(found["hourly"]) == 168
    assert (found["trace"], found["output"]) == (None, str(tmp_path / "trace.parquet"))
    assert "sessions of a device model without benchmark result: " in result.stderr
    assert "decided by coins of seed 0" in result.stderr


def test_the_example_has_what_the_other_tools_take(example, tmp_path):
    fleet = [profile.device_model for profile in shipped_profiles().values()]
    rows = "".join(f"{name},{0.001 * (tier + 1)}\n" for tier, name in enumerate(fleet))
    (tmp_path / "fleet.csv").write_text("device_model,per_example_s\n" + rows)
    log, facts = example / "sessions.parquet", example / "phones.csv"
    people = flint(
        *("population", "build", log, "--profiles", tmp_path / "fleet.csv", "--hardware", facts),
        *("-o", tmp_path / "people.csv", "--no-add", "--json"),
        home=tmp_path,
    )
    assert people.returncode == 0, people.stderr
    found = json.loads(people.stdout)
    # The last of the log's models has no known hardware, as it has no benchmark result.
    assert (found["devices_by_match"]["same"], found["unmatched_models"]) == (0, 1)
    assert found["unmatched_share"] < 0.1
    links = flint(
        *("bandwidth", "fit", example / "transfers.parquet", "--bytes-column", "bytes"),
        *("--seconds-column", "took_s", "--direction-column", "direction"),
        *("--client-column", "device_id", "-o", tmp_path / "links.csv", "--no-add", "--json"),
        home=tmp_path,
    )
    assert links.returncode == 0, links.stderr
    fit = json.loads(links.stdout)
    assert fit["down"]["median_kbps"] == pytest.approx(8000, rel=0.3)
    assert fit["up"]["median_kbps"] == pytest.approx(2500, rel=0.3)
    assert fit["correlation"] == pytest.approx(0.7, abs=0.15)
    assert fit["down"]["log_stdev_within"] == pytest.approx(0.4, abs=0.05)


def test_a_mistake_is_one_sentence(example, tmp_path):
    def build(text, *more):
        (tmp_path / "c.yaml").write_text(text)
        command = ("availability", "build", example / "sessions.parquet", "-c", tmp_path / "c.yaml")
        return sentence(flint(*command, *more, home=tmp_path))

    assert "did you mean state?" in build("sate: {}")
    named = build("", "--name", "No Such Name")
    assert "a trace cannot be called 'No Such Name'" in named


@pytest.mark.integration
def test_a_dry_run_names_the_trace_that_was_built(example):
    home = Path(tempfile.mkdtemp(prefix="flint-availability-"))
    home.chmod(0o755)  # the embedded Postgres's user may enter
    try:
        (home / "c.yaml").write_text("sessions: {max_background_gap_s: 600}\nfold: week\n")
        built = flint(
            *("availability", "build", example / "sessions.parquet", "-c", home / "c.yaml"),
            *("--name", "app_sessions", "--json"),
            home=home,
        )
        assert built.returncode == 0, built.stderr
        assert json.loads(built.stdout)["trace"] == "app_sessions@1"
        shown = flint("trace", "show", "app_sessions@1", "--json", home=home)
        statistics = json.loads(shown.stdout)["statistics"]
        assert statistics["build"]["sessions_in"] > 5000
        assert statistics["clients"] == statistics["build"]["clients_out"]
        shutil.copytree(EXAMPLES, home / "quickstart")
        environment = home / "quickstart" / "environment.yaml"
        text = environment.read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("availability:")]
        text = text.replace(line, "availability: app_sessions@1")
        # The trace names each client's device model.
        text = text.replace("device_population: device_population.parquet\n", "")
        environment.write_text(text.replace("random,", "random, resample: {availability: true},"))
        run = flint(
            *("simulate", home / "quickstart" / "job.yaml", "-e", environment),
            *("--system-only", "--json"),
            home=home,
        )
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["tasks_started"] > 0
    finally:
        shutil.rmtree(home, ignore_errors=True)
