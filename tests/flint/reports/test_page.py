"""The page: valid, whole, offline, safe; what it says is what the tables say."""

import base64
import csv
import datetime as dt
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from flint.reports.page import make_report
from tests.flint.reports.synthetic_runs import (
    OUTCOMES,
    empty_run,
    make_run,
    plausible_run,
    renamed,
    task_row,
    trajectory_row,
)

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "hr", "col"}
NBSP = "\N{NO-BREAK SPACE}"
HOSTILE = "<script>alert('x')</script>&\"$a_{b}$\x00"


class Page(HTMLParser):
    """Elements in balance, ids, links, texts and figures of a page."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.tags, self.texts = [], [], [], [], []
        self.attributes = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.figures = [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.S)]

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes.append(given)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts).replace(NBSP, " "))

    def data(self, key):
        """The rows of a chart's CSV file."""
        given = next(a for a in self.attributes if a.get("download") == f"{key}.csv")
        encoded = given["href"].removeprefix("data:text/csv;charset=utf-8;base64,")
        return list(csv.DictReader(io.StringIO(base64.b64decode(encoded).decode())))


def page_of(*runs):
    return Page(make_report(runs).html)


@pytest.fixture(scope="module")
def fedbuff():
    return plausible_run(aggregations=60, trials=2)


@pytest.fixture(scope="module")
def fedavg():
    made = plausible_run(aggregations=20, is_round=True, concurrency=26, cohort=20, seed=3)
    return renamed(made, "s-fedcba987654", "in rounds")


@pytest.fixture(scope="module")
def pages(fedbuff, fedavg):
    """What every page must keep to, however much or little a run knows."""
    return {
        "one": make_report([fedbuff]).html,
        "two": make_report([fedavg, fedbuff]).html,
        "many": make_report([renamed(fedavg, f"s-{n:012x}", f"run {n}") for n in range(8)]).html,
        "empty": make_report([empty_run()]).html,
        "empty beside": make_report([fedavg, empty_run()]).html,
        "no rows": make_report([make_run(summary={})]).html,
        "one task": make_report(
            [make_run(trajectory=[trajectory_row(0, 0.0)], tasks=[task_row(1, 0.0, 5.0, "failed")])]
        ).html,
        "flower app": make_report([flower_app()]).html,
        "hostile": make_report([hostile()]).html,
    }


def flower_app():
    """A Flower app may know neither versions of tasks, staleness, tiers nor bytes."""
    rows = [trajectory_row(v, 60.0 * v, metric=0.1 * v, loss=1.0 - 0.1 * v) for v in range(4)]
    tasks = [
        task_row(n, 20.0 * n, 20.0 * n + 15, version=None, base_version=None, bytes_down=None,
                 bytes_up=None)
        for n in range(9)
    ]  # fmt: skip
    summary = {
        "metric_name": "accuracy",
        "metric_source": "clients",
        "trials": [{"trial": 0, "client_errors": [{"error": "out of <memory>", "tasks": 3}]}],
    }
    return make_run(kind="flower_app", trajectory=rows, tasks=tasks, summary=summary)


def hostile():
    made = plausible_run(aggregations=10)
    trials = [{**made.summary["trials"][0], "stop_reason": HOSTILE}]
    return make_run(
        run_id=HOSTILE,
        name=HOSTILE,
        status="failed",
        detail=HOSTILE,
        job_json=f'{{"name": "{HOSTILE}"',
        environment_json=f'{{"a": "{HOSTILE}',
        versions={HOSTILE: HOSTILE},
        files={HOSTILE: HOSTILE},
        code_version=HOSTILE,
        trajectory=made.trajectory.to_pylist(),
        tasks=made.tasks.to_pylist(),
        summary={"metric_name": HOSTILE, "trials": trials},
    )


KINDS = ("one", "two", "many", "empty", "empty beside", "no rows", "one task", "flower app",
         "hostile")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_parses_and_its_ids_are_of_one_element_each(pages, kind):
    page = Page(pages[kind])
    assert len(page.ids) == len(set(page.ids))
    inside = {link[1:] for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_for_nothing_from_outside(pages, kind):
    html = pages[kind]
    outside = set(re.findall(r"[a-z]+://[^\"'\s<)]*", html))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    page = Page(html)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not set(page.tags) & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert all("src" not in attributes for attributes in page.attributes)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_has_a_title_and_a_description_and_text_that_can_be_selected(pages, kind):
    for figure in Page(pages[kind]).figures:
        assert figure.get("role") == "img"
        named = figure.get("aria-labelledby").split()
        told = [node for node in figure if node.tag in {f"{SVG}title", f"{SVG}desc"}]
        assert [node.get("id") for node in told] == named
        assert all(node.text for node in told)
        assert len(list(figure.iter(f"{SVG}text"))) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_follows_light_and_dark(pages, kind):
    for figure in Page(pages[kind]).figures:
        colours = set(re.findall(r"#[0-9a-f]{6}\b", ET.tostring(figure, encoding="unicode")))
        assert colours == set()


def test_names_of_users_are_text_never_markup(pages):
    html = pages["hostile"]
    assert "<script" not in html.lower()
    assert "\x00" not in html
    assert "<script>alert('x')</script>" in Page(html).text


def test_a_run_that_failed_says_so(pages):
    assert "has failed" in Page(pages["hostile"]).text
    assert "has failed" not in Page(pages["one"]).text


def test_head_and_figures_say_what_the_tasks_add_up_to(fedbuff):
    report = make_report([fedbuff])
    page, (figures,) = Page(report.html), report.figures["runs"]
    tasks = fedbuff.tasks.to_pylist()
    assert figures["tasks_started"]["mean"] == len(tasks) / 2
    for outcome in OUTCOMES:
        count = sum(task["outcome"] == outcome for task in tasks)
        assert figures["outcomes"][outcome]["mean"] == count / 2
    hours = sum(task["ended_s"] - task["started_s"] for task in tasks) / 3600 / 2
    assert figures["device_hours"]["mean"] == pytest.approx(hours)
    assert f"{hours:.1f} device hours" in page.text
    best = [max(row["metric"] or 0 for row in fedbuff.trajectory.to_pylist() if row["trial"] == t)
            for t in (0, 1)]  # fmt: skip
    assert f"AUPRC {np.mean(best):.4f} at best" in page.text
    assert f"{min(best):.4f} to {max(best):.4f}" in page.text


def test_outcomes_over_time_add_up_to_all_tasks(fedavg):
    page = page_of(fedavg)
    tasks = fedavg.tasks.to_pylist()
    rows = page.data("outcomes")
    for outcome in {task["outcome"] for task in tasks}:
        expected = sum(task["outcome"] == outcome for task in tasks)
        assert sum(float(row[outcome]) for row in rows) == expected
    first = rows[0]
    inside = [t for t in tasks if float(first["from_s"]) <= t["ended_s"] < float(first["to_s"])]
    assert sum(float(first[o]) for o in OUTCOMES if o in first) == len(inside)


def test_durations_and_staleness_count_every_task_once(fedbuff):
    page, tasks = page_of(fedbuff), fedbuff.tasks.to_pylist()
    rows = page.data("durations")
    assert sum(float(row.get(o, 0)) for row in rows for o in OUTCOMES) == len(tasks)
    lasted = [t["ended_s"] - t["started_s"] for t in tasks if t["outcome"] == "succeeded"]
    assert f"longest {max(lasted) / 60:.3g} min" in page.text
    behind = [t["version"] - 1 - t["base_version"] for t in tasks if t["version"] is not None]
    found = {int(row["staleness_from"]): int(row["updates"]) for row in page.data("staleness")}
    assert found == {n: behind.count(n) for n in found}
    assert sum(found.values()) == len(behind)
    assert f"{np.mean(behind):.2f} versions behind" in page.text


def test_bytes_over_time_add_up_to_all_bytes(fedbuff):
    rows = page_of(fedbuff).data("bytes")
    for direction in ("down", "up"):
        flowed = sum(
            float(row[f"{direction}_bytes_per_s"]) * (float(row["to_s"]) - float(row["from_s"]))
            for row in rows
        )
        assert flowed == pytest.approx(
            sum(task[f"bytes_{direction}"] for task in fedbuff.tasks.to_pylist()) / 2, rel=1e-6
        )


def test_the_busiest_minute_is_the_peak_bandwidth():
    tasks = [task_row(n, 0.0, 10.0, download_s=10.0, bytes_down=6000) for n in range(10)]
    tasks.append(task_row(11, 300.0, 600.0, download_s=300.0, upload_s=0.0))
    run = make_run(trajectory=[trajectory_row(0, 0.0), trajectory_row(1, 600.0)], tasks=tasks)
    assert "the server sends 1 kB/s" in page_of(run).text


def test_in_flight_is_the_mean_over_each_interval():
    tasks = [task_row(1, 0.0, 400.0), task_row(2, 100.0, 400.0), task_row(3, 0.0, 200.0)]
    run = make_run(trajectory=[trajectory_row(0, 0.0), trajectory_row(1, 400.0)], tasks=tasks)
    page = page_of(run)
    rows = page.data("availability")
    mean = np.mean([float(row["in_flight"]) for row in rows])
    assert mean == pytest.approx((400 + 300 + 200) / 400)
    assert "2.25 tasks in flight on average, at most 3" in page.text


def test_tiers_are_shares_of_clients_and_tasks(fedbuff):
    rows = page_of(fedbuff).data("tiers")
    assert [row["tier"] for row in rows] == ["fast", "middle", "slow"]
    trials = fedbuff.summary["trials"]
    shares = [t["tiers"][0]["succeeded"] / sum(x["succeeded"] for x in t["tiers"]) for t in trials]
    assert float(rows[0]["succeeded_share"]) == pytest.approx(np.mean(shares))
    assert float(rows[0]["metric"]) == pytest.approx(0.4215)
    assert sum(float(row["clients_share"]) for row in rows) == pytest.approx(1.0)


def test_several_runs_are_compared_at_the_best_metric_all_reached(fedavg, fedbuff):
    report = make_report([fedavg, fedbuff])
    found = report.figures["comparison"]
    best = max(row["metric"] or 0 for row in fedavg.trajectory.to_pylist())
    assert found["target"] == best
    reached = []
    for trial in (0, 1):
        rows = [r for r in fedbuff.trajectory.to_pylist() if r["trial"] == trial]
        reached.append(next(r["virtual_s"] for r in rows if (r["metric"] or 0) >= best) / 3600)
    to_target = found["to_target"]
    assert to_target[fedbuff.run_id]["virtual_hours"]["mean"] == pytest.approx(np.mean(reached))
    first = next(r["virtual_s"] for r in fedavg.trajectory.to_pylist() if r["metric"] == best)
    speed_up = first / 3600 / np.mean(reached)
    assert to_target[fedbuff.run_id]["speed_up"] == pytest.approx(speed_up)
    assert to_target[fedavg.run_id]["speed_up"] == 1.0


def test_runs_of_one_name_are_told_apart(fedavg):
    other = renamed(fedavg, "s-999999999999", fedavg.name)
    text = page_of(fedavg, other).text
    assert "s-fedcba in rounds" in text
    assert "s-999999 in rounds" in text


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", "No update was ever aggregated"),
        ("empty", "No version's metric was measured, so there is no curve."),
        ("empty", "No task was started, so there is nothing to show."),
        ("empty", "Neither availability nor any task was recorded."),
        ("empty", "No bytes were recorded"),
        ("no rows", "No loss was recorded"),
        ("one task", "No task succeeded."),
        ("flower app", "No update's base version is known"),
        ("flower app", "It is not known which tasks an aggregation consisted of."),
        ("flower app", "Devices of these runs are in no tiers of speed."),
        ("flower app", "Measured by the clients on their own records"),
        ("flower app", "out of <memory>"),
        ("empty beside", "Not every run measured a metric."),
        ("empty beside", "no task was started."),
        ("one task", "How many clients were available is not recorded"),
    ],
)
def test_what_is_absent_is_said_in_a_sentence(pages, kind, sentence):
    assert sentence in Page(pages[kind]).text


def test_an_empty_run_has_no_figures(pages):
    assert Page(pages["empty"]).figures == []


def test_a_run_in_rounds_has_no_plot_of_its_staleness(fedavg):
    page = page_of(fedavg)
    assert "none was stale" in page.text
    assert not any("staleness" in str(a.get("download")) for a in page.attributes)


def test_the_same_run_gives_the_same_page(fedavg):
    assert make_report([fedavg]).html == make_report([fedavg]).html


def test_drawing_leaves_matplotlib_as_it_was(fedavg):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    make_report([fedavg])
    assert dict(mpl.rcParams) == before


def test_a_run_of_a_hundred_thousand_tasks_fits_in_two_megabytes():
    report = make_report([large_run()])
    assert len(report.html.encode()) < 2_000_000
    assert "100,000 tasks" in Page(report.html).text


def large_run(count=100_000, versions=5_000):
    random = np.random.default_rng(5)
    started = np.sort(random.uniform(0, 600_000, count))
    ended = started + random.lognormal(5, 1.3, count)
    stored = np.linspace(0, 600_000, versions + 1)
    outcome = random.choice(OUTCOMES, count, p=[0.7, 0.1, 0.1, 0.05, 0.03, 0.02])
    base = np.searchsorted(stored, started, side="right") - 1
    version = np.minimum(np.searchsorted(stored, ended), versions)
    tasks = pa.table(
        {
            "trial": np.zeros(count, np.int64),
            "client": random.integers(0, 10_000, count),
            "base_version": base,
            "version": pa.array(version, mask=outcome != "succeeded"),
            "started_s": started,
            "ended_s": ended,
            "download_s": (ended - started) * 0.1,
            "train_s": (ended - started) * 0.7,
            "upload_s": (ended - started) * 0.2,
            "device_s": ended - started,
            "outcome": outcome,
            "bytes_down": np.full(count, 750_000),
            "bytes_up": np.where(outcome == "succeeded", 750_000, 0),
        }
    )
    done = np.searchsorted(np.sort(ended), stored)
    trajectory = pa.table(
        {
            "trial": np.zeros(versions + 1, np.int64),
            "version": np.arange(versions + 1),
            "virtual_s": stored,
            "metric": 0.4
            - 0.3 * np.exp(-np.arange(versions + 1) / 900)
            + random.normal(0, 0.01, versions + 1),
            "tasks_started": np.searchsorted(started, stored),
            "device_s": done * 200.0,
            "wasted_device_s": done * 50.0,
            "succeeded": done,
        }
    )
    from flint.reports.run_data import conform

    made = make_run(summary={"metric_name": "auprc", "trials": []})
    import dataclasses

    return dataclasses.replace(
        made,
        tasks=conform("tasks", tasks, where="a test"),
        trajectory=conform("trajectory", trajectory, where="a test"),
        created_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    )


def test_updates_that_left_the_numbers_stand_above_the_verdict():
    made = plausible_run(aggregations=10)
    said = "the training of client 3 (task 9, from version 2) left the numbers in step 4"
    diverged = {"updates": 2, "clients": 1, "first": [{"sentence": said}]}
    trials = [{**made.summary["trials"][0], "diverged": diverged}]
    html = make_report([replace(made, summary={**made.summary, "trials": trials})]).html
    assert f"trial 0: {said}, the first of 2 updates of 1 client that did" in html
