"""Sums of updates that do not depend on who adds what first.

A dry-run is sensitive to its last bits: an Adam step and three local epochs turn a rounding into
another trajectory within a few versions. So every term is rounded to a fixed grid before it is
added, and additions are then exact: any order and any grouping over processes give the same bits
(pre-rounded summation; Demmel and Nguyen, ARITH 2013). A gateway folds in float32 in order of
arrival; the two differ by rounding only.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from simulation.executors.training import LocalUpdate

GRID = 2.0**-30
"""Terms are multiples of this; sums below 2**23 are exact in float64, larger ones are rounded."""

TO_GRID = 1.5 * 2.0**22
"""A float64 of this size has `GRID` as its last place."""


def add_update(total: NDArray[np.float64], update: LocalUpdate, weight: float) -> None:
    """``total += weight * update``, on the grid.

    Args:
        total: Sum so far, in wire order, shape ``(parameters,)``; changed in place.
    """
    terms = update.delta * np.float64(weight)
    terms += TO_GRID
    terms -= TO_GRID
    if update.rows is None:
        total += terms
        return
    trained = update.rows.size * update.row_width
    rest = terms.size - trained
    table = total[: total.size - rest].reshape(-1, update.row_width)
    rows = torch.from_numpy(terms[:trained].reshape(-1, update.row_width))
    torch.from_numpy(table).index_add_(0, torch.from_numpy(update.rows), rows)
    total[total.size - rest :] += terms[trained:]
