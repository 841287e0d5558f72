"""A version's parameters, read from the blob store when a node is first sent them."""

import threading
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from device_runtime.update_codec import parameters_from_blob
from feature_catalog.blobs import BlobStore
from server.update_gate.content import WireModel


class StoredParameters(Mapping[str, NDArray[np.float32]]):
    """Arrays by name, in wire order. No memory is spent on versions that no node trains.

    Reading an array raises what the blob store raises, the first time.
    """

    def __init__(self, blobs: BlobStore, digest: bytes, model: WireModel) -> None:
        self._blobs = blobs
        self._digest = digest
        self._model = model
        self._names = tuple(parameter.name for parameter in model.parameters)
        self._arrays: dict[str, NDArray[np.float32]] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """One array."""
        with self._lock:
            if self._arrays is None:
                payload = self._blobs.get(self._digest)
                arrays = parameters_from_blob(self._model.parameters, payload)
                self._arrays = dict(zip(self._names, arrays, strict=True))
            return self._arrays[name]

    def __contains__(self, name: object) -> bool:
        """Known without reading anything."""
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """Names in wire order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self._names)
