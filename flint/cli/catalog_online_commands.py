"""``flint catalog materialize``, ``get`` and ``online``: the newest values, ready to be read."""

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from flint.cli.options import (
    HomeOption,
    JsonOption,
    NaiveIsUtcOption,
    SourceDatabaseOption,
    SourceFolderOption,
    resolve_home,
)
from flint.cli.output import note, print_json, print_table

Stage = Literal["cloud", "device_ingest", "device_read", "none"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("materialize")(materialize)
    app.command("get")(get)
    app.command("online")(online)


def materialize(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE|VIEW]...",
            help="Views, or services for all their views. Without: every view with a source in "
            "the cloud.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="MOMENT",
            help="Rows that became true after it: a date, a time or an age (7d). Default: since "
            "the last time, with what was written late; the first time those within the view's "
            "ttl, or all.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(metavar="MOMENT", help="Up to it. Default: now.", show_default=False),
    ] = None,
    data: SourceFolderOption = Path(),
    naive_is_utc: NaiveIsUtcOption = False,
    database: SourceDatabaseOption = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="As if nothing had been materialised; deletes nothing."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the newest row of each key online, from Parquet files and tables.

    A row replaces another only if it is newer, so intervals may be repeated, overlap and come in
    any order. A run that was killed is gone on with by the same command.

    Example: flint catalog materialize ads_ctr_v1 --data feature-data
    """
    import contextlib

    from feature_catalog.database import connect
    from feature_catalog.online.materialization import Sources
    from feature_catalog.online.materialization import materialize as bring_online
    from flint.catalog_session import open_catalog
    from flint.cli.audit_command import parse_moment
    from flint.rows_screen import RowsScreen

    now = dt.datetime.now().astimezone()
    start_at = None if start is None else parse_moment(start, now, "--start")
    end_at = None if end is None else parse_moment(end, now, "--end")
    with contextlib.ExitStack() as until_done:
        catalog = until_done.enter_context(open_catalog(resolve_home(home)))
        source_engine = None if database is None else connect(database)
        if source_engine is not None:
            until_done.callback(source_engine.dispose)
        screen = until_done.enter_context(RowsScreen())
        done = bring_online(
            catalog.engine,
            catalog.features.state().definitions,
            names,
            start=start_at,
            end=end_at,
            sources=Sources(data, source_engine, naive_is_utc),
            restart=restart,
            progress=screen.progress,
        )
    if as_json:
        print_json(
            [
                {
                    "view": each.view,
                    "start": each.start,
                    "end": each.end,
                    "keys": each.keys,
                    "written": each.written,
                    "resumed_after": each.resumed_after,
                    "skipped": [
                        {"column": left.column, "rows": left.rows, "first": left.first}
                        for left in each.skipped
                    ],
                }
                for each in done
            ]
        )
    else:
        print_table(
            ("view", "after", "up to", "keys", "written"),
            [(e.view, e.start or "the first row", e.end, e.keys, e.written) for e in done],
            empty="nothing to do",
        )
    for each in done:
        if not each.keys and each.start is not None and each.start < each.end:
            note(f"{each.view}: the source has no row after {each.start}; --start reads older ones")
        if each.resumed_after:
            note(f"{each.view}: went on after {each.resumed_after} keys of a run that was cut off")
        for left in each.skipped:
            first = f" (the first: {left.first})" if left.first else ""
            note(
                f"{each.view}: {left.rows} rows of the source have no {left.column} and were left "
                f"out{first}"
            )


def get(
    features: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE|VIEW:FIELD...",
            help="A feature service, or fields of views.",
        ),
    ],
    key: Annotated[
        list[str],
        typer.Option(
            "--key",
            "-k",
            metavar="NAME=VALUE",
            help="A join key, e.g. user_id=user-001; or a value that a device recorded, e.g. "
            "dwell_s=3.5. One name several times asks for several rows.",
        ),
    ],
    through: Annotated[
        str,
        typer.Option(
            metavar="STAGE",
            help="Transform up to this stage: cloud (what a device is sent), device_ingest, "
            "device_read (all: what a model takes) or none.",
        ),
    ] = "device_read",
    at: Annotated[
        str | None,
        typer.Option(
            metavar="MOMENT", help="As of when ages are judged. Default: now.", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the newest values of features, as a model that is served in the cloud would.

    Status: PRESENT, NULL (there is a row, without this value), NOT_FOUND (no row of this key) or
    OUTSIDE_MAX_AGE (its row is older than the view's ttl, and counts as missing).

    Example: flint catalog get ads_ctr_v1 --key user_id=user-001 --key ad_id=ad-003
    """
    import contextlib

    from flint.catalog_session import open_catalog
    from flint.cli.audit_command import parse_moment
    from flint.online_rows_view import describe_rows, given_columns, row_lines

    if through not in {"cloud", "device_ingest", "device_read", "none"}:
        raise typer.BadParameter(
            f"{through!r} is no stage; stages are cloud, device_ingest, device_read and none",
            param_hint="--through",
        )
    services = [name for name in features if ":" not in name]
    if services and len(features) > 1:
        raise typer.BadParameter(
            "give one feature service, or any number of VIEW:FIELD", param_hint="features"
        )
    now = dt.datetime.now().astimezone()
    moment = None if at is None else parse_moment(at, now, "--at")
    stage = None if through == "none" else cast(Literal["cloud", "device_read"], through)
    with open_catalog(resolve_home(home)) as catalog:
        columns = given_columns(catalog.features.state().definitions, key)
        with contextlib.closing(catalog.online_features()) as reading:
            found = reading.get_online_features(
                services[0] if services else features, columns, through=stage, at=moment
            )
    if as_json:
        print_json(describe_rows(found))
        return
    print_table(
        (*found.entities, "feature", "value", "status", "true since"),
        list(row_lines(found)),
        empty="no features",
    )


def online(
    drop_former: Annotated[
        bool,
        typer.Option(
            "--drop-former",
            help="Delete values of views that have been deleted, or whose keys, source or fields "
            "have changed. Devices of jobs that run under the former definition lose them.",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List which views have online values, how many, and up to when.

    Example: flint catalog online
    """
    from feature_catalog.online import value_sets
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        definitions = catalog.features.state().definitions
        if drop_former:
            dropped = value_sets.drop_former(catalog.engine, definitions)
            for each in dropped:
                note(f"{each.view} ({each.standing}): {each.keys} keys deleted")
            if not dropped:
                note("there are no values of former definitions")
        found = value_sets.list_value_sets(catalog.engine, definitions)
    if as_json:
        print_json(
            [
                {
                    "view": each.view,
                    "definition": str(each.standing),
                    "keys": each.keys,
                    "materialized_until": each.materialized_until,
                    "is_cut_off": each.is_cut_off,
                }
                for each in found
            ]
        )
        return
    print_table(
        ("view", "definition", "keys", "materialised up to", ""),
        [
            (e.view, e.standing, e.keys, e.materialized_until, "not done" if e.is_cut_off else "")
            for e in found
        ],
        empty="no feature view with a source in the cloud is defined",
    )
