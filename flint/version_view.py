"""Model versions as JSON."""

from typing import Any

from feature_catalog.model_store import ModelVersion


def reference(version: ModelVersion) -> str:
    """``name@number``."""
    return f"{version.name}@{version.number}"


def describe(version: ModelVersion) -> dict[str, Any]:
    """A version as JSON."""
    return {
        "version": reference(version),
        "name": version.name,
        "number": version.number,
        "model": version.model,
        "job_id": version.job_id,
        "job_version": version.job_version,
        "parent_id": version.parent_id,
        "metrics": dict(version.metrics),
        "strategy_state": dict(version.strategy_state),
        "parameters_sha256": version.parameters_sha256.hex(),
        "feature_contract_sha256": (
            None
            if version.feature_contract_sha256 is None
            else version.feature_contract_sha256.hex()
        ),
        "created_at": version.created_at.isoformat(),
    }
