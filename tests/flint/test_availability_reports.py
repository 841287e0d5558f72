"""``flint availability report`` and ``tune`` as a user runs them."""

import json

import pytest

from flint.cli.entry import main
from tests.flint.reports.availability_facts import write_facts, write_world


@pytest.fixture
def flint(capsys, monkeypatch, tmp_path):
    """Run a command in this process; its exit code, stdout and stderr."""
    monkeypatch.setenv("FLINT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_a_page_is_written_from_a_facts_file(flint, tmp_path):
    facts, world = write_facts(tmp_path / "facts.parquet", clients=3000), write_world(tmp_path)
    page = tmp_path / "page.html"
    code, out, err = flint(
        "availability", "report", facts, "--html", page, "--json", "--update-bytes", 760_000,
        "--profiles", world["profiles"], "--bandwidth", world["bandwidth"],
    )  # fmt: skip
    assert code == 0, err
    found = json.loads(out)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert found["report"] == str(page)
    assert found["clients"] == 3000
    assert found["task"]["duration_s"]["p5"] == pytest.approx(500 * 0.01 + 1.52)
    assert err.count("warning: ") == min(6, len(found["fairness"]["warnings"])) > 0


def test_figures_are_printed_without_a_page_and_the_user_sets_the_least_share(flint, tmp_path):
    facts = write_facts(tmp_path / "facts.parquet", clients=3000)
    code, out, err = flint("availability", "report", facts, "--min-group-share", 0.01)
    assert code == 0, err
    assert "battery full enough (0.8)" in out
    assert "all together" in out
    assert "warning" not in err


def test_mistakes_are_one_sentence(flint, tmp_path):
    facts = write_facts(tmp_path / "facts.parquet", clients=100)
    code, out, err = flint("availability", "report", facts, "--model", "sparse_mlp")
    assert (code, out, err[-11:]) == (2, "", "[FLN-2723]\n")
    page = tmp_path / "no" / "page.html"
    code, out, err = flint("availability", "report", facts, "--html", page)
    assert (code, out, err[-11:]) == (2, "", "[FLN-1742]\n")


def test_relaxed_criteria_are_tuned_on_a_log_and_dropped_ones_on_facts(flint, tmp_path):
    log, criteria = tmp_path / "log.csv", tmp_path / "criteria.yaml"
    rows = [f"{device},{3600 * device},{3600 * device + 600},{device / 10}" for device in range(10)]
    log.write_text("\n".join(["device_id,start,end,battery", *rows]) + "\n")
    criteria.write_text("times: trace\nstate: {min_battery: 0.8}\n")
    code, out, err = flint("availability", "tune", log, "--criteria", criteria, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["before"]["client_share"] == pytest.approx(0.2)
    gains = {each["relaxed"]: each["gain_client_share"] for each in found["relaxations"]}
    assert gains == pytest.approx({None: 0.8, 0.2: 0.6, 0.5: 0.3})
    assert list(gains) == [None, 0.2, 0.5]

    facts = write_facts(tmp_path / "facts.parquet", clients=1000)
    code, out, err = flint("availability", "tune", facts)
    assert code == 0, err
    assert "without min_battery" in out
