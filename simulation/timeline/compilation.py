"""How the event engine is compiled, and where its machine code is kept.

`compiled` takes plain functions as they are: those of the strategies and of the gateway that the
production coordinator calls, and the engine's own. What a function calls must be compiled too, so
its callees are named and put in their places in a copy; the function itself stays plain.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numba

Signature = Any
"""Of Numba, which is not typed."""

Compiled = TypeVar("Compiled", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
"""Nothing is allocated in compiled code, so no array's references are counted: that would take as
long as all the rest."""
_PACKAGES = Path(__file__).parents[2]
_SOURCES = (
    "simulation/timeline",
    "simulation/durations.py",
    "simulation/portable_math.py",
    "simulation/traces/criteria.py",
    "server/strategies",
    "server/gateway/pace.py",
    "server/coordination/selection.py",
    "server/coordination/limits.py",
)
"""Files of everything that is compiled here."""


_DRIVER = "trial.py"
"""The one file of this folder with nothing that is compiled."""


def compiled(function: Compiled, **callees: Callable[..., Any]) -> Compiled:
    """A compiled copy of a function, made at its first call; IEEE arithmetic, no reordering.

    Args:
        callees: Compiled functions to call in place of the plain ones of these names.
    """
    if not isinstance(function, FunctionType):
        raise TypeError("only plain functions are compiled")
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **callees},
        function.__name__,
        function.__defaults__,
    )
    return cast(Compiled, numba.njit(copy, forceinline=True, **_OPTIONS))


def entry_point(function: Compiled, signature: Signature) -> Compiled:
    """Compile a function that Python calls, now, or take its machine code of an earlier process."""
    folder = cache_folder()
    with _cached_in(folder):
        decorate = numba.njit(signature, nogil=True, cache=folder is not None, **_OPTIONS)
        return cast(Compiled, decorate(function))


def cache_folder() -> Path | None:
    """Where machine code is kept between processes; None if no such folder can be written to.

    Numba looks at a function's own file only to know whether it has changed, so the folder's name
    is a digest of the sources of all that is compiled into it.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    folder = Path(home) / "flint" / "timeline" / _digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def is_compiled() -> bool:
    """Whether an earlier process has left the engine's machine code."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("*.nbi"))


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for name in _SOURCES:
        path = _PACKAGES / name
        for source in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            if source.name != _DRIVER:
                digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _cached_in(folder: Path | None) -> Iterator[None]:
    """Numba takes a function's folder from its configuration when the function is decorated."""
    settings: Any = numba.config
    before = settings.CACHE_DIR
    if folder is not None:
        settings.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        settings.CACHE_DIR = before
