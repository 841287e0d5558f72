"""The console as one application: pages, their style, and mistakes told as pages."""

import importlib.resources
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from device_runtime.errors import FlintError
from feature_catalog.datasets import UnknownDataset
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.jobs import UnknownJob
from feature_catalog.model_store import UnknownVersion
from feature_catalog.simulation_runs import UnknownSimulationRun
from flint.catalog_session import CatalogSession
from flint.console import (
    device_page,
    feature_pages,
    job_pages,
    lineage_pages,
    model_pages,
    overview,
    record_pages,
    run_pages,
    service_pages,
)
from flint.console.access import Guarded
from flint.console.errors import NoSuchPage
from flint.console.latest_definitions import LatestDefinitions
from flint.console.pages import METHODS
from flint.console.rendering import rendered
from flint.console.run_pages import Reports
from flint.console.style import console_style

log = logging.getLogger(__name__)

_NOT_THERE = (
    NoSuchPage,
    UnknownDataset,
    UnknownDefinition,
    UnknownJob,
    UnknownSimulationRun,
    UnknownVersion,
)


def make_application(
    catalog: CatalogSession, home: Path, names: Collection[str] = (), *, only_loopback: bool = True
) -> Guarded:
    """The console of a catalog, as an ASGI application.

    Args:
        catalog: Opened to be read only.
        home: Its data directory.
        names: Names by which the console may be asked for, beside addresses of this machine.
        only_loopback: Whether other machines cannot reach it.
    """
    # FastAPI's own pages of documentation load scripts from elsewhere.
    app = FastAPI(title="FLINT console", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.catalog, app.state.home = catalog, home
    app.state.definitions, app.state.reports = LatestDefinitions(), Reports()
    for part in (
        overview,
        feature_pages,
        service_pages,
        device_page,
        lineage_pages,
        model_pages,
        job_pages,
        run_pages,
        record_pages,
    ):
        app.include_router(part.router)
    for path, content, media_type in (
        ("/style.css", console_style(), "text/css"),
        ("/live.js", _static("live.js"), "text/javascript"),
        ("/icon.svg", _static("icon.svg"), "image/svg+xml"),
    ):
        app.add_route(path, _file(content, media_type), METHODS)
    app.add_exception_handler(Exception, _failed)
    for kind in (FlintError, SQLAlchemyError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _failed)
    return Guarded(app, names, only_loopback=only_loopback)


def _file(content: str, media_type: str) -> Callable[[Request], Response]:
    def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _static(name: str) -> str:
    return (importlib.resources.files("flint.console") / "static" / name).read_text()


def _failed(request: Request, error: Exception) -> Response:
    status, sentence = _explained(error)
    if status >= 500:
        log.error("%s: %s", request.url.path, sentence, exc_info=error)
    if request.url.path == "/api" or request.url.path.startswith("/api/"):
        return JSONResponse({"error": sentence}, status)
    page = rendered("error.html", {"status": status, "sentence": sentence})
    return HTMLResponse(page, status)


def _explained(error: Exception) -> tuple[int, str]:
    """HTTP status and a sentence."""
    if isinstance(error, FlintError):
        return (404 if isinstance(error, _NOT_THERE) else 400), str(error)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = str(first["loc"][-1]) if first["loc"] else "the address"
        return 400, f"{where} in the address cannot be used: {first['msg']}"
    if isinstance(error, HTTPException):
        if error.status_code == 404:
            return 404, "there is no such page"
        return error.status_code, str(error.detail)
    if isinstance(error, OperationalError):
        return 503, (
            "the database does not answer, or took too long; see with `flint status` whether the "
            "server runs, and load this page again"
        )
    return 500, f"unexpected {type(error).__name__}; the console's terminal shows more"
