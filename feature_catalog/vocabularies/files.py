"""Writing a vocabulary and its definition: files that appear whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path

from device_runtime.errors import FlintError


class UnwritableVocabulary(FlintError):
    """A vocabulary, or its definition, cannot be written where it should go."""

    code = "FLN-2994"


def check_place(path: Path) -> None:
    """Check that a file can go to ``path``, before any work is done for it.

    Raises:
        UnwritableVocabulary: If its folder is missing or closed to us, or it is a directory.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UnwritableVocabulary(f"{path} is a directory; give the name of a file")
    if not folder.is_dir():
        raise UnwritableVocabulary(f"there is no folder {folder}; make it, or give another name")
    if not os.access(folder, os.W_OK):
        raise UnwritableVocabulary(f"{folder} cannot be written to; give another name")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step; one that was there is replaced.

    Raises:
        UnwritableVocabulary: If it cannot be written; what was there stays.
    """
    check_place(path)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise UnwritableVocabulary(
            f"{path} cannot be written ({error.strerror}); free space, or give another name"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
