"""Checkpoints as bytes: a tree of plain values, with its arrays beside it. Nothing is unpickled."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

_FORMAT = 3
_TREE = "tree"
_ARRAY = "$array"
_BYTES = "$bytes"


class UnusableCheckpoint(FlintError):
    """A checkpoint that cannot be read, or is of another run, job or environment."""

    code = "FLN-1731"


def encode_checkpoint(run_id: str, state: Mapping[str, Any]) -> bytes:
    """Serialise a state of mappings with text keys, sequences, plain values, bytes and arrays.

    Floats come back to the bit; tuples come back as lists.
    """
    arrays: dict[str, NDArray[Any]] = {}

    def lift(value: object) -> object:
        if isinstance(value, np.ndarray):
            arrays[name := f"a{len(arrays)}"] = value
            return {_ARRAY: name}
        if isinstance(value, bytes):
            return {_BYTES: value.hex()}
        if isinstance(value, Mapping):
            return {str(key): lift(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [lift(each) for each in value]
        return value

    tree = {"format": _FORMAT, "run_id": run_id, "state": lift(state)}
    arrays[_TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_checkpoint(run_id: str, data: bytes) -> dict[str, Any]:
    """The state that `encode_checkpoint` was given.

    Raises:
        UnusableCheckpoint: If the bytes are no checkpoint, or one of another run.
    """
    try:
        tree, arrays = _read(data)
        found = (tree["run_id"], tree["format"])
        if found == (run_id, _FORMAT):
            state: dict[str, Any] = _lowered(tree["state"], arrays)
            return state
    except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UnusableCheckpoint(
            f"the checkpoint of run {run_id} cannot be read ({error!r}); start the run anew"
        ) from error
    raise UnusableCheckpoint(
        f"the checkpoint of run {run_id} is of run {found[0]}, format {found[1]}; start the run "
        "anew"
    )


def _read(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as parts:  # np.load would take other files as well
        names = [name.removesuffix(".npy") for name in parts.namelist()]
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in names}
    return json.loads(arrays[_TREE].tobytes()), arrays


def _lowered(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - of JSON
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        if _BYTES in value:
            return bytes.fromhex(value[_BYTES])
        return {key: _lowered(each, arrays) for key, each in value.items()}
    if isinstance(value, list):
        return [_lowered(each, arrays) for each in value]
    return value
