"""``flint dataset``: the user's own data, featurised and split by client."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import (
    HomeOption,
    JsonOption,
    NaiveIsUtcOption,
    SourceDatabaseOption,
    SourceFolderOption,
    resolve_home,
)
from flint.cli.output import print_fields, print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.datasets import DatasetRow
    from feature_catalog.feature_datasets import FeatureDataset
    from feature_catalog.featurize import FieldRoles

app = typer.Typer(help="Data sets: add, list, show.", no_args_is_help=True)

ClientFieldOption = Annotated[str, typer.Option(help="Column that says whose record it is.")]
LabelFieldOption = Annotated[str, typer.Option(help="Column with the label, 0 or 1.")]
TextFieldOption = Annotated[
    str | None, typer.Option(help="Column with free text, hashed as words and pairs.")
]
ExcludeFieldOption = Annotated[
    list[str] | None, typer.Option(help="Column not to learn from; may be repeated.")
]


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV file, one record a row.")],
    client_field: ClientFieldOption,
    label_field: LabelFieldOption,
    text_field: TextFieldOption = None,
    exclude_field: ExcludeFieldOption = None,
    model: Annotated[str, typer.Option(help="Model the records are made for.")] = "sparse_mlp",
    name: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
    seed: Annotated[int, typer.Option(help="Of the feature hash.")] = 0,
    feature_service: Annotated[
        str | None, typer.Option(metavar="NAME", help="Join each row with these features.")
    ] = None,
    event_ts: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="With --feature-service: moment to join a row as of."),
    ] = "event_ts",
    data: SourceFolderOption = Path(),
    assets: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="With --feature-service: vocabularies; else the store."
        ),
    ] = None,
    naive_is_utc: NaiveIsUtcOption = False,
    database: SourceDatabaseOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a Parquet or CSV file as a data set.

    One record a row. About a fifth of the clients, by a hash of their id, is held out for
    evaluation; columns that are neither client, label, text nor excluded are features.

    With --feature-service rows are joined with its features as of their moments, and learnt from
    are those alone: the rows bring client, label, moment, join keys and what devices recorded.

    Example: flint dataset add clicks.parquet --client-field user --label-field clicked

    Example: flint dataset add clicks.parquet --feature-service click_features --client-field
    user_id --label-field clicked --event-ts ts --data tables
    """
    from flint.catalog_session import open_catalog
    from modeling.zoo import get_model

    if feature_service is not None:
        if text_field is not None or exclude_field:
            raise typer.BadParameter(
                "--text-field and --exclude-field are of a file's columns; with --feature-service "
                "the service says what is learnt from"
            )
        import contextlib

        from feature_catalog.database import connect
        from feature_catalog.feature_datasets import RowRoles, add_feature_dataset
        from feature_catalog.offline import asset_folder
        from flint.steps_screen import StepsScreen

        with contextlib.ExitStack() as until_done:
            catalog = until_done.enter_context(open_catalog(resolve_home(home)))
            reader = None if assets is None else asset_folder(assets)
            source_engine = None if database is None else connect(database)
            if source_engine is not None:
                until_done.callback(source_engine.dispose)
            screen = until_done.enter_context(StepsScreen("views joined"))
            joined = add_feature_dataset(
                catalog.datasets,
                catalog.blobs,
                catalog.offline_features(data, reader, source_engine=source_engine),
                file,
                feature_service,
                RowRoles(client_field, label_field, event_ts),
                get_model(model),
                name=name,
                seed=seed,
                naive_is_utc=naive_is_utc,
                progress=screen.step,
            )
        _show_joined(joined, as_json=as_json)
        return
    if naive_is_utc or assets is not None or event_ts != "event_ts" or data != Path():
        raise typer.BadParameter(
            "--event-ts, --data, --assets and --naive-is-utc say how features are joined; name "
            "them with --feature-service"
        )
    with open_catalog(resolve_home(home)) as catalog:
        row = catalog.datasets.add(
            file,
            field_roles(client_field, label_field, text_field, exclude_field),
            get_model(model),
            name=name,
            seed=seed,
        )
    if as_json:
        print_json(_describe(row))
    else:
        print_fields(_describe(row))


@app.command("list")
def list_datasets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List data sets.

    Example: flint dataset list --json
    """
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        rows = catalog.datasets.list()
    if as_json:
        print_json([_describe(row) for row in rows])
        return
    print_table(
        ("data set", "model", "clients", "held out", "records", "max", "mean", "label ratio"),
        [
            (
                f"{row.name}@{row.version}",
                row.model,
                row.clients,
                row.heldout_clients,
                row.records,
                row.max_records,
                row.mean_records,
                row.label_ratio,
            )
            for row in rows
        ],
        empty="no data sets yet; add one with `flint dataset add FILE`",
    )


@app.command("show")
def show(
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Data set.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a data set's statistics.

    What FLINT's Table 2 lists: clients, records per client, label ratio.

    Example: flint dataset show clicks
    """
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        row = _describe(catalog.datasets.get(dataset))
    if as_json:
        print_json(row)
    else:
        print_fields(row)


def field_roles(
    client_field: str,
    label_field: str,
    text_field: str | None,
    exclude_fields: list[str] | None,
) -> "FieldRoles":
    """What the options say the columns are for."""
    from feature_catalog.featurize import FieldRoles

    return FieldRoles(client_field, label_field, text_field, tuple(exclude_fields or ()))


def _show_joined(joined: "FeatureDataset", *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({**_describe(joined.row), "features": [asdict(f) for f in joined.features]})
        return
    print_fields(_describe(joined.row))
    print_table(
        ("feature", "of", "present", "null", "not found", "too old"),
        [(f.name, f.ref, f.present, f.null, f.not_found, f.too_old) for f in joined.features],
        empty="",
    )


def _describe(row: "DatasetRow") -> dict[str, object]:
    from dataclasses import asdict

    return asdict(row)
