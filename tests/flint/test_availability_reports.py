"""``flint availability report`` and ``tune`` as a user runs them."""

import json

import pytest

from tests.flint.reports.availability_facts import write_facts, write_world
from tests.flint.test_command_line import flint, sentence


def test_a_page_is_written_from_a_facts_file(tmp_path):
    facts, world = write_facts(tmp_path / "facts.parquet", clients=3000), write_world(tmp_path)
    page = tmp_path / "page.html"
    result = flint(
        "availability", "report", facts, "--html", page, "--json", "--update-bytes", 760_000,
        "--profiles", world["profiles"], "--bandwidth", world["bandwidth"], home=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert found["report"] == str(page)
    assert found["clients"] == 3000
    assert found["task"]["duration_s"]["p5"] == pytest.approx(500 * 0.01 + 1.52)
    assert result.stderr.count("warning: ") == min(6, len(found["fairness"]["warnings"])) > 0


def test_figures_are_printed_without_a_page_and_the_user_sets_the_least_share(tmp_path):
    facts = write_facts(tmp_path / "facts.parquet", clients=3000)
    result = flint("availability", "report", facts, "--min-group-share", 0.01, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "battery full enough (0.8)" in result.stdout
    assert "all together" in result.stdout
    assert "warning" not in result.stderr


def test_mistakes_are_one_sentence(tmp_path):
    facts = write_facts(tmp_path / "facts.parquet", clients=100)
    result = flint("availability", "report", facts, "--model", "sparse_mlp", home=tmp_path)
    assert sentence(result).endswith("[FLN-2723]")
    page = tmp_path / "no" / "page.html"
    result = flint("availability", "report", facts, "--html", page, home=tmp_path)
    assert sentence(result).endswith("[FLN-1742]")


def test_relaxed_criteria_are_tuned_on_a_log_and_dropped_ones_on_facts(tmp_path):
    log, criteria = tmp_path / "log.csv", tmp_path / "criteria.yaml"
    rows = [f"{device},{3600 * device},{3600 * device + 600},{device / 10}" for device in range(10)]
    log.write_text("\n".join(["device_id,start,end,battery", *rows]) + "\n")
    criteria.write_text("times: trace\nstate: {min_battery: 0.8}\n")
    result = flint("availability", "tune", log, "--criteria", criteria, "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["before"]["client_share"] == pytest.approx(0.2)
    gains = {each["relaxed"]: each["gain_client_share"] for each in found["relaxations"]}
    assert gains == pytest.approx({None: 0.8, 0.2: 0.6, 0.5: 0.3})
    assert list(gains) == [None, 0.2, 0.5]

    facts = write_facts(tmp_path / "facts.parquet", clients=1000)
    result = flint("availability", "tune", facts, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "without min_battery" in result.stdout
