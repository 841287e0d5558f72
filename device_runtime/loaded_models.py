"""What the identities of one process share in memory: loaded artefacts and base versions."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from device_runtime.manifest import ArtifactManifest
from device_runtime.update_codec import parameters_from_blob

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

Obtain = Callable[[bytes], Path]
"""Gives the file of a blob by its digest, fetching it first where need be."""


class LoadedModels:
    """One engine an artefact and the arrays of a few versions, least recently used out first."""

    def __init__(self, max_engines: int = 2, max_versions: int = 3) -> None:
        self._engines: OrderedDict[tuple[bytes, bytes], LiteRtEngine] = OrderedDict()
        self._versions: OrderedDict[bytes, Sequence[NDArray[np.float32]]] = OrderedDict()
        self._max_engines = max_engines
        self._max_versions = max_versions

    def engine(
        self, artifact_sha256: bytes, manifest_sha256: bytes, obtain: Obtain
    ) -> LiteRtEngine:
        """The engine of an artefact.

        Raises:
            InvalidManifest: If the manifest cannot be read.
            InvalidArtifact: If artefact and manifest contradict each other.
        """
        key = (artifact_sha256, manifest_sha256)
        engine = self._engines.get(key)
        if engine is None:
            manifest = ArtifactManifest.from_json(
                obtain(manifest_sha256).read_bytes().decode(errors="replace")
            )
            engine = LiteRtEngine(obtain(artifact_sha256), manifest)
            _keep(self._engines, key, engine, self._max_engines)
        self._engines.move_to_end(key)
        return engine

    def parameters(
        self, parameters_sha256: bytes, manifest: ArtifactManifest, obtain: Obtain
    ) -> Sequence[NDArray[np.float32]]:
        """Arrays of a model version, in wire order; not to be written to.

        Raises:
            MalformedPayload: If the blob is not of this model.
        """
        arrays = self._versions.get(parameters_sha256)
        if arrays is None:
            payload = obtain(parameters_sha256).read_bytes()
            arrays = parameters_from_blob(manifest.parameters, payload)
            _keep(self._versions, parameters_sha256, arrays, self._max_versions)
        self._versions.move_to_end(parameters_sha256)
        return arrays


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value, limit: int) -> None:
    kept[key] = value
    while len(kept) > limit:
        kept.popitem(last=False)
