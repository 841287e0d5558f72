"""How the functions of this folder are compiled, and where their machine code is kept."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import intrinsic

from simulation.machine_code import code_folder, kept_in

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
    with kept_in(folder):
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


def is_compiled() -> bool:
    """Whether an earlier process has left machine code of the kernel."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob("*.nbi"))


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept between processes; None if no such folder can be written to."""
    folder = Path(__file__).parent
    return code_folder("compiled", (*sorted(folder.glob("*.py")), folder.parent / "grid_sum.py"))
