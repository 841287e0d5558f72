"""``flint audit``: who changed what, and when."""

import datetime as dt
import re
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import print_json, print_table

_AGO = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit")(audit)


def audit(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Only from then on: 2026-05-01, 2026-05-01T08:00, or 90m, 12h, 7d."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who changed what, and when, oldest first.

    Jobs submitted, stopped and ended, models promoted, enrolment tokens, keys and certificates
    made, settings changed, backups. No secret is in it.

    Example: flint audit --since 7d
    """
    from dataclasses import asdict

    from feature_catalog.audit_log import AuditLog
    from flint.catalog_session import open_catalog

    begin = None if since is None else parse_moment(since, dt.datetime.now().astimezone())
    with open_catalog(resolve_home(home)) as catalog:
        entries = AuditLog(catalog.engine).entries(begin)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    print_table(
        ("when", "who", "what", "of", "detail"),
        [(e.at, e.actor, e.action, e.subject, e.detail) for e in entries],
        empty="nothing was changed" + (f" since {since}" if since else " yet"),
    )


def parse_moment(given: str, now: dt.datetime, option: str = "--since") -> dt.datetime:
    """A moment in time, given as a date or time (of this machine's zone) or as an age.

    Raises:
        BadParameter: If it is neither.
    """
    ago = _AGO.fullmatch(given)
    if ago is not None:
        return now - dt.timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError as error:
        raise typer.BadParameter(
            f"{given!r} is no moment; give a date (2026-05-01), a time (2026-05-01T08:00) or an "
            "age (90m, 12h, 7d)",
            param_hint=option,
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
