"""A user's Python file with a torch or Keras model in it, run and looked through."""

import contextlib
import re
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from device_runtime.errors import FlintError

FACTORY, VARIABLE, SHAPE = "build_model", "model", "input_shape"


class UnreadableModelFile(FlintError):
    """A file cannot be run, or there is no model in it."""

    code = "FLN-1506"


@dataclass(frozen=True, slots=True)
class UserModel:
    """What a file defines.

    Attributes:
        model: A ``torch.nn.Module`` or a ``keras.Model``.
        input_shape: Of a record, if the file says it.
    """

    name: str
    framework: Literal["torch", "keras"]
    model: Any
    input_shape: tuple[int, ...] | None


def load_model_file(path: Path) -> UserModel:
    """Run a Python file and take its model: what ``build_model()`` returns, or ``model``.

    The file is the user's own code and runs as such. What it prints goes to stderr.

    Raises:
        UnreadableModelFile: If it is not there, fails, or defines no model.
    """
    if not path.is_file():
        raise UnreadableModelFile(
            f"there is no file {path}; give a Python file with a model in it, or a registered "
            "model's name"
        )
    with contextlib.redirect_stdout(sys.stderr):
        if re.search(rb"keras|tensorflow", path.read_bytes()):
            import modeling.quiet_tensorflow  # noqa: F401 - before the file imports it loudly
        defined = _run(path, lambda: runpy.run_path(str(path), run_name=path.stem))
        factory = defined.get(FACTORY)
        model = _run(path, factory) if callable(factory) else defined.get(VARIABLE)
    framework = _framework_of(model)
    if framework is None:
        found = "nothing" if model is None else f"a {type(model).__name__}"
        raise UnreadableModelFile(
            f"{path}: {FACTORY}() or {VARIABLE} gives {found}; define a function {FACTORY}() that "
            "returns a torch.nn.Module or a keras.Model"
        )
    return UserModel(path.stem, framework, model, _shape(path, defined.get(SHAPE)))


def _run(path: Path, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - a user's file gives anything
    try:
        return call()
    except (Exception, SystemExit) as error:
        said = " ".join(str(error).split())
        raise UnreadableModelFile(
            f"{path} cannot be run ({type(error).__name__}: {said}); "
            f"see that `python {path.name}` runs"
        ) from error


def _framework_of(model: object) -> Literal["torch", "keras"] | None:
    """Which framework's model it is; imports none, since the file has imported its own."""
    frameworks: Mapping[Literal["torch", "keras"], tuple[str, str]] = {
        "torch": ("torch.nn", "Module"),
        "keras": ("keras", "Model"),
    }
    for framework, (module, name) in frameworks.items():
        if module in sys.modules and isinstance(model, getattr(sys.modules[module], name)):
            return framework
    return None


def _shape(path: Path, given: object) -> tuple[int, ...] | None:
    if given is None:
        return None
    is_shape = isinstance(given, tuple | list) and len(given) == 1
    if not is_shape or not all(type(d) is int and d > 0 for d in given):  # type: ignore[attr-defined]
        raise UnreadableModelFile(
            f"{path}: {SHAPE} = {given!r} is not the shape of a record; write one positive number, "
            f"as in {SHAPE} = (40,)"
        )
    return tuple(given)  # type: ignore[arg-type]
