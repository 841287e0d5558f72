"""The first page: what runs, what is new, and where to begin where there is nothing yet."""

from fastapi import APIRouter
from sqlalchemy import URL

from feature_catalog.browsing import CatalogBrowser
from feature_catalog.definitions.plain import DEFINITIONS
from flint.console.job_pages import job_in_short
from flint.console.latest_definitions import Definitions
from flint.console.pages import Catalog, Data, add_page
from flint.console.run_pages import run_in_short
from flint.console.served_home import Home

_NEWEST = 5

router = APIRouter()


def overview(catalog: Catalog, state: Definitions, home: Home) -> Data:
    """Server, counts, and the newest of everything."""
    browser = CatalogBrowser(catalog.engine)
    runs = browser.simulation_runs(_NEWEST).rows
    driven = catalog.simulation_runs.driven() if runs else frozenset()
    return {
        "server": home.server(),
        "database": _database(catalog.engine.url),
        "definitions": {
            kind: sum(key.kind == kind for key in state.definitions.definitions)
            for kind in DEFINITIONS
        },
        "counts": browser.counts(),
        "jobs": [job_in_short(row) for row in browser.jobs(_NEWEST).rows],
        "lines": browser.lines(_NEWEST).rows,
        "runs": [run_in_short(row, driven) for row in runs],
        "changes": browser.audit_entries(_NEWEST).rows,
    }


def _database(url: URL) -> str:
    """Where the database is, without user or password."""
    if url.host is None:
        return "the embedded Postgres"
    return f"Postgres at {url.host}" + (f":{url.port}" if url.port else "")


add_page(router, "/", "overview.html", overview)
