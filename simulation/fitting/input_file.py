"""Writing an input of an environment: a file that appears whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from device_runtime.errors import FlintError

_PARQUET, _CSV = {".parquet", ".pq"}, {".csv"}


class UnwritableInputFile(FlintError):
    """An input of an environment cannot be written where it should go."""

    code = "FLN-2703"


def check_writable(path: Path) -> None:
    """Check that an input can go to ``path``, before any work is done for it.

    Raises:
        UnwritableInputFile: If its ending is no format, or its folder is missing or closed to us.
    """
    folder = path.absolute().parent
    if path.suffix.lower() not in _PARQUET | _CSV:
        raise UnwritableInputFile(
            f"{path} ends in {path.suffix or 'nothing'!r}; give a name that ends in .parquet or "
            ".csv"
        )
    if path.is_dir():
        raise UnwritableInputFile(f"{path} is a directory; give the name of a file")
    if not folder.is_dir():
        raise UnwritableInputFile(f"there is no folder {folder}; make it, or give another name")
    if not os.access(folder, os.W_OK):
        raise UnwritableInputFile(f"{folder} cannot be written to; give another name")


def write_input(path: Path, table: pa.Table, made_with: Mapping[str, object]) -> None:
    """Write a table as Parquet or CSV, by the path's ending; a file that was there is replaced.

    Args:
        made_with: How it was made, kept in a Parquet file's metadata.

    Raises:
        UnwritableInputFile: If it cannot be written.
    """
    check_writable(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.suffix.lower() in _CSV:
            pyarrow.csv.write_csv(table, draft)
        else:
            said = {key: str(value) for key, value in made_with.items()}
            pq.write_table(table.replace_schema_metadata(said), draft, compression="zstd")
        draft.replace(path)
    except OSError as error:
        raise UnwritableInputFile(
            f"{path} cannot be written ({error.strerror}); give another name"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
