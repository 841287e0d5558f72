"""Models as files of other programs: torch state dicts, NumPy archives, TFLite."""

import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec

ModelFormat = Literal["torch", "npz", "tflite"]
Arrays = Sequence[NDArray[np.float32]]

_ENDINGS: dict[str, ModelFormat] = {
    ".pt": "torch",
    ".pth": "torch",
    ".npz": "npz",
    ".tflite": "tflite",
}


class UnfitModelFile(FlintError):
    """A model file that cannot be read, or does not hold the model's parameters."""

    code = "FLN-1302"


class UnknownModelFormat(FlintError):
    """A file name whose ending names no format that can be read or written here."""

    code = "FLN-1303"


class MissingFramework(FlintError):
    """A format needs a framework that is not installed."""

    code = "FLN-1306"


class UnwritableModelFile(FlintError):
    """A model file cannot be written."""

    code = "FLN-1307"


def read_model_file(model: ModelSpec, path: Path) -> list[NDArray[np.float32]]:
    """Read parameters in wire order from ``.pt``, ``.pth`` or ``.npz``; no code in it is run.

    Raises:
        UnfitModelFile: If the archive is unreadable or holds other names or shapes, or numbers
            that are not finite.
        UnknownModelFormat: If the ending is another.
        MissingFramework: If it is a torch file and torch is not installed.
        ForeignParameters: If a torch file is not a state dict of this model.
    """
    form = _ENDINGS.get(path.suffix.lower())
    if form == "npz":
        return _read_npz(model, path)
    if form == "torch":
        with _Framework("reading a torch state dict", "torch"):
            from modeling.torch_models import load_state_dict

            return load_state_dict(model, path)
    raise UnknownModelFormat(
        f"{path}: a model cannot be imported from a file ending in {path.suffix or 'nothing'!r}; "
        "give a torch state dict (.pt) or arrays by parameter name (.npz)"
    )


def format_to_write(path: Path) -> ModelFormat:
    """The format a file to be written has by its ending.

    Raises:
        UnknownModelFormat: If it is not known.
    """
    form = _ENDINGS.get(path.suffix.lower())
    if form is None:
        ending = repr(path.suffix) if path.suffix else "a file without an ending"
        raise UnknownModelFormat(
            f"{path}: a model cannot be exported as {ending}; name the file .pt (torch state "
            "dict), .npz (arrays by parameter name) or .tflite"
        )
    return form


def write_model_file(
    model: ModelSpec, arrays: Arrays, path: Path, form: ModelFormat | None = None
) -> None:
    """Write parameters as a file, whole or not at all.

    A ``.tflite`` file holds the parameters as its variables' initial values, so ``infer`` works at
    once; it takes one record a call.

    Raises:
        UnknownModelFormat: If the format is not known.
        MissingFramework: If its framework is not installed.
        UnwritableModelFile: If the file cannot be written.
    """
    writers: dict[ModelFormat, Callable[[ModelSpec, Arrays, Path], None]] = {
        "npz": _write_npz,
        "torch": _write_torch,
        "tflite": _write_tflite,
    }
    chosen = form or format_to_write(path)
    try:
        handle, draft_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    draft = Path(draft_name)
    try:
        writers[chosen](model, arrays, draft)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


class _Framework:
    """Turns a failed import of a framework into a sentence with the mend."""

    def __init__(self, purpose: str, package: str) -> None:
        self._purpose = purpose
        self._package = package

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(self._package):
            raise MissingFramework(
                f"{self._purpose} needs {self._package}, which is not installed; install FLINT "
                "with its modeling extra (`pip install flint-on-flower[modeling]`)"
            ) from error


def _read_npz(model: ModelSpec, path: Path) -> list[NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        # NumPy's own words on a file of another kind advise to unpickle it.
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is none"
        raise UnfitModelFile(
            f"{path} cannot be read as a NumPy archive ({why}); write it with "
            "numpy.savez(path, **{name: array})"
        ) from error
    wanted = {p.name: p.shape for p in model.parameters}
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != wanted:
        raise UnfitModelFile(
            f"{path} holds {_shown(shapes)}; {model.name} has {_shown(wanted)}; name and shape the "
            "arrays so"
        )
    arrays = []
    for name in wanted:
        if found[name].dtype.kind not in "fiu" or not np.isfinite(found[name]).all():
            raise UnfitModelFile(
                f"{path}: {name} holds values that are not finite numbers; export the model anew"
            )
        arrays.append(found[name].astype(np.float32))
    return arrays


def _write_npz(model: ModelSpec, arrays: Arrays, path: Path) -> None:
    named: dict[str, Any] = {
        p.name: array for p, array in zip(model.parameters, arrays, strict=True)
    }
    with path.open("wb") as file:
        np.savez(file, **named)


def _write_torch(model: ModelSpec, arrays: Arrays, path: Path) -> None:
    with _Framework("writing a torch state dict", "torch"):
        from modeling.torch_models import save_state_dict

        save_state_dict(model, arrays, path)


def _write_tflite(model: ModelSpec, arrays: Arrays, path: Path) -> None:
    with _Framework("writing a TFLite model", "tensorflow"):
        from modeling.tflite import build_artifact

        path.write_bytes(build_artifact(model, batch_size=1, initial_parameters=arrays).model_bytes)


def _shown(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"


def _unwritable(path: Path, error: OSError) -> UnwritableModelFile:
    return UnwritableModelFile(
        f"{path} cannot be written ({error.strerror}); choose a directory that exists and is yours"
    )
