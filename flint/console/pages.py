"""How a page is made: a function reads its data, a template shows them, and programs get JSON.

Every page ``/x`` has a twin ``/api/x`` with the same data.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, Response

from feature_catalog.browsing import Page
from flint.catalog_session import CatalogSession
from flint.console.plain_values import plain
from flint.console.rendering import rendered

PAGE_ROWS = 50
MAX_OFFSET = 10**9
METHODS = ["GET", "HEAD"]

Data = Mapping[str, Any]


def _catalog(request: Request) -> CatalogSession:
    catalog: CatalogSession = request.app.state.catalog
    return catalog


Catalog = Annotated[CatalogSession, Depends(_catalog)]
Offset = Annotated[int, Query(ge=0, le=MAX_OFFSET)]
Words = Annotated[str, Query(max_length=200)]


def add_page(router: APIRouter, path: str, template: str, read: Callable[..., Data]) -> None:
    """Serve a page, and its twin for programs.

    Args:
        path: With ``{parameters}`` as FastAPI has them.
        template: File among the templates.
        read: Its data; arguments are the path's parameters and the query's.
    """

    @functools.wraps(read)
    def page(*args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - as ``read``
        return HTMLResponse(rendered(template, read(*args, **kwargs)))

    @functools.wraps(read)
    def twin(*args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - as ``read``
        # What begins with _ is only for the page to draw.
        data = {k: v for k, v in read(*args, **kwargs).items() if not k.startswith("_")}
        return Response(json.dumps(plain(data), allow_nan=False), media_type="application/json")

    for annotated in (page, twin):
        annotated.__annotations__ = {**read.__annotations__, "return": Response}
    router.add_api_route(path, page, methods=METHODS, response_model=None)
    twin_path = "/api" if path == "/" else f"/api{path}"
    router.add_api_route(twin_path, twin, methods=METHODS, response_model=None)


def paging(page: Page[Any]) -> Data:
    """Where a page of rows stands among all: what its links need."""
    last = max(0, math.ceil(page.total / PAGE_ROWS) - 1) * PAGE_ROWS
    return {
        "first": page.offset + 1 if page.rows else 0,
        "last": page.offset + len(page.rows),
        "total": page.total,
        "newer": max(0, page.offset - PAGE_ROWS) if page.offset else None,
        "older": page.offset + PAGE_ROWS if page.offset < last else None,
    }


def sliced(rows: "tuple[Any, ...] | list[Any]", offset: int) -> Page[Any]:
    """A page of rows that are all at hand."""
    return Page(tuple(rows[offset : offset + PAGE_ROWS]), offset, len(rows))
