"""Options many commands share, so that they are spelt and explained alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import typer

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Data directory of the deployment. Default: $FLINT_HOME, else the user's own.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]

SourceFolderOption = Annotated[
    Path, typer.Option("--data", help="Folder under which feature sources' relative paths are.")
]
NaiveIsUtcOption = Annotated[
    bool,
    typer.Option(
        "--naive-is-utc",
        help="Take timestamps without a time zone as UTC, of rows and of sources. Without it they "
        "are refused.",
    ),
]
SourceDatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="FLINT_FEATURES_DATABASE_URL",
        help="Postgres of feature sources that are tables. Default: the catalog's own.",
        show_default=False,
    ),
]


def resolve_home(home: Path | None) -> Path:
    """The data directory asked for, else the default one."""
    from server.operations.settings import flint_home

    return home.expanduser().absolute() if home is not None else flint_home()


def require_some(*given: Sequence[object] | None, sentence: str) -> None:
    """Refuse a command line on which none of several repeatable arguments stands.

    Raises:
        UsageError: Saying ``sentence``.
    """
    if not any(given):
        raise click.UsageError(sentence, click.get_current_context())
