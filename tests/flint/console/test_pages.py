"""Every page of the console, over real HTTP: what it shows is what the catalog holds."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from feature_catalog.audit_log import AuditAction, AuditLog
from feature_catalog.definitions import Entity
from feature_catalog.definitions.catalog_set import DefinitionSet, key_of
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.jobs import JobQueue
from feature_catalog.on_device import DeviceProfile, resolve_for_device
from server.operations.settings import ServerSettings
from tests.flint.console.conftest import Console
from tests.flint.console.filled_catalog import HOSTILE, VERSIONS

pytestmark = pytest.mark.integration


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def links(self) -> set[str]:
        return {str(attrs["href"]) for tag, attrs in self.tags if attrs.get("href")}


def page(console: Console, path: str) -> Page:
    response, body = console.get(path)
    assert response.status == 200, f"{path}: {body}"
    return Page(body)


def twin(console: Console, path: str) -> Any:
    response, body = console.get(f"/api{path}")
    assert (response.status, response.headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


@pytest.fixture(scope="module")
def crawled(console: Console) -> dict[str, str]:
    """Every page that is reached from the overview, by path."""
    found: dict[str, str] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        response, body = console.get(path)
        assert response.status == 200, f"{path} is linked and answers {response.status}: {body}"
        found[path] = body
        links = Page(body).links() if "html" in response.headers["content-type"] else set()
        waiting += [f"{path.partition('?')[0]}{to}" if to.startswith("?") else to for to in links]
    return found


def test_every_link_leads_to_a_page_and_every_page_has_a_twin(console, crawled):
    sections = {"/", "/features", "/services", "/devices", "/assets", "/models", "/jobs", "/runs"}
    assert sections | {"/datasets", "/audit"} <= set(crawled)
    assert "/models/ads/13/lineage" in crawled
    assert f"/jobs/{console.filled.running}" in crawled
    for path in crawled:
        if "." not in path and not path.endswith("/report"):
            assert isinstance(twin(console, "" if path == "/" else path), dict)


def test_hostile_text_is_shown_as_text(crawled):
    shown = [path for path, body in crawled.items() if HOSTILE in Page(body).text]
    assert {"/features", "/audit", "/definitions/feature_view/ad_views"} <= set(shown)
    for path, body in crawled.items():
        assert HOSTILE not in body, path


def test_no_page_has_a_script_or_style_in_it_that_the_policy_would_refuse(crawled):
    for path, body in crawled.items():
        for tag, attributes in Page(body).tags:
            assert tag != "style"
            assert "style" not in attributes, f"{path}: <{tag} style>"
            assert not any(name.startswith("on") for name in attributes)
            assert tag != "script" or attributes.get("src") == "/live.js"
            for name in ("src", "href", "action"):
                assert not re.match(r"(?i)\s*[a-z+.-]+:|//", attributes.get(name) or "")


def test_drawings_are_well_formed(crawled):
    drawn = re.findall(r"<svg.*?</svg>", "".join(crawled.values()), flags=re.DOTALL)
    assert len(drawn) > 5
    for svg in drawn:
        ET.fromstring(svg)


def test_a_service_shows_its_contracts_and_what_was_trained_under_each(console):
    filled = console.filled
    shown = twin(console, "/services/ads_ctr_v1")
    assert shown["contract_sha256"] == filled.contract
    assert [each["sha256"] for each in shown["contracts"]] == [filled.contract, filled.old_contract]
    assert shown["contracts"][1]["models"]["total"] == VERSIONS + 1
    assert shown["contracts"][0]["models"] == {"total": 0, "newest": []}
    old = page(console, f"/services/ads_ctr_v1/contracts/{filled.old_contract}")
    assert "older" in old.text
    assert "ads@13" in old.text
    (kept,) = [v for v in shown["content"]["views"] if v["name"] == "ad_stats"]
    assert kept["ttl"] == "36h"


def test_what_a_device_stores_is_what_resolving_says(console):
    state = FeatureRegistry(console.engine).state()
    service = state.definitions.service("ads_ctr_v1")
    assert service is not None
    profile = DeviceProfile("a small device", storage_class="small", unmetered=False)
    wanted = resolve_for_device(profile, service, state.definitions)
    query = "?service=ads_ctr_v1&device=small&network=metered"
    found = twin(console, f"/devices{query}")["found"]
    assert found["totals"]["total_bytes"] == wanted.total_bytes
    assert [each["bytes"] for each in found["stored"]] == [each.bytes for each in wanted.stored]
    shown = page(console, f"/devices{query}").text
    assert "clicks_7d, country" in shown  # why user_stats is cached
    for remark in wanted.remarks:
        assert " ".join(remark.sentence.split()) in shown


def test_what_a_device_may_spend_is_what_the_deployment_says(console):
    path = "/devices?service=ads_ctr_v1&device=small"
    usual = twin(console, path)["found"]["budget"]
    rules = {"budgets": {"small": {"total_bytes": 5_000_000}}}
    settings = ServerSettings(console.home, "", "", "", "", "", 0, 0, device_rules=rules)
    saved = settings.save()
    try:
        found = twin(console, path)["found"]["budget"]
    finally:
        saved.unlink()
    assert found == usual | {"total_bytes": 5_000_000}


def test_a_device_is_chosen_by_name_and_never_by_a_file(console):
    response, body = console.get("/devices?service=ads_ctr_v1&device=/etc/hostname")
    assert response.status == 400
    assert "FLN-2982" in body


def test_what_is_applied_is_shown_at_once(console):
    before = {each["name"] for each in twin(console, "/features")["entities"]}
    new = Entity("shop", join_keys=["shop_id"])
    FeatureRegistry(console.engine).apply(DefinitionSet({key_of(new): new}))
    after = {each["name"] for each in twin(console, "/features")["entities"]}
    assert after - before == {"shop"}


def test_an_asset_whose_file_devices_would_miss_is_said_to_be_missing(console):
    (asset,) = twin(console, "/assets")["assets"]
    assert (asset["name"], asset["has_file"]) == ("ad_categories", False)
    assert "missing" in page(console, "/assets").text


def test_cloud_views_are_listed_with_what_is_served_of_them(console):
    found = twin(console, "/features/online")["value_sets"]
    assert [(each["view"], each["standing"], each["keys"]) for each in found] == [
        ("ad_stats", "current", 0),
        ("user_stats", "current", 0),
    ]
    assert "/features/online" in page(console, "/features").links()


def test_a_model_shows_its_best_and_production_versions_and_who_promoted(console):
    shown = page(console, "/models/ads").text
    assert "In production ads@5" in shown
    metrics = {each["number"]: each["metric"] for each in twin(console, "/models/ads")["points"]}
    assert f"Best ads@{max(metrics, key=lambda number: metrics[number])}" in shown
    assert len(metrics) == VERSIONS + 1


def test_lineage_is_drawn_with_what_is_not_known(console):
    shown = page(console, "/models/ads/13/lineage")
    for name in (console.filled.finished, "clicks@1", "ads_ctr_v1, version 1", "ctr_30d"):
        assert name in shown.text
    assert "the records stay on the devices" in shown.text
    assert f"/jobs/{console.filled.finished}" in shown.links()
    backwards = page(console, "/definitions/asset/ad_categories/lineage").text
    assert "ads, 13 versions" in backwards
    assert "newest ads@13" in backwards


def test_a_job_is_shown_with_its_reasons_and_sessions(console):
    shown = page(console, f"/jobs/{console.filled.running}")
    for said in ("max_staleness 3", "battery_low 12", "-v[]+^ 60", "2.50 a second", "17"):
        assert said in shown.text
    assert any(attributes.get("data-live") == "on" for _, attributes in shown.tags)
    ended = page(console, f"/jobs/{console.filled.finished}")
    assert not any(attributes.get("data-live") == "on" for _, attributes in ended.tags)


def test_a_run_whose_process_is_gone_is_interrupted_and_has_no_report_yet(console):
    assert "interrupted" in page(console, f"/runs/{console.filled.run}").text
    response, body = console.get(f"/runs/{console.filled.run}/report")
    assert response.status == 400
    assert "FLN-1740" in body


def test_many_rows_come_a_page_at_a_time(console):
    log = AuditLog(console.engine)
    for number in range(120):
        log.append(AuditAction.BACKUP_MADE, f"backup {number}")
    first = twin(console, "/audit")
    assert len(first["entries"]) == 50
    assert first["entries"][0]["subject"] == "backup 119"
    assert first["paging"]["older"] == 50
    second = twin(console, "/audit?offset=50")
    assert second["entries"][0]["subject"] == "backup 69"
    assert second["paging"]["newer"] == 0
    total = first["paging"]["total"]
    assert twin(console, f"/audit?offset={total + 50}")["entries"] == []


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nowhere", 404, "no such page"),
        ("/models/nobody", 404, "FLN-1301"),
        ("/models/ads/99999999999999", 404, "FLN-1301"),
        ("/models/ads@2/3", 404, "FLN-1301"),
        ("/jobs/j-0", 404, "FLN-1204"),
        ("/runs/s-nobody", 404, "FLN-1310"),
        ("/datasets/clicks/99", 404, "FLN-1112"),
        ("/definitions/asset/nothing", 404, "FLN-28"),
        ("/services/ads_ctr_v1/contracts/" + "0" * 64, 404, "FLN-3021"),
        ("/definitions/entity/ad?version=zero", 400, "version in the address"),
        ("/audit?offset=-1", 400, "offset in the address"),
        ("/audit?offset=99999999999999999999", 400, "offset in the address"),
        ("/features?q=" + "x" * 300, 400, "q in the address"),
        ("/jobs/" + quote(HOSTILE, safe=""), 404, ""),
        ("/jobs/%00", 400, ""),
        ("/devices?service=ads_ctr_v1&device=small&free_mb=-1", 400, "FLN-2980"),
    ],
)
def test_a_page_that_cannot_be_shown_says_why_in_a_sentence(console, path, status, said):
    response, body = console.get(path)
    assert (response.status, "Traceback" in body) == (status, False)
    assert said in Page(body).text
    assert HOSTILE not in body


def test_only_reading_requests_from_our_own_names_are_answered(console):
    assert console.get("/", "POST")[0].status == 405
    response, body = console.get("/jobs", "HEAD")
    assert (response.status, body) == (200, "")
    response, body = console.get("/", Host="evil.example")
    assert response.status == 421
    assert "Overview" not in body


def test_the_database_itself_refuses_what_the_console_might_write(console):
    with console.reading.engine.begin() as connection:
        for statement in ("DELETE FROM jobs", "CREATE TABLE mine (id int)"):
            with pytest.raises(DBAPIError, match="read-only"), connection.begin_nested():
                connection.execute(text(statement))
    with pytest.raises(DBAPIError, match="read-only"):
        JobQueue(console.reading.engine).submit("{}", "mine", None)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def browsed(console: Console, path: str) -> str:
    """The page as Chromium has it five seconds after it was opened."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; apt-get install chromium")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", "--enable-logging=stderr", f"{console.url}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert "Content Security Policy" not in done.stderr, done.stderr
    return done.stdout


def test_in_a_browser_hostile_text_runs_no_script_and_breaks_no_policy(console):
    shown = browsed(console, "/features")
    assert "&lt;script&gt;alert('owned')&lt;/script&gt;" in shown
    assert HOSTILE not in unquote(shown)


def test_in_a_browser_a_running_job_brings_itself_up_to_date(console):
    path = f"/jobs/{console.filled.running}"
    asked: list[str] = []

    def work_on(answered: str) -> None:
        if answered == path:
            asked.append(answered)
            queue, job = JobQueue(console.engine), console.filled.running
            queue.update_progress(job, {**queue.get(job).progress, "version": 76_543})

    console.on_answered.append(work_on)
    try:
        shown = browsed(console, path)
    finally:
        console.on_answered.remove(work_on)
    assert len(asked) > 1
    assert "76,543" in shown
