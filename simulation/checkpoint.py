"""Checkpoints as bytes: a tree of plain values, with its arrays behind it. Nothing is unpickled.

A dry-run of a small model keeps one every few milliseconds, so an array is written as it lies in
memory: zip files of ``.npy`` took seven times as long.
"""

import json
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

_FORMAT = 4
_MARK = b"flint checkpoint"
_HEAD = struct.Struct("<16sQ")
"""The mark, and how many bytes the tree has that follows; at the end is a CRC-32 of all before."""
_CHECK = struct.Struct("<I")
_ZIP = b"PK"
"""What checkpoints began with before format 4."""
_ARRAY = "$array"
_BYTES = "$bytes"
_KINDS = "biuf"
"""Of arrays that may be kept: numbers and truth values, as `numpy.dtype.kind` has them."""

_APART_S = 1.0
_COST = 0.02
"""Of a run's time, the most that goes into checkpoints."""


class CheckpointPace:
    """When to keep the next checkpoint, so that a run spends little of its time on them.

    A second must have passed, and fifty times what the last one took: a small model makes hundreds
    of aggregations a second, and what is kept of a run with many trials is large.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._due_s = now_s() + _APART_S

    def is_due(self) -> bool:
        """Whether it is time for one."""
        return self._now_s() >= self._due_s

    def keep(self, save: Callable[[], None]) -> None:
        """Save one."""
        begun_s = self._now_s()
        save()
        ended_s = self._now_s()
        self._due_s = ended_s + max(_APART_S, (ended_s - begun_s) / _COST)


class UnusableCheckpoint(FlintError):
    """A checkpoint that cannot be read, or is of another run, job or environment."""

    code = "FLN-1731"


def encode_checkpoint(run_id: str, state: Mapping[str, Any]) -> bytes:
    """Serialise a state of mappings with text keys, sequences, plain values, bytes and arrays.

    Floats come back to the bit; tuples come back as lists.
    """
    parts: list[bytes | memoryview] = []

    def lift(value: object) -> object:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in _KINDS:
                raise TypeError(f"an array of {value.dtype} in a checkpoint")
            array = np.ascontiguousarray(value)
            parts.append(array.reshape(-1).view(np.uint8).data)
            return {_ARRAY: [array.dtype.str, list(value.shape)]}
        if isinstance(value, bytes):
            parts.append(value)
            return {_BYTES: len(value)}
        if isinstance(value, Mapping):
            return {str(key): lift(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [lift(each) for each in value]
        return value

    tree = json.dumps({"format": _FORMAT, "run_id": run_id, "state": lift(state)}).encode()
    whole, check = [_HEAD.pack(_MARK, len(tree)), tree, *parts], 0
    for part in whole:
        check = zlib.crc32(part, check)
    return b"".join([*whole, _CHECK.pack(check)])


def decode_checkpoint(run_id: str, data: bytes) -> dict[str, Any]:
    """The state that `encode_checkpoint` was given.

    Raises:
        UnusableCheckpoint: If the bytes are no checkpoint, or one of another run or version.
    """
    if data.startswith(_ZIP):
        raise UnusableCheckpoint(
            f"the checkpoint of run {run_id} was written by an earlier version of FLINT, in "
            "another format; resume the run with that version, or start the run anew"
        )
    try:
        tree, parts = _read(data)
        found = (tree["run_id"], tree["format"])
        if found == (run_id, _FORMAT):
            state: dict[str, Any] = _lowered(tree["state"], _Parts(parts))
            return state
    except (ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
        raise UnusableCheckpoint(
            f"the checkpoint of run {run_id} cannot be read ({error!r}); start the run anew"
        ) from error
    raise UnusableCheckpoint(
        f"the checkpoint of run {run_id} is of run {found[0]}, format {found[1]}; start the run "
        "anew"
    )


def _read(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The tree, and what is behind it."""
    mark, length = _HEAD.unpack_from(data)
    whole = memoryview(data)[: -_CHECK.size]
    if mark != _MARK or _CHECK.unpack(data[-_CHECK.size :]) != (zlib.crc32(whole),):
        raise ValueError("not a whole checkpoint")
    end = _HEAD.size + length
    return json.loads(bytes(whole[_HEAD.size : end])), whole[end:]


class _Parts:
    """Bytes behind the tree, taken one part after the other."""

    def __init__(self, data: memoryview) -> None:
        self._rest = data

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self._rest):
            raise ValueError(f"{count} bytes of {len(self._rest)} that are left")
        part, self._rest = self._rest[:count], self._rest[count:]
        return part

    def take_array(self, kind: str, shape: list[int]) -> NDArray[Any]:
        dtype = np.dtype(kind)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of {dtype}")
        count = 1
        for length in shape:
            count *= length
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).reshape(shape).copy()


def _lowered(value: Any, parts: _Parts) -> Any:  # noqa: ANN401 - of JSON
    if isinstance(value, dict):
        if _ARRAY in value:
            kind, shape = value[_ARRAY]
            return parts.take_array(kind, shape)
        if _BYTES in value:
            return bytes(parts.take(value[_BYTES]))
        return {key: _lowered(each, parts) for key, each in value.items()}
    if isinstance(value, list):
        return [_lowered(each, parts) for each in value]
    return value
