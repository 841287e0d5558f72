"""``flint catalog asset``: the files of vocabularies and embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feature_catalog.definitions.assets import Asset

app = typer.Typer(
    help="Files of vocabularies and embeddings: add them for devices to fetch, list them.",
    no_args_is_help=True,
)


@app.command("add")
def add(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Vocabulary or embedding files.", show_default=False
        ),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put files of assets where devices and the cloud's transforms find them.

    A file is known by its SHA-256, which an applied asset must name; its form is checked. All files
    are added, or on any mistake none. Adding one again changes nothing.

    Example: flint catalog asset add feature-data/ad_categories.txt
    """
    from feature_catalog.asset_files import add_asset_files
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        added = add_asset_files(catalog.engine, catalog.blobs, files)
    if as_json:
        print_json(
            [
                {
                    "file": str(each.path),
                    "assets": list(each.names),
                    "sha256": each.sha256.hex(),
                    "size_bytes": each.size_bytes,
                    "was_there": each.was_there,
                }
                for each in added
            ]
        )
        return
    for each in added:
        done = "was there already" if each.was_there else f"added, {each.size_bytes:,} bytes"
        print(f"{each.path}: {', '.join(each.names)}, {done}")


@app.command("list")
def list_assets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List assets, and whether their files are there.

    Example: flint catalog asset list
    """
    from feature_catalog.definitions.assets import Asset
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        definitions = catalog.features.state().definitions
        named = (definitions.asset(name) for name in definitions.names(Asset.kind))
        found = [
            (asset, catalog.blobs.exists(bytes.fromhex(asset.sha256)))
            for asset in named
            if asset is not None
        ]
    if as_json:
        print_json(
            [
                {
                    "name": asset.name,
                    "type": str(asset.type),
                    "version": asset.version,
                    "sha256": asset.sha256,
                    "size_bytes": asset.size_bytes,
                    "fallback": asset.fallback,
                    "is_there": is_there,
                }
                for asset, is_there in found
            ]
        )
        return
    print_table(
        ("asset", "type", "version", "bytes", "fallback", "sha256", "file"),
        [
            (
                asset.name,
                asset.type,
                asset.version,
                f"{asset.size_bytes:,}",
                asset.fallback,
                asset.sha256[:16],
                "there" if is_there else "missing",
            )
            for asset, is_there in found
        ],
        empty="no asset is defined yet; `flint catalog apply FILE` applies definitions",
    )


def note_missing(assets: "Iterable[Asset]") -> None:
    """Warn of assets whose files devices could not fetch."""
    from feature_catalog.asset_files import said_missing

    for asset in assets:
        note(said_missing(asset))
