"""``flint catalog vocab``: vocabularies from data, and whether hashing would do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flint.cli import vocab_advise_command
from flint.cli.options import JsonOption
from flint.cli.output import note, print_fields, print_json

if TYPE_CHECKING:
    from feature_catalog.definitions.assets import Asset
    from feature_catalog.vocabularies.selection import BuiltVocabulary

app = typer.Typer(
    help="Vocabularies from data: build, advise. docs/vocabularies.md explains both.",
    no_args_is_help=True,
)

vocab_advise_command.register(app)

DataArgument = Annotated[
    Path, typer.Argument(help="Parquet or CSV file, or a folder of Parquet files.")
]


@app.command("build")
def build(
    data: DataArgument,
    column: Annotated[str, typer.Option(help="Text, whole numbers, or lists of them.")],
    output: Annotated[Path, typer.Option(help="File to write, a token a line.")],
    min_count: Annotated[
        int, typer.Option(help="Leave out tokens that occur less often.", min=1)
    ] = 1,
    min_clients: Annotated[
        int,
        typer.Option(help="Leave out tokens of fewer clients; needs --client.", min=1),
    ] = 1,
    client: Annotated[
        str | None, typer.Option(help="Column that says whose row it is.", show_default=False)
    ] = None,
    max_entries: Annotated[
        int | None, typer.Option(help="At most so many tokens.", min=1, show_default=False)
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Of the file at most, e.g. 1.28MB.", show_default=False),
    ] = None,
    unknown: Annotated[
        int | None,
        typer.Option(help="Id of tokens that are not in it. Default: one past the last."),
    ] = None,
    hash_buckets: Annotated[
        int | None,
        typer.Option(help="Give unknown tokens one of so many ids instead.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the asset. Default: the file's name.", show_default=False)
    ] = None,
    version: Annotated[int, typer.Option(help="Of the asset; goes up when it changes.")] = 1,
    locale: Annotated[str, typer.Option(help="Language it is for; none: for all.")] = "",
    owner: Annotated[str, typer.Option(help="Of the asset.")] = "",
    fallback: Annotated[
        str | None,
        typer.Option(help="Asset that devices without room take instead.", show_default=False),
    ] = None,
    definition: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the asset's YAML here too.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build a vocabulary: the column's tokens, most frequent first, within limits.

    The same data give the same file, and a smaller vocabulary is the beginning of a larger one.
    Prints the asset's definition and a transform that reads it, to paste into a file of
    definitions. Files appear whole or not at all.

    Example: flint catalog vocab build clicks.parquet --column ad_id --output ads.txt
    --min-count 5 --max-bytes 1.28MB
    """
    from feature_catalog.definitions.quantities import parse_bytes
    from feature_catalog.vocabularies.counts import count_tokens
    from feature_catalog.vocabularies.definition import (
        as_yaml,
        asset_of,
        transform_as_yaml,
        transform_of,
    )
    from feature_catalog.vocabularies.files import check_place, write_whole
    from feature_catalog.vocabularies.selection import VocabularyLimits, select_vocabulary
    from feature_catalog.vocabularies.token_columns import open_tables
    from flint.rows_screen import RowsScreen

    limits = VocabularyLimits(
        min_count,
        min_clients,
        max_entries,
        None if max_bytes is None else parse_bytes(max_bytes, "--max-bytes"),
    )
    for path in (output, definition):
        if path is not None:
            check_place(path)
    with RowsScreen() as screen:
        counts = count_tokens(open_tables(data), column, client=client, progress=screen.progress)
    built = select_vocabulary(counts, limits)
    asset = asset_of(
        built,
        name or _name_of(output),
        version=version,
        locale=locale,
        owner=owner,
        fallback=fallback,
    )
    transform = transform_of(asset, unknown=unknown, hash_buckets=hash_buckets)
    write_whole(output, built.vocabulary.to_bytes())
    if definition is not None:
        write_whole(definition, as_yaml(asset).encode())
    described = _described(built, asset, output)
    if as_json:
        from feature_catalog.definitions.plain import to_plain

        print_json({**described, "asset": to_plain(asset), "transform": to_plain(transform)})
        return
    print_fields(described)
    print()
    print(as_yaml(asset).rstrip())
    print()
    print("# in a feature of a service:")
    print(transform_as_yaml(transform).rstrip())
    if built.unstorable:
        note(f"{built.unstorable} tokens are empty or hold a line feed, and stay unknown")


def _described(built: "BuiltVocabulary", asset: "Asset", output: Path) -> dict[str, Any]:
    from feature_catalog.on_device.sizes import memory_bytes

    return {
        "file": str(output),
        "entries": asset.entries,
        "bytes": asset.size_bytes,
        "memory_bytes": memory_bytes(asset),
        "sha256": asset.sha256,
        "coverage": round(built.coverage, 6),
        "tokens": built.total,
        "distinct": built.distinct,
        "rare": built.rare,
        "cut": built.cut,
        "unstorable": built.unstorable,
    }


def _name_of(output: Path) -> str:
    """A name of an asset from a file's."""
    letters = [each if each.isalnum() and each.isascii() else "_" for each in output.stem.lower()]
    name = "".join(letters).strip("_")[:63]
    return name if name[:1].isalpha() else f"vocabulary_{name}"[:63].rstrip("_")
