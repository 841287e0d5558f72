"""Checkpoints as bytes: a tree of plain values, with its arrays beside it. Nothing is unpickled."""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

_FORMAT = 1
_TREE = "tree"
_ARRAY = "$array"


class UnusableCheckpoint(FlintError):
    """A checkpoint that cannot be read, or is of another run, job or environment."""

    code = "FLN-1731"


def encode_checkpoint(run_id: str, state: Mapping[str, Any]) -> bytes:
    """Serialise a state of mappings with text keys, sequences, numbers, text, None and arrays.

    Floats come back to the bit; tuples come back as lists.
    """
    arrays: dict[str, NDArray[Any]] = {}

    def lift(value: object) -> object:
        if isinstance(value, np.ndarray):
            arrays[name := f"a{len(arrays)}"] = value
            return {_ARRAY: name}
        if isinstance(value, Mapping):
            return {str(key): lift(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [lift(each) for each in value]
        if isinstance(value, bytes):
            return lift(np.frombuffer(value, np.uint8))
        return value

    tree = {"format": _FORMAT, "run_id": run_id, "state": lift(state)}
    arrays[_TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_checkpoint(run_id: str, data: bytes) -> dict[str, Any]:
    """The state that `encode_checkpoint` was given; bytes come back as arrays of uint8.

    Raises:
        UnusableCheckpoint: If the bytes are no checkpoint, or one of another run.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        tree = json.loads(arrays[_TREE].tobytes())
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise UnusableCheckpoint(
            f"the checkpoint of run {run_id} cannot be read ({error}); start the run anew"
        ) from error
    if tree.get("format") != _FORMAT or tree.get("run_id") != run_id:
        raise UnusableCheckpoint(
            f"the checkpoint of run {run_id} is of run {tree.get('run_id')}, format "
            f"{tree.get('format')}; start the run anew"
        )

    def lower(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
        if isinstance(value, dict):
            if _ARRAY in value:
                return arrays[value[_ARRAY]]
            return {key: lower(each) for key, each in value.items()}
        if isinstance(value, list):
            return [lower(each) for each in value]
        return value

    state: dict[str, Any] = lower(tree["state"])
    return state
