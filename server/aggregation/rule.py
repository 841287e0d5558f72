"""The aggregation rule: from partial sums to the mean delta the server optimiser follows."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from server.aggregation.aggregator import PartialSum

_CHUNK = 65_536  # in float64 half a MB: sums in double precision take no memory of a model's size


def mean_delta(
    sums: Sequence[PartialSum], version: int, base_weight: Callable[[int], float]
) -> NDArray[np.float32]:
    """``sum_b s(version - b) * total_b / sum_b weight_b`` over base versions ``b``.

    The staleness factor depends on the base version alone, so it is applied to whole sums; it is
    not in the denominator (FedBuff, Algorithm 1, line 12): a buffer of stale updates takes a
    smaller step, not the same step in a staler direction.

    Args:
        sums: At least one, each of shape ``(parameters,)``, with positive total weight.
        version: Newest model version.
        base_weight: Factor by staleness.

    Returns:
        Shape ``(parameters,)``.
    """
    weight = sum([partial.weight for partial in sums])
    factors = [base_weight(version - partial.base_version) for partial in sums]
    mean = np.empty(sums[0].total.shape, np.float32)
    for start in range(0, mean.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        direction: NDArray[np.float64] | None = None
        for factor, partial in zip(factors, sums, strict=True):
            term = partial.total[part].astype(np.float64)
            if factor != 1.0:
                term *= factor
            direction = term if direction is None else np.add(direction, term, out=direction)
        if direction is not None:
            mean[part] = np.divide(direction, weight, out=direction)
    return mean
