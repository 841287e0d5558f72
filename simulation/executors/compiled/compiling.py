"""How the functions of this folder are compiled, and where their machine code is kept.

Numba keeps the code of a function until the function's own file changes, whatever becomes of the
files of what it calls. So the folder's name is a digest of all these sources and Numba's version.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic

Compiled = TypeVar("Compiled", bound=Callable[..., Any])


def compiled(function: Compiled) -> Compiled:
    """Compile with its caller: IEEE arithmetic, but a product and a sum may round once."""
    return _decorated(function, {"contract"})


def compiled_exactly(function: Compiled) -> Compiled:
    """Compile with its caller: every operation rounds by itself, as numpy's do."""
    return _decorated(function, set())


def compiled_reordered(function: Compiled) -> Compiled:
    """Compile with its caller: sums are taken in an order of their own, always the same."""
    return _decorated(function, {"contract", "reassoc", "nsz"})


def instruction(typed: Callable[..., Any]) -> Any:  # noqa: ANN401 - Numba's intrinsics have no types
    """A function that writes its instructions itself, put where it is called."""
    return intrinsic(typed)


def entry(function: Compiled) -> Compiled:
    """As `compiled`, for a function that Python calls."""
    return _decorated(function, {"contract"}, from_python=True)


def _decorated(function: Compiled, fast: set[str], *, from_python: bool = False) -> Compiled:
    folder = cache_folder()
    with _cached_in(folder):
        njit: Any = numba.njit
        decorate = njit(
            cache=folder is not None,
            fastmath=fast,
            error_model="numpy",
            nogil=True,
            no_cpython_wrapper=not from_python,
            no_cfunc_wrapper=True,
            _nrt=False,
        )
        return cast(Compiled, decorate(function))


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between processes; None if no such folder can be written to."""
    home = os.environ.get("XDG_CACHE_HOME")
    root = Path(home) if home else Path.home() / ".cache"
    folder = root / "flint" / "compiled" / _digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # each process compiles for itself
    return folder if os.access(folder, os.W_OK) else None


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    folder = Path(__file__).parent
    for source in (*sorted(folder.glob("*.py")), folder.parent / "grid_sum.py"):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _cached_in(folder: Path | None) -> Iterator[None]:
    """Numba takes a function's folder from its configuration when the function is decorated."""
    config: Any = numba.config
    before = config.CACHE_DIR
    if folder is not None:
        config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
