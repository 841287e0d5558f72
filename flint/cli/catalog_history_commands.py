"""``flint catalog history``, ``diff`` and ``lineage``: what became of definitions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.feature_registry import DefinitionVersion

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION]",
        help="A definition, by name, or KIND/NAME where several kinds have one of that name. "
        "Without a version: the newest.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("history")(history)
    app.command("diff")(diff)
    app.command("lineage")(lineage)


def history(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Versions of this definition. Without: all applies.", show_default=False
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List versions of a definition, or all applies: when, by whom, what changed.

    Example: flint catalog history ads_ctr_v1
    """
    from flint.catalog_session import open_catalog
    from flint.catalog_view import apply_in_words, describe_apply, describe_version

    with open_catalog(resolve_home(home)) as catalog:
        if name is None:
            applies = catalog.features.applies()
            if as_json:
                print_json([describe_apply(each) for each in applies])
                return
            print_table(
                ("apply", "when", "by", "what"),
                [(a.apply_id, a.applied_at, a.actor, apply_in_words(a)) for a in applies],
                empty="nothing has been applied yet; `flint catalog apply FILE` does",
            )
            return
        key = catalog.features.find(name)
        versions = catalog.features.history(key)
        contracts = catalog.features.contracts(key.name) if key.kind == "feature_service" else ()
    if as_json:
        print_json(
            {
                "versions": [describe_version(each) for each in versions],
                "contracts": [
                    {
                        "sha256": each.contract.sha256,
                        "service_version": each.service_version,
                        "apply_id": each.apply_id,
                        "applied_at": each.applied_at,
                    }
                    for each in contracts
                ],
            }
        )
        return
    print_table(
        ("version", "apply", "when", "by", "what"),
        [(v.version, v.apply_id, v.applied_at, v.actor, _what(v, versions)) for v in versions],
        empty=f"{key} has no versions",
    )
    for each in contracts:
        print(f"contract since apply {each.apply_id}: {each.contract.sha256}")


def diff(
    old: NameArgument,
    new: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME@VERSION]",
            help="What to compare with. Without: the first argument's version with the newest, or, "
            "if it says none, the newest with the one before.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions.

    Example: flint catalog diff clicks@1 clicks@3
    """
    from feature_catalog.feature_plan import UnknownDefinition, differences
    from flint.catalog_session import open_catalog
    from flint.catalog_view import value_lines

    with open_catalog(resolve_home(home)) as catalog:
        first = catalog.features.version(old)
        if new is not None:
            second = catalog.features.version(new)
        else:
            versions = catalog.features.history(first.key)
            second = versions[-1]
            if "@" not in old:
                first = versions[max(0, len(versions) - 2)]
    for each in (first, second):
        if each.definition is None:
            raise UnknownDefinition(
                f"{each.key}@{each.version} is its deletion; compare versions that say something"
            )
    if first.definition is None or second.definition is None or first.key.kind != second.key.kind:
        raise UnknownDefinition(
            f"{first.key} and {second.key} are of different kinds; compare two of one kind"
        )
    values = differences(first.definition, second.definition)
    if as_json:
        print_json(
            {
                "old": f"{first.key.kind}/{first.key.name}@{first.version}",
                "new": f"{second.key.kind}/{second.key.name}@{second.version}",
                "values": [{"path": v.path, "old": v.old, "new": v.new} for v in values],
            }
        )
        return
    print(f"{first.key}@{first.version} -> {second.key.name}@{second.version}")
    for line in value_lines(values):
        print(f"  {line}")
    if not values:
        print("  nothing differs")


def lineage(
    name: Annotated[str, typer.Argument(help="A definition, by NAME or KIND/NAME.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a definition is made of, and what is made with it, down to model versions.

    Example: flint catalog lineage ad_categories
    """
    from flint.catalog_session import open_catalog
    from flint.catalog_view import describe_lineage, lineage_lines, lineage_of

    with open_catalog(resolve_home(home)) as catalog:
        found = lineage_of(catalog.features, catalog.features.find(name))
    if as_json:
        print_json(describe_lineage(found))
        return
    for line in lineage_lines(found):
        print(line)


def _what(version: "DefinitionVersion", versions: "Sequence[DefinitionVersion]") -> str:
    """What a version changed, briefly."""
    from feature_catalog.feature_plan import differences
    from flint.catalog_view import value_lines

    before = versions[version.version - 2].definition if version.version > 1 else None
    if version.definition is None:
        return "deleted"
    if before is None:
        return "created"
    lines = list(value_lines(differences(before, version.definition)))
    more = len(lines) - 3
    return "; ".join(lines[:3]) + (f" and {more} more" if more > 0 else "")
