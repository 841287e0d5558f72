"""Jobs: all, and one as it runs."""

import json
from typing import Any

from fastapi import APIRouter

from feature_catalog.browsing import CatalogBrowser
from feature_catalog.jobs import JobRow
from flint.console.pages import PAGE_ROWS, Catalog, Data, Offset, add_page, paging
from flint.job_view import ENDED, describe

MAX_REASONS = 50
MAX_DEVICE_MODELS = 100

router = APIRouter()


def jobs(catalog: Catalog, offset: Offset = 0) -> Data:
    """All jobs, the last submitted first."""
    page = CatalogBrowser(catalog.engine).jobs(PAGE_ROWS, offset)
    rows = [job_in_short(row) for row in page.rows]
    return {"jobs": rows, "paging": paging(page), "is_live": any(not r["ended"] for r in rows)}


def job(catalog: Catalog, job_id: str) -> Data:
    """One job: progress, outcomes with their reasons, sessions, its metric by version.

    Raises:
        UnknownJob: If there is none.
    """
    row = catalog.jobs.get(job_id)
    progress = row.progress
    sessions = progress.get("sessions", {})
    measured = _measured(row)
    return {
        **describe(row),
        "devices": measured,
        "progress": dict(progress),
        "is_live": row.status not in ENDED,
        "submitted_at": row.submitted_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "outcome_rows": _shares(progress.get("outcomes", {})),
        "reason_rows": _shares(progress.get("reasons", {})),
        "session_rows": _shares(sessions),
        "job_file": json.loads(row.job_json),
        "points": CatalogBrowser(catalog.engine).metric_points(job_id=job_id),
    }


def job_in_short(row: JobRow) -> dict[str, Any]:
    """A job as a line of a table."""
    progress = row.progress
    return {
        "job_id": row.job_id,
        "name": row.name,
        "status": row.status,
        "detail": row.detail,
        "ended": row.status in ENDED,
        "submitted_at": row.submitted_at,
        "version": progress.get("version"),
        "metric": progress.get("metric"),
        "updates": progress.get("updates"),
        "updates_per_s": progress.get("updates_per_s"),
        "in_flight": progress.get("in_flight"),
    }


def _shares(counts: dict[str, int]) -> list[dict[str, Any]]:
    """Counts with their shares of all, the greatest first."""
    total = sum(counts.values())
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"name": name, "count": count, "share": count / total if total else None}
        for name, count in by_count[:MAX_REASONS]
        if count
    ]


def _measured(row: JobRow) -> list[dict[str, Any]]:
    """Device models that the job knows of, the cheapest first."""
    devices = describe(row).get("devices") or {}
    found = [{"name": name, **cost} for name, cost in devices.get("measured", {}).items()]
    return sorted(found, key=lambda each: (each["train_s"], each["name"]))[:MAX_DEVICE_MODELS]


add_page(router, "/jobs", "jobs.html", jobs)
add_page(router, "/jobs/{job_id}", "job.html", job)
