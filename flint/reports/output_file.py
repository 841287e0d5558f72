"""Where a report goes: a file that appears whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from device_runtime.errors import FlintError


class UnwritableReport(FlintError):
    """A report cannot be written where it should go."""

    code = "FLN-1742"


def check_writable(path: Path) -> None:
    """Check that a report can go to ``path``, before any work is done for it.

    Raises:
        UnwritableReport: If it is a directory, or its folder is missing or cannot be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UnwritableReport(f"{path} is a directory; give the name of a file, e.g. report.html")
    if not folder.is_dir():
        raise UnwritableReport(f"there is no folder {folder}; make it, or give another name")
    if not os.access(folder, os.W_OK):
        raise UnwritableReport(f"{folder} cannot be written to; give another name")


def write_page(path: Path, html: str) -> None:
    """Write a page; a file that was there is replaced, at once.

    Raises:
        UnwritableReport: If it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(html, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise UnwritableReport(
            f"{path} cannot be written ({error.strerror}); give another name"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
