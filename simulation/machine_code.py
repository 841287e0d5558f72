"""Where machine code is kept between processes.

Numba keeps a function's code until the function's own file changes, whatever becomes of the files
of what it calls. So a folder's name is a digest of all sources that are compiled into it, and of
Numba's version.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numba


def code_folder(part: str, sources: Iterable[Path]) -> Path | None:
    """A folder of the user's cache for a part's machine code; None if there can be none.

    Args:
        part: Names the folder for people.
        sources: Files of everything that is compiled into it.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sources:
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME")
    root = Path(home) if home else Path.home() / ".cache"
    folder = root / "flint" / part / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # each process compiles for itself
    return folder if os.access(folder, os.W_OK) else None


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[None]:
    """Numba takes a function's folder from its configuration when the function is decorated."""
    config: Any = numba.config
    before = config.CACHE_DIR
    if folder is not None:
        config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
