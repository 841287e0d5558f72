"""``flint catalog historical``: training data, joined as of each row's moment."""

from pathlib import Path
from typing import Annotated

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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("historical")(historical)


def historical(
    service: Annotated[str, typer.Argument(help="Feature service, e.g. ads_ctr_v1.")],
    rows: Annotated[
        Path,
        typer.Option(
            help="Parquet or CSV of entity rows: join keys, the moment, what the device recorded, "
            "labels and whatever else is to be kept."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Parquet file to write; one there is replaced.")],
    data: SourceFolderOption = Path(),
    assets: Annotated[
        Path | None,
        typer.Option(
            help="Folder of vocabularies and embeddings, under any names. Default: the blob store.",
            show_default=False,
        ),
    ] = None,
    event_ts: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the rows' moments.")
    ] = "event_ts",
    untransformed: Annotated[
        bool, typer.Option("--untransformed", help="Values as their sources hold them.")
    ] = False,
    naive_is_utc: NaiveIsUtcOption = False,
    database: SourceDatabaseOption = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What joins over files may hold, e.g. 4GB; the rest goes to temporary files. "
            "Default: four fifths of the machine's.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join a service's features as they were known at each row's moment: training data.

    A value is that of the newest row of its key that was true (event_ts) and written (created_ts)
    by then, and not older than the view's ttl; nothing of the future gets in. Then all of the
    feature's transforms are applied. Rows stay as many and in their order.

    Example: flint catalog historical ads_ctr_v1 --rows clicks.parquet --data feature-data
    --assets feature-data --output training.parquet
    """
    import contextlib

    from feature_catalog.database import connect
    from feature_catalog.definitions.errors import within
    from feature_catalog.definitions.quantities import parse_bytes
    from feature_catalog.offline import asset_folder
    from feature_catalog.offline.historical_files import write_historical_features
    from flint.catalog_session import open_catalog
    from flint.steps_screen import StepsScreen

    with within("--memory"):
        memory_bytes = None if memory is None else parse_bytes(memory, "")
    with contextlib.ExitStack() as until_done:
        catalog = until_done.enter_context(open_catalog(resolve_home(home)))
        source_engine = None if database is None else connect(database)
        if source_engine is not None:
            until_done.callback(source_engine.dispose)
        offline = catalog.offline_features(
            data,
            None if assets is None else asset_folder(assets),
            source_engine=source_engine,
            memory_bytes=memory_bytes,
        )
        screen = until_done.enter_context(StepsScreen("views joined"))
        written = write_historical_features(
            offline,
            rows,
            output,
            service=service,
            event_ts=event_ts,
            untransformed=untransformed,
            naive_is_utc=naive_is_utc,
            progress=screen.step,
        )
    if as_json:
        print_json(
            {
                "output": str(written.path),
                "rows": written.rows,
                "columns": list(written.columns),
                "feature_service": service,
                "feature_contract_sha256": written.contract_sha256,
                "transformed": not untransformed,
                "features": [
                    {
                        "name": each.name,
                        "ref": each.ref,
                        "present": each.present,
                        "null": each.null,
                        "not_found": each.not_found,
                        "too_old": each.too_old,
                    }
                    for each in written.features
                ],
            }
        )
        return
    print_table(
        ("feature", "of", "present", "null", "not found", "too old"),
        [
            (each.name, each.ref, each.present, each.null, each.not_found, each.too_old)
            for each in written.features
        ],
        empty="the service has no features",
    )
    note(f"{written.rows} rows with {len(written.features)} features are in {written.path}")
