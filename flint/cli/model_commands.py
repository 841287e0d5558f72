"""``flint models``: versions in the model store."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

app = typer.Typer(
    help="Model versions: list, show, lineage, import, export, promote.", no_args_is_help=True
)

VersionArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION]",
        help="A version: NAME@3, NAME@latest, NAME@best or NAME@production. NAME alone: latest.",
    ),
]


@app.command("list")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model's versions.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List stored versions, oldest first.

    Example: flint models list ads-ctr
    """
    from flint.catalog_session import open_catalog
    from flint.version_view import describe

    with open_catalog(resolve_home(home)) as catalog:
        versions = catalog.models.list_versions(name)
    if as_json:
        print_json([describe(version) for version in versions])
        return
    print_table(
        ("version", "model", "job", "job's version", "metric", "updates", "stored"),
        [
            (
                f"{version.name}@{version.number}",
                version.model,
                version.job_id,
                version.job_version,
                version.metrics.get("metric"),
                version.strategy_state.get("totals", {}).get("updates"),
                version.created_at,
            )
            for version in versions
        ],
        empty="no versions yet; train one with `flint submit`, or `flint models import`",
    )


@app.command("show")
def show(version: VersionArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show one version: parent, job, metrics, digest.

    Example: flint models show ads-ctr@best
    """
    from flint.catalog_session import open_catalog
    from flint.version_view import describe

    with open_catalog(resolve_home(home)) as catalog:
        found = describe(catalog.models.resolve(version))
    if as_json:
        print_json(found)
    else:
        print_fields(found)


@app.command("lineage")
def lineage(version: VersionArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show what a version was made from: job, code, features, data sets, earlier versions.

    What the catalog does not know is listed last. The JSON is a graph: nodes, edges, missing.

    Example: flint models lineage ads-ctr@best
    """
    from feature_catalog.model_lineage import lineage_of_version
    from flint.catalog_session import open_catalog
    from flint.lineage_view import describe_graph, graph_lines

    with open_catalog(resolve_home(home)) as catalog:
        graph = lineage_of_version(catalog.engine, catalog.models.resolve(version).id)
    if as_json:
        print_json(describe_graph(graph))
        return
    for line in graph_lines(graph):
        print(line)


@app.command("import")
def import_model(
    file: Annotated[
        Path, typer.Argument(help="A torch state dict (.pt) or arrays by parameter name (.npz).")
    ],
    name: Annotated[str, typer.Option(help="Name under which it is stored.")],
    model: Annotated[str, typer.Option(help="Registered model it is of, e.g. sparse_mlp.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a centrally trained model.

    FILE is a torch state dict (.pt) or holds arrays by parameter name (.npz). A job starts from it
    with initial_version.

    Example: flint models import ads.pt --name ads_central --model sparse_mlp
    """
    from flint.catalog_session import open_catalog
    from flint.version_view import describe
    from modeling.zoo import get_model

    with open_catalog(resolve_home(home)) as catalog:
        version = catalog.models.import_model(name, get_model(model), file)
    if as_json:
        print_json(describe(version))
    else:
        reference = f"{version.name}@{version.number}"
        print(f"stored as {reference}; start a job from it with initial_version: {reference}")


@app.command("export")
def export_model(
    version: VersionArgument,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files to write: .tflite, .pt or .npz.")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version as one or more files.

    A FILE ends with .tflite (to run), .pt (torch state dict) or .npz (arrays by parameter name).

    Example: flint models export ads-ctr@best ads.tflite
    """
    from feature_catalog.model_files import format_to_write
    from flint.catalog_session import open_catalog
    from flint.version_view import reference

    for file in files:  # all are looked at before the first is written
        format_to_write(file)

    with open_catalog(resolve_home(home)) as catalog:
        # Resolved once: @latest may move while files are written.
        exported = reference(catalog.models.resolve(version))
        for file in files:
            catalog.models.export_model(exported, file)
    if as_json:
        print_json({"version": exported, "paths": [str(file.absolute()) for file in files]})
    else:
        print(f"{exported} is in {', '.join(map(str, files))}")


@app.command("promote")
def promote(version: VersionArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Make a version its model's production version.

    It is then NAME@production.

    Example: flint models promote ads-ctr@best
    """
    from flint.catalog_session import open_catalog
    from flint.version_view import describe

    with open_catalog(resolve_home(home)) as catalog:
        found = catalog.models.resolve(version)
        catalog.models.promote(found.name, found.number)
    if as_json:
        print_json(describe(found))
    else:
        print(f"{found.name}@production is {found.name}@{found.number} now")


@app.command("build")
def build(
    model: Annotated[str, typer.Argument(help="Registered model, e.g. sparse_mlp.")],
    batch_size: Annotated[int, typer.Option(help="Records in one training step.", min=1)] = 20,
    optimizer: Annotated[str, typer.Option(help="Optimiser on the device.")] = "sgd",
    proximal: Annotated[bool, typer.Option("--proximal", help="With FedProx's term.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a model's artefact for devices.

    `flint submit` does so where one is missing.

    Example: flint models build sparse_mlp --batch-size 20
    """
    from flint.deployment import Deployment
    from flint.submission import ensure_artifact
    from modeling.zoo import get_model

    row = ensure_artifact(
        Deployment.attach(resolve_home(home)),
        get_model(model),
        batch_size=batch_size,
        optimizer=optimizer,
        proximal=proximal,
        note=note,
    )
    if as_json:
        print_json({"model": model, "artifact_sha256": row.artifact_sha256.hex()})
    else:
        print(f"artefact of {model} is stored, SHA-256 {row.artifact_sha256.hex()}")
