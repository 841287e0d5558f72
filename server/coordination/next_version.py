"""From the sums of an aggregation to the next model version: what every coordinator does."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from device_runtime.errors import FlintError
from server.aggregation.aggregator import PartialSum
from server.aggregation.rule import mean_delta
from server.coordination.versions import StoredVersion
from server.strategies import Strategy
from server.strategies.server_optimizer import ServerOptimizer


class ModelDiverged(FlintError):
    """An aggregation gave a model or an optimiser's state with NaN or infinite numbers."""

    code = "FLN-1006"


def with_optimizer_state(version: StoredVersion, optimizer: ServerOptimizer) -> StoredVersion:
    """The version to go on from; the server optimiser begins where none has been kept."""
    if version.optimizer_state:
        return version
    return replace(version, optimizer_state=optimizer.initial_state(version.weights.size))


def next_version(
    newest: StoredVersion,
    sums: Sequence[PartialSum],
    strategy: Strategy,
    optimizer: ServerOptimizer,
    *,
    job_name: str,
    release_ids: tuple[str, ...] = (),
) -> StoredVersion:
    """Step the newest model along the mean of what was summed.

    Args:
        newest: With the server optimiser's state.
        sums: One a base version; those without weight are left out, and one has some.
        strategy: Says how much each base version counts.

    Raises:
        ModelDiverged: If the next model, or a slot of the server optimiser, is not finite.
    """
    weighty = [partial for partial in sums if partial.weight > 0]
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        delta = mean_delta(weighty, newest.number, strategy.base_weight)
        weights, state = optimizer.step(newest.weights, delta, newest.optimizer_state)
    # A slot that is infinite would hold its parameter where it is for ever.
    if not all(np.isfinite(vector).all() for vector in (weights, *state.values())):
        raise ModelDiverged(
            f"version {newest.number + 1} of job {job_name} is not finite: the "
            "server step overflowed; lower client.optimizer.learning_rate or "
            "strategy.server_optimizer.learning_rate, or set "
            "privacy.robustness.max_update_norm"
        )
    return StoredVersion(newest.number + 1, weights, state, release_ids=release_ids)
