"""Dry-runs, and the report of each."""

import json
import threading
from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from feature_catalog.browsing import CatalogBrowser
from feature_catalog.simulation_runs import SimulationRunRow, SimulationRuns
from flint.console.pages import METHODS, PAGE_ROWS, Catalog, Data, Offset, add_page, paging
from flint.extras import require
from flint.run_view import describe, mean_metric, status, trials

# A report is a page by itself: its style is in it, and it needs no script at all.
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_KEPT_REPORTS = 16

router = APIRouter()


def runs(catalog: Catalog, offset: Offset = 0) -> Data:
    """All dry-runs, the last started first."""
    page = CatalogBrowser(catalog.engine).simulation_runs(PAGE_ROWS, offset)
    driven = catalog.simulation_runs.driven()
    return {"runs": [run_in_short(row, driven) for row in page.rows], "paging": paging(page)}


def run(catalog: Catalog, run_id: str) -> Data:
    """One dry-run: its inputs, and what came of each trial.

    Raises:
        UnknownSimulationRun: If there is none.
    """
    row = catalog.simulation_runs.get(run_id)
    driven = catalog.simulation_runs.driven()
    described = describe(row, driven)
    return {
        **described,
        "in_short": run_in_short(row, driven),
        "trial_rows": list(trials(row))[:200],
        "job_file": json.loads(row.job_json),
        "environment_file": json.loads(row.environment_json),
        "has_report": row.status == "finished",
    }


def run_in_short(row: SimulationRunRow, driven: Collection[str]) -> dict[str, Any]:
    """A dry-run as a line of a table."""
    return {
        "run_id": row.run_id,
        "name": row.name,
        "kind": row.kind,
        "status": status(row, driven),
        "trials": row.trials,
        "metric": mean_metric(row),
        "virtual_hours": _mean(row, "virtual_hours"),
        "device_hours": _mean(row, "device_hours"),
        "created_at": row.created_at,
        "has_report": row.status == "finished",
    }


class Reports:
    """Reports of finished runs, which do not change: drawn once, the last few kept."""

    def __init__(self) -> None:
        self._drawing = threading.Lock()  # matplotlib draws for one at a time
        self._pages: dict[str, str] = {}

    def page(self, runs: SimulationRuns, reference: str) -> str:
        """The page that `flint report` writes.

        Raises:
            FlintError: As `report`.
        """
        require("matplotlib", purpose="a report")
        from flint.reports.page import make_report
        from flint.reports.run_data import load_run

        run_id = runs.get(reference).run_id
        with self._drawing:
            if run_id not in self._pages:
                self._pages[run_id] = make_report([load_run(runs, run_id)]).html
            while len(self._pages) > _KEPT_REPORTS:
                del self._pages[next(iter(self._pages))]
            return self._pages[run_id]


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports


def report(
    catalog: Catalog, run_id: str, reports: Annotated[Reports, Depends(_reports)]
) -> HTMLResponse:
    """The page that `flint report` writes, made when it is first asked for.

    Raises:
        UnknownSimulationRun: If there is no such run.
        RunWithoutResults: If it has not finished.
        MissingExtra: If matplotlib is not installed.
    """
    page = reports.page(catalog.simulation_runs, run_id)
    return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})


def _mean(row: SimulationRunRow, name: str) -> float | None:
    found = [trial[name] for trial in trials(row) if trial.get(name) is not None]
    return sum(found) / len(found) if found else None


add_page(router, "/runs", "runs.html", runs)
add_page(router, "/runs/{run_id}", "run.html", run)
router.add_api_route("/runs/{run_id}/report", report, methods=METHODS, response_model=None)
