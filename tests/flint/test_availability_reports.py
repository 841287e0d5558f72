"""``flint availability report`` and ``tune`` as a user runs them."""

import json

import pytest

from flint.catalog_session import open_catalog
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


@pytest.mark.integration
def test_a_session_log_is_built_reported_and_tuned(flint_home, tmp_path):
    world = tmp_path / "example"
    flint("availability", "example", world, "--clients", 500, home=flint_home)
    log, criteria = world / "sessions.parquet", world / "criteria.yaml"
    facts = tmp_path / "facts.parquet"
    with open_catalog(flint_home):  # Postgres starts once for all commands
        built = flint("availability", "build", log, "-c", criteria, "--name", "app", "--facts",
                      facts, "--json", home=flint_home)  # fmt: skip
        assert built.returncode == 0, built.stderr
        build = json.loads(built.stdout)
        page = tmp_path / "page.html"
        result = flint("availability", "report", "app@1", "--facts", facts, "--html", page,
                       "--json", home=flint_home)  # fmt: skip
        assert result.returncode == 0, result.stderr
        report = json.loads(result.stdout)
        other = write_facts(tmp_path / "other.parquet", clients=100)
        wrong = flint("availability", "report", "app", "--facts", other, home=flint_home)
        assert sentence(wrong).endswith("[FLN-2724]")
    dropped = flint("availability", "tune", facts, "--json", home=flint_home)
    assert {row["criterion"]: row["sessions"] for row in report["criteria"]} == build[
        "share_by_criterion"
    ] | {"all": build["share_all"]}
    assert "Tuesday" in page.read_text()
    assert {g["dimension"] for g in report["fairness"]["groups"]} >= {"OS release", "activity"}

    result = flint("availability", "tune", log, "--criteria", criteria, "--json", home=flint_home)
    assert result.returncode == 0, result.stderr
    tuned = json.loads(result.stdout)
    assert tuned["before"]["eligible_mean_share"] == pytest.approx(build["eligible_mean_share"])
    exact = {r["criterion"]: r["client_share"] for r in json.loads(dropped.stdout)["relaxations"]}
    # foreground judges moments as well as sessions; all others only which sessions pass.
    for each in tuned["relaxations"]:
        if each["relaxed"] is None and each["criterion"] != "foreground":
            assert each["client_share"] == pytest.approx(exact[each["criterion"]])
