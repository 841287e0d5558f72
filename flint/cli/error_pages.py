"""``flint errors``: the long explanation behind a code."""

import re
from pathlib import Path
from typing import Annotated

import typer

from device_runtime.errors import FlintError

# A link to docs/errors, which an installed package holds as files of its own.
_PAGES = Path(__file__).parents[1] / "error_pages"
_CODE = re.compile(r"(?:FLN-)?(\d{4})", re.IGNORECASE)


class UnknownErrorCode(FlintError):
    """No page explains this code."""

    code = "FLN-1250"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("errors")(errors)


def errors(
    code: Annotated[
        str | None,
        typer.Argument(help="Code as printed in brackets, e.g. FLN-1003.", show_default=False),
    ] = None,
) -> None:
    """Explain an error code; without one, list all.

    Example: flint errors FLN-1003
    """
    if code is None:
        for page in sorted(_PAGES.glob("FLN-*.md")):
            print(page.read_text().split("\n", 1)[0].removeprefix("# "))
        return
    print(_page(code).read_text().rstrip())


def _page(code: str) -> Path:
    match = _CODE.fullmatch(code.strip().strip("[]"))
    page = _PAGES / f"FLN-{match.group(1)}.md" if match else None
    if page is None or not page.is_file():
        raise UnknownErrorCode(
            f"there is no page on {code!r}; give a code such as FLN-1003, or run `flint errors` "
            "for the list"
        )
    return page
