"""``flint backup`` and ``flint restore``."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    folder: Annotated[Path, typer.Argument(help="Where backups are kept.")],
    keep: Annotated[
        int | None, typer.Option(min=1, help="Then delete all but so many; blobs stay.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Back up database, keys and blobs; the server may run.

    Each backup is a folder of its own in FOLDER; blobs are shared, so later backups copy new ones
    only. A backup holds the server's keys: keep it like passwords.

    Example: flint backup /backups/flint --keep 14
    """
    from dataclasses import asdict

    from flint.catalog_session import open_catalog
    from server.operations.backup import back_up, remove_old

    directory = resolve_home(home)
    with open_catalog(directory) as catalog:
        made = back_up(directory, catalog.engine, catalog.blobs, folder)
    removed = remove_old(folder, keep) if keep is not None else ()
    if as_json:
        print_json(asdict(made) | {"removed": [str(path) for path in removed]})
    else:
        print(f"{made.path}: database, keys, {made.blobs:,} blobs ({made.new_bytes:,} new bytes)")
        for path in removed:
            print(f"removed {path}")


def restore(
    folder: Annotated[Path, typer.Argument(help="A backup, or the folder of all: the newest.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back into an empty data directory and database.

    The database is $FLINT_DATABASE_URL, else the embedded one of the data directory; blobs go to
    $FLINT_BLOB_URL, else to a folder in it. Then `flint up` goes on where the backup was made.

    Example: flint restore /backups/flint --home /var/lib/flint
    """
    from dataclasses import asdict

    from flint.catalog_session import open_empty
    from server.operations.backup import find_backup
    from server.operations.backup import restore as bring_back

    found = find_backup(folder)
    directory = resolve_home(home)
    with open_empty(directory) as catalog:
        bring_back(found, directory, catalog.engine, catalog.blobs)
    if as_json:
        print_json(asdict(found) | {"home": str(directory)})
    else:
        print(f"{found.path} is in {directory}; go on with `flint up`")
