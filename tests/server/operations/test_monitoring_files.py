"""Alert rules and dashboard ask for metrics that a running server really has, with these labels."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.operations.monitoring_files import (
    ALERTS,
    DASHBOARD,
    MONITORING,
    UnwritableMonitoring,
    write_monitoring,
)
from server.operations.up import start_up
from tests.server.operations.test_up import FREE_PORTS, home  # noqa: F401 - a fixture

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"
OF_PROMETHEUS = {"job", "instance", "le"}
SELECTOR = re.compile(r"\b(flint_\w+|process_\w+)\b(?:\{([^}]*)\})?")


def rules() -> list[dict]:
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def panels() -> list[dict]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, set[str]]]:
    """Every expression, with the labels that its texts show."""
    found = [
        (rule["expr"], set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))))
        for rule in rules()
    ]
    for panel in panels():
        for target in panel["targets"]:
            found.append(
                (target["expr"], set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])))
            )
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_operations_says_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert re.search(rf"^#+ {rule['alert']}$", OPERATIONS.read_text(), re.MULTILINE)


def test_operations_explains_no_alert_that_there_is_not():
    told = set(re.findall(r"^#+ (Flint\w+)$", OPERATIONS.read_text(), re.MULTILINE))
    assert told == {rule["alert"] for rule in rules()}


def test_panels_do_not_lie_over_each_other_and_ids_are_unique():
    all_panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in all_panels}) == len(all_panels)
    taken = set()
    for panel in all_panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells


def test_files_are_written_with_the_ports_of_the_deployment(settings, tmp_path):
    settings = replace(
        settings,
        gateway_metrics_port=19513,
        more_gateway_metrics_ports=(19523,),
        coordinator_metrics_port=19514,
    )
    paths = write_monitoring(tmp_path / "new" / "folder", settings)
    assert {path.name for path in paths} == {path.name for path in MONITORING.iterdir()}
    scraped = yaml.safe_load((tmp_path / "new" / "folder" / "prometheus.yaml").read_text())
    targets = [config["static_configs"][0]["targets"] for config in scraped["scrape_configs"]]
    assert targets == [["127.0.0.1:19513", "127.0.0.1:19523"], ["127.0.0.1:19514"]]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableMonitoring, match="give a folder of yours"):
        write_monitoring(tmp_path / "file" / "folder", None)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_files_and_alerts_fire_when_they_should(tmp_path):
    write_monitoring(tmp_path, None)
    cases = Path(__file__).with_name("alerts_cases.yaml")
    for command in (
        ["check", "config", str(tmp_path / "prometheus.yaml")],
        ["test", "rules", str(cases)],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.integration
def test_every_metric_and_label_asked_for_is_there_on_a_running_server(home):  # noqa: F811
    supervisor = start_up(home, FREE_PORTS)
    try:
        settings = supervisor.settings
        labels: dict[str, set[str]] = defaultdict(set)
        for port in (settings.gateway_metrics_port, settings.coordinator_metrics_port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
                for family in text_string_to_metric_families(answer.read().decode()):
                    for sample in family.samples:
                        labels[sample.name] |= sample.labels.keys()
    finally:
        supervisor.stop()
    # Seen only after a first task failed, so it cannot be asked for on a fresh server.
    labels["flint_tasks_not_succeeded_total"].add("reason")
    for expression, shown in expressions():
        known = set(OF_PROMETHEUS)
        for name, matchers in SELECTOR.findall(expression):
            assert name in labels, expression
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
            assert asked <= labels[name] | OF_PROMETHEUS, expression
            known |= labels[name]
        grouped = {
            name.strip()
            for by in re.findall(r"by \(([^)]*)\)", expression)
            for name in by.split(",")
        }
        assert grouped | shown <= known, expression
