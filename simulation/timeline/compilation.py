"""How the event engine is compiled, and where its machine code is kept.

`compiled` takes plain functions as they are: those of the strategies and of the gateway that the
production coordinator calls, and the engine's own. What a function calls must be compiled too, so
its callees are named and put in their places in a copy; the function itself stays plain.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import numba

from simulation.machine_code import code_folder, kept_in

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


_DRIVERS = ("timeline.py", "trial.py", "training.py", "lock_step.py", "asked_strategy.py")
"""The files of this folder with nothing that is compiled."""


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
    with kept_in(folder):
        decorate = numba.njit(signature, nogil=True, cache=folder is not None, **_OPTIONS)
        return cast(Compiled, decorate(function))


def without_dispatch(entry: Compiled) -> Compiled:
    """The machine code of an entry point, called as it is.

    Numba looks at the type of every argument at every call, and at those of every array in a tuple
    of arrays: with forty of them it takes 5 microseconds, the call itself half of one. So the
    arguments must be of the types that the entry point was compiled for.
    """
    (overload,) = cast(Any, entry).overloads.values()
    return cast(Compiled, overload.entry_point)


def cache_folder() -> Path | None:
    """Where machine code is kept between processes; None if no such folder can be written to."""
    return code_folder("timeline", _sources())


def is_compiled() -> bool:
    """Whether an earlier process has left the engine's machine code."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("*.nbi"))


def _sources() -> Iterator[Path]:
    for name in _SOURCES:
        path = _PACKAGES / name
        for source in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            if source.name not in _DRIVERS:
                yield source
