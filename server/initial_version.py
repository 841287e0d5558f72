"""Where a job starts from: a stored version, or its model's own initial parameters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.update_codec import parameters_from_blob
from feature_catalog.model_store import ModelStore, ModelVersion
from modeling.spec import ModelSpec
from server.job import Job


class UnfitInitialVersion(FlintError):
    """The job's initial version is of another model."""

    code = "FLN-1008"


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """Version 0 of a job.

    Attributes:
        parameters: In wire order.
        version: The stored version they are of; None if the job starts from scratch.
    """

    parameters: Sequence[NDArray[np.float32]]
    version: ModelVersion | None = None


def resolve_initial_version(job: Job, models: ModelStore) -> ModelVersion | None:
    """The stored version a job names, if it names one.

    Raises:
        UnfitInitialVersion: If it is of another model.
        FlintError: If there is no such version.
    """
    if job.initial_version is None:
        return None
    version = models.resolve(job.initial_version)
    if version.model != job.model:
        raise UnfitInitialVersion(
            f"initial_version {job.initial_version} is a {version.model}, the job trains a "
            f"{job.model}; name a version of the same model, or leave initial_version out"
        )
    return version


def starting_point(job: Job, model: ModelSpec, models: ModelStore) -> StartingPoint:
    """Parameters a job starts from.

    Raises:
        FlintError: As `resolve_initial_version`, or if their blob cannot be read.
    """
    version = resolve_initial_version(job, models)
    if version is None:
        return StartingPoint(model.initial_parameters(job.seed))
    return StartingPoint(
        parameters_from_blob(model.parameters, models.parameters(version)), version
    )
