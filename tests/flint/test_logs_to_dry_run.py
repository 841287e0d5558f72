"""From an app's logs to a dry-run: every input of the environment is made by a command."""

import json
from pathlib import Path

import pytest

from flint.availability_evidence import FactsOfAnotherBuild, read_facts
from flint.catalog_session import open_catalog
from flint.named_inputs import named_inputs
from tests.flint.reports.availability_facts import write_facts
from tests.flint.test_command_line import flint

pytestmark = pytest.mark.integration
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A session log of 500 devices, their measured models and transfers."""
    folder = tmp_path_factory.mktemp("logs")
    made = flint("availability", "example", folder, "--clients", 500, home=folder)
    assert made.returncode == 0, made.stderr
    header, *rows = (folder / "measurements.csv").read_text().splitlines()
    assert header.replace('"', "").split(",")[:2] == ["device_model", "train_s_per_5000"]
    speeds = [(name.strip('"'), float(s) / 5000) for name, s, *_ in (r.split(",") for r in rows)]
    lines = [f"{name},{s},{s / 4}" for name, s in speeds]
    (folder / "profiles.csv").write_text("\n".join(["device_model,mean_s,stdev_s", *lines]) + "\n")
    return folder


def done(*arguments, home):
    result = flint(*arguments, "--json", home=home)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_session_log_becomes_a_report_and_a_dry_run(logs, flint_home, tmp_path):
    log, criteria = logs / "sessions.parquet", logs / "criteria.yaml"
    page = tmp_path / "page.html"
    with open_catalog(flint_home):  # Postgres starts once for all commands
        build = done("availability", "build", log, "-c", criteria, "--name", "app",
                     home=flint_home)  # fmt: skip
        links = done("bandwidth", "fit", logs / "transfers.parquet", "--bytes-column", "bytes",
                     "--seconds-column", "took_s", "--direction-column", "direction",
                     "--client-column", "device_id", "-o", tmp_path / "links.parquet",
                     home=flint_home)  # fmt: skip
        people = done("population", "build", log, "--profiles", logs / "profiles.csv", "-o",
                      tmp_path / "people.parquet", "--profiles-output",
                      tmp_path / "speeds.parquet", home=flint_home)  # fmt: skip
        assert (links["trace"], people["trace"], people["profiles"]) == (
            "links@1", "people@1", "speeds@1",
        )  # fmt: skip
        report = done(
            "availability", "report", "app@1", "--html", page, "--model", "sparse_mlp",
            "--profiles", "speeds", "--bandwidth", "links", home=flint_home,
        )  # fmt: skip
        other = write_facts(tmp_path / "other.parquet", clients=100)
        with (
            named_inputs(flint_home) as inputs,
            pytest.raises(FactsOfAnotherBuild, match="is of another build than app@1"),
        ):
            read_facts("app", inputs, facts_file=other)
        environment = tmp_path / "environment.yaml"
        environment.write_text(
            f"dataset: {{source: {QUICKSTART / 'quickstart_clicks.parquet'}, "
            "label_field: clicked}\n"
            "population: {clients: 300, resample: {availability: true}}\n"
            "availability: app@1\n"
            "device_profiles: speeds@1\nbandwidth: links@1\n"
        )
        run = done("simulate", QUICKSTART / "job.yaml", "-e", environment, "--system-only",
                   home=flint_home)  # fmt: skip
    assert {row["criterion"]: row["sessions"] for row in report["criteria"]} == build[
        "share_by_criterion"
    ] | {"all": build["share_all"]}
    assert 0.5 < report["task"]["share_from_start"] <= 1.0
    assert "Tuesday" in page.read_text()
    assert {group["dimension"] for group in report["fairness"]["groups"]} == {
        "device tier", "OS release", "activity", "device model",
    }  # fmt: skip
    assert run["outcomes"]["succeeded"] > 0
