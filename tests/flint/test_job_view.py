"""What a person watching a job is shown."""

import datetime as dt
import io
from dataclasses import replace

import pytest
from rich.console import Console

from feature_catalog.jobs import JobQueue, JobRow
from flint.job_view import VersionLines, describe, follow_job, render

PROGRESS = {
    "version": 12,
    "metric": 0.41234,
    "metric_version": 10,
    "updates": 2400,
    "updates_per_s": 21.44,
    "in_flight": 58,
    "held": 7,
    "elapsed_s": 3725.0,
    "outcomes": {"succeeded": 2400, "stale": 3, "rejected": 0},
    "reasons": {"max_staleness": 3},
    "sessions": {"-v[]+^": 2400, "-v[!": 797, "-v[]+#": 3},
}
ROW = JobRow(
    job_id="j-1",
    name="ads",
    status="running",
    job_json="{}",
    epoch=1,
    flower_run_id=2**63 + 1,
    progress=PROGRESS,
    detail="",
    submitted_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    started_at=None,
    finished_at=None,
)


def shown(row: JobRow) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(render(row))
    return console.file.getvalue()


def test_the_panel_shows_what_matters_and_leaves_out_what_did_not_happen():
    text = shown(ROW)
    for part in ("0.4123 (version 10)", "2,400 (21.4/s)", "58", "1:02:05", "max_staleness"):
        assert part in text
    assert "rejected" not in text


def test_the_panel_shows_how_far_attempts_came_the_most_frequent_first():
    rows = [line.split() for line in shown(ROW).splitlines() if "%" in line]
    assert [row[1:4] for row in rows] == [
        ["-v[]+^", "2,400", "75.0%"],
        ["-v[!", "797", "24.9%"],
        ["-v[]+#", "3", "0.1%"],
    ]


def test_a_job_that_waits_has_a_panel_too():
    assert "queued" in shown(replace(ROW, status="queued", progress={}))


def test_lines_come_only_when_version_metric_or_status_changed():
    stream = io.StringIO()
    lines = VersionLines(stream)
    lines(ROW)
    lines(replace(ROW, progress=PROGRESS | {"updates": 2401}))
    lines(replace(ROW, progress=PROGRESS | {"version": 13}))
    lines(replace(ROW, status="finished", detail="max_updates 2401 reached"))
    first, second, third = stream.getvalue().splitlines()
    assert "version 12" in first
    assert "version 13" in second
    assert third.startswith("finished")
    assert third.endswith("max_updates 2401 reached")


def test_the_json_of_a_job_has_its_progress_beside_its_own_keys():
    described = describe(ROW)
    assert described["job_id"] == "j-1"
    assert described["outcomes"] == PROGRESS["outcomes"]
    assert described["submitted_at"] == "2026-01-01T00:00:00+00:00"
    assert described["started_at"] is None


@pytest.mark.parametrize("status", ["finished", "stopped", "failed"])
def test_following_ends_with_the_job(engine, status):
    queue = JobQueue(engine)
    job_id = queue.submit("{}", "ads", None)
    queue.claim(job_id)

    seen = []

    def on_change(row: JobRow) -> None:
        seen.append(row.status)
        if len(seen) == 1:
            queue.finish(job_id, status, "because")

    assert follow_job(queue, job_id, on_change=on_change).detail == "because"
    assert seen == ["running", status]
