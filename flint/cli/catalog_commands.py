"""``flint catalog``: feature definitions, from files into the catalog, and what became of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli import (
    catalog_asset_commands,
    catalog_device_commands,
    catalog_historical_command,
    catalog_history_commands,
    catalog_locality_command,
    catalog_online_commands,
    vocab_commands,
)
from flint.cli.catalog_asset_commands import note_missing
from flint.cli.catalog_history_commands import NameArgument
from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_catalog.definitions.assets import Asset
    from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
    from feature_catalog.feature_plan import Plan
    from flint.catalog_session import CatalogSession

app = typer.Typer(
    help="Feature definitions: plan, apply, list, show, history, diff, lineage; files of assets: "
    "asset, vocab; training data: historical; newest values: materialize, get, online; devices: "
    "explain, locality. docs/feature-catalog.md begins from two Parquet files.",
    no_args_is_help=True,
)

catalog_history_commands.register(app)
app.add_typer(catalog_asset_commands.app, name="asset")
app.add_typer(vocab_commands.app, name="vocab")
catalog_historical_command.register(app)
catalog_online_commands.register(app)
catalog_device_commands.register(app)
catalog_locality_command.register(app)

SOMETHING_TO_DO = 3

PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="Python or YAML files of definitions, or folders of them. Python files are run.",
        show_default=False,
    ),
]
PruneOption = Annotated[
    bool,
    typer.Option("--prune", help="Delete what is in the catalog and in none of these files."),
]
DeleteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--delete",
        metavar="KIND/NAME",
        help="Delete this definition, e.g. feature_view/clicks. Repeatable.",
        show_default=False,
    ),
]


@app.command("plan")
def plan(
    paths: PathsArgument = None,
    prune: PruneOption = False,
    delete: DeleteOption = None,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit with 3 if there is something to do, 0 if not."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what apply would do: + create, ~ update, - delete, * contract that changes.

    Nothing is changed. The JSON says registry_sha256, the state that the plan was made against;
    apply --expect takes it.

    Example: flint catalog plan examples/features/features.py
    """
    from flint.catalog_session import open_catalog
    from flint.catalog_view import describe_plan, plan_lines

    given, deletions = _given(paths, delete, prune=prune)
    with open_catalog(resolve_home(home)) as catalog:
        found = catalog.features.plan(given, prune=prune, delete=deletions)
        missing = _missing_assets(catalog, found.wanted)
        emptied = _emptied_views(catalog, found)
    note_missing(missing)
    _note_emptied(emptied, "will have")
    if as_json:
        print_json(describe_plan(found, emptied=emptied))
    else:
        for line in plan_lines(found):
            print(line)
    if exit_code and not found.is_empty:
        raise typer.Exit(SOMETHING_TO_DO)


@app.command("apply")
def apply(
    paths: PathsArgument = None,
    prune: PruneOption = False,
    delete: DeleteOption = None,
    expect: Annotated[
        str | None,
        typer.Option(
            metavar="SHA256",
            help="registry_sha256 of the plan that was looked at: if anything has changed since, "
            "nothing is applied.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the catalog be as the files say: all of it, or on any mistake nothing.

    Definitions that changed get a new version; what is so already stays. What is in no file stays
    too, unless --prune or --delete say otherwise; a deletion is refused while something needs it.

    Example: flint catalog apply examples/features/features.py
    """
    from flint.catalog_session import open_catalog
    from flint.catalog_view import describe_plan, plan_lines

    given, deletions = _given(paths, delete, prune=prune)
    with open_catalog(resolve_home(home)) as catalog:
        done = catalog.features.apply(
            given, prune=prune, delete=deletions, expected_sha256=_digest(expect)
        )
        missing = _missing_assets(catalog, done.wanted)
        emptied = _emptied_views(catalog, done)
    note_missing(missing)
    _note_emptied(emptied, "has")
    if as_json:
        print_json(describe_plan(done, applied=True, emptied=emptied))
        return
    for line in plan_lines(done, applied=True):
        print(line)


@app.command("list")
def list_definitions(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="Only these: entity, asset, feature_view or feature_service.", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is defined.

    Example: flint catalog list feature_service
    """
    from feature_catalog.definitions.plain import DEFINITIONS, to_plain
    from flint.catalog_session import open_catalog
    from flint.catalog_view import in_short

    if kind is not None and kind not in DEFINITIONS:
        raise typer.BadParameter(f"{kind!r} is no kind; kinds are {', '.join(DEFINITIONS)}")
    with open_catalog(resolve_home(home)) as catalog:
        state = catalog.features.state()
    order = list(DEFINITIONS)
    defined = state.definitions.definitions
    keys = sorted(
        (key for key in defined if kind in (None, key.kind)),
        key=lambda key: (order.index(key.kind), key.name),
    )
    if as_json:
        print_json(
            [
                {
                    "kind": key.kind,
                    "name": key.name,
                    "version": state.versions[key],
                    "sha256": state.digests[key],
                    "contract_sha256": state.contracts.get(key.name)
                    if key.kind == "feature_service"
                    else None,
                    "definition": to_plain(defined[key]),
                }
                for key in keys
            ]
        )
        return
    print_table(
        ("kind", "name", "version", "what", "owner"),
        [
            (key.kind, key.name, state.versions[key], in_short(defined[key]), defined[key].owner)
            for key in keys
        ],
        empty="nothing is defined yet; `flint catalog apply FILE` applies definitions",
    )


@app.command("show")
def show(
    name: NameArgument,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Only the definition, as a file would hold it.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a definition; of a feature service also its contract: one digest over all members.

    Example: flint catalog show ads_ctr_v1
    """
    from flint.catalog_session import open_catalog
    from flint.catalog_view import as_yaml as to_yaml
    from flint.catalog_view import describe_version

    with open_catalog(resolve_home(home)) as catalog:
        found = catalog.features.version(name)
        contracts = (
            catalog.features.contracts(found.key.name)
            if found.key.kind == "feature_service" and found.definition is not None
            else ()
        )
    # Of an older version: what it came to last.
    of_version = [each for each in contracts if each.service_version == found.version]
    contract = of_version[-1] if of_version else None
    if as_json:
        print_json(describe_version(found, contract))
        return
    if found.definition is None:
        print(
            f"{found.key} was deleted with version {found.version}; "
            f"`flint catalog history {found.key.kind}/{found.key.name}` shows what it was"
        )
        return
    if as_yaml:
        print(to_yaml(found.definition))
        return
    fields: dict[str, object] = {
        "definition": f"{found.key}, version {found.version}",
        "applied": found.applied_at,
        "by": found.actor,
        "sha256": found.sha256,
    }
    if contract is not None:
        fields["contract"] = contract.contract.sha256
    print_fields(fields)
    print(to_yaml(found.definition))


def _missing_assets(catalog: "CatalogSession", definitions: "DefinitionSet") -> "tuple[Asset, ...]":
    from feature_catalog.asset_files import missing_assets
    from feature_catalog.definitions.services import FeatureService

    return missing_assets(definitions, catalog.blobs, definitions.names(FeatureService.kind))


def _emptied_views(catalog: "CatalogSession", plan: "Plan") -> list[str]:
    """Of the views that files or changes are about, those without online values from now on."""
    from feature_catalog.definitions.views import FeatureView
    from feature_catalog.online.value_sets import emptied_views

    changed = {change.key.name for change in plan.changes if change.key.kind == "entity"}
    left = {key.name for key in plan.left if key.kind == FeatureView.kind}
    views = ((name, plan.wanted.view(name)) for name in emptied_views(catalog.engine, plan.wanted))
    return [
        name
        for name, view in views
        if view is not None and (name not in left or changed & set(view.entities))
    ]


def _note_emptied(views: "Iterable[str]", verb: str) -> None:
    for name in views:
        note(
            f"{name} {verb} no online values until `flint catalog materialize {name}`: its keys, "
            "source or fields are not those it was materialised with"
        )


def _given(
    paths: list[Path] | None, delete: list[str] | None, *, prune: bool
) -> "tuple[DefinitionSet, list[DefinitionKey]]":
    from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
    from feature_catalog.definitions.files import load_definitions
    from feature_catalog.definitions.plain import DEFINITIONS

    deletions = []
    for reference in delete or []:
        kind, _, name = reference.partition("/")
        if kind not in DEFINITIONS or not name:
            raise typer.BadParameter(
                f"--delete {reference!r} is not KIND/NAME; kinds are {', '.join(DEFINITIONS)}"
            )
        deletions.append(DefinitionKey(kind, name))
    if not paths and (prune or not deletions):
        raise typer.BadParameter("give the files of definitions, or a folder of them")
    return (load_definitions(paths) if paths else DefinitionSet({})), deletions


def _digest(expect: str | None) -> str | None:
    if expect is not None and (len(expect) != 64 or set(expect) - set("0123456789abcdef")):
        raise typer.BadParameter(
            "--expect takes registry_sha256 as `flint catalog plan --json` says it: 64 "
            "hexadecimal digits"
        )
    return expect
