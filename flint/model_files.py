"""Model versions as JSON, and as files for other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from device_runtime.errors import FlintError
from feature_catalog.model_store import ModelVersion
from flint.deployment import Deployment
from flint.submission import ensure_artifact, require
from modeling.zoo import get_model

_FORMATS = {".tflite": "tflite", ".pt": "torch", ".npz": "npz"}


class UnknownModelFormat(FlintError):
    """A file name whose ending names no format a model can be written in."""

    code = "FLN-1222"


def describe(version: ModelVersion) -> dict[str, Any]:
    """A version as JSON."""
    return {
        "version": f"{version.name}@{version.number}",
        "name": version.name,
        "number": version.number,
        "model": version.model,
        "job_id": version.job_id,
        "job_version": version.job_version,
        "parent_id": version.parent_id,
        "metrics": dict(version.metrics),
        "strategy_state": dict(version.strategy_state),
        "parameters_sha256": version.parameters_sha256.hex(),
        "created_at": version.created_at.isoformat(),
    }


def export(
    deployment: Deployment, reference: str, path: Path, note: Callable[[str], None]
) -> ModelVersion:
    """Write a version in the format its file name's ending asks for.

    Raises:
        FlintError: If there is no such version or format, or the file cannot be written.
    """
    form = _FORMATS.get(path.suffix)
    if form is None:
        raise UnknownModelFormat(
            f"{path.name} ends with {path.suffix or 'nothing'}; name the file *.tflite, *.pt (torch "
            "state dict) or *.npz (arrays by parameter name)"
        )
    version = deployment.models.resolve(reference)
    if form == "torch":
        require("torch", extra="modeling", purpose="writing a torch state dict")
    if form == "tflite":
        model = get_model(version.model)
        ensure_artifact(
            deployment, model, batch_size=20, optimizer="sgd", proximal=False, note=note
        )
    deployment.models.export_model(reference, path, form)
    return version
