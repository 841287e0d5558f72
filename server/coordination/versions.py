"""Model versions as the coordinator stores and finds them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.coordination.tasks import TaskResult


@dataclass(frozen=True, slots=True)
class JobTotals:
    """What a job has done up to a version; part of every stored version, so a restart knows it.

    Attributes:
        elapsed_s: On the fleet's clock, over all incarnations of the coordinator.
        updates: Updates aggregated.
        outcomes: Tasks by outcome; ``refused`` counts uploads that belong to no task.
        reasons: Tasks not succeeded, by reason.
    """

    elapsed_s: float = 0.0
    updates: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One model version of a job.

    Attributes:
        number: Counted in aggregations; 0 is what the job started from.
        weights: All parameters concatenated in wire order, shape ``(parameters,)``.
        optimizer_state: Slots of the server optimiser.
        parameters_sha256: Digest of the stored parameters; empty before it is stored.
        release_ids: Releases whose sums it holds.
        metrics: Of this version; empty until evaluated.
    """

    number: int
    weights: NDArray[np.float32]
    optimizer_state: Mapping[str, NDArray[np.float32]]
    parameters_sha256: bytes = b""
    release_ids: tuple[str, ...] = ()
    totals: JobTotals = JobTotals()
    metrics: Mapping[str, float] = field(default_factory=dict)


class VersionStore(Protocol):
    """Where a job's versions are kept: the catalog in production, a run's folder in a dry-run."""

    def newest(self) -> StoredVersion | None:
        """The newest stored version, with everything a restart needs; None for a new job."""
        ...

    def releases_after(self, number: int) -> tuple[str, ...]:
        """Releases whose sums are in a stored version above ``number``."""
        ...

    def ended_tasks(self) -> tuple[str, ...]:
        """Tasks whose end is stored already, oldest first; a fleet may tell of it again."""
        ...

    def store(self, version: StoredVersion, results: Sequence[TaskResult]) -> bytes:
        """Store a version and the tasks that ended since the last, all or nothing.

        Returns:
            SHA-256 of the stored parameters.
        """
        ...

    def record_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        """Add an evaluation's result to a stored version."""
        ...

    def store_results(self, results: Sequence[TaskResult]) -> None:
        """Store the ends of tasks that belong to no version, now and then and at a job's end."""
        ...
