"""Logistic regression over sparse records, numpy only: a quick stand-in for a model.

It tells what ids alone can tell, the same way each time: the loss is convex, so its minimum does
not depend on a start, an order of records or a learning rate. Minimised by L-BFGS (Nocedal, 1980;
two-loop recursion of Nocedal and Wright, Numerical Optimization, Algorithm 7.4, with backtracking).
The loss is scikit-learn's ``LogisticRegression``: ``C * sum log(1 + exp(-y z)) + |w|^2 / 2``, the
intercept not penalised.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MEMORY = 10
_SUFFICIENT = 1e-4
_MOST_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class SparseRecords:
    """Records of which each has some of many inputs.

    Attributes:
        row: Record of each entry, rising, shape ``(entries,)``.
        index: Input of each entry, shape ``(entries,)``.
        value: Value of each entry, shape ``(entries,)``.
        rows: Number of records.
        inputs: Number of inputs.
    """

    row: NDArray[np.int64]
    index: NDArray[np.int64]
    value: Floats
    rows: int
    inputs: int

    def times(self, weights: Floats) -> Floats:
        """Each record's sum of values times weights, shape ``(rows,)``."""
        return _sums(self.row, self.value * weights[self.index], self.rows)

    def transposed_times(self, per_record: Floats) -> Floats:
        """Each input's sum of values times its records' numbers, shape ``(inputs,)``."""
        return _sums(self.index, self.value * per_record[self.row], self.inputs)


@dataclass(frozen=True, slots=True)
class LogisticRegression:
    """A fitted model.

    Attributes:
        weights: Shape ``(inputs,)``.
        iterations: That it took.
    """

    weights: Floats
    intercept: float
    iterations: int

    def scores(self, records: SparseRecords) -> Floats:
        """Logits, shape ``(rows,)``."""
        return records.times(self.weights) + self.intercept


def fit_logistic_regression(
    records: SparseRecords,
    labels: NDArray[np.float64],
    *,
    inverse_penalty: float = 1.0,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> LogisticRegression:
    """Fit weights and an intercept.

    Args:
        labels: 0 or 1 each, shape ``(rows,)``.
        inverse_penalty: scikit-learn's ``C``.
        tolerance: It ends when no component of the gradient of the mean loss is larger.

    Raises:
        ValueError: If labels are of one class, or not as many as records.
    """
    if labels.shape != (records.rows,) or not 0 < labels.sum() < records.rows:
        raise ValueError("labels must be one a record, of both classes")
    signs = np.where(labels > 0.5, 1.0, -1.0)
    scale = inverse_penalty * records.rows

    def loss(point: Floats) -> tuple[float, Floats]:
        weights, intercept = point[:-1], point[-1]
        margins = signs * (records.times(weights) + intercept)
        value = np.logaddexp(0.0, -margins).mean() + weights @ weights / (2.0 * scale)
        # 1 / (1 + exp(m)), without overflow.
        pull = -signs * np.exp(-np.logaddexp(0.0, margins)) / records.rows
        slope = np.append(records.transposed_times(pull) + weights / scale, pull.sum())
        return float(value), slope

    point = np.zeros(records.inputs + 1)
    # Begins where an intercept alone would end.
    positives = float(labels.mean())
    point[-1] = np.log(positives / (1.0 - positives))
    value, slope = loss(point)
    past: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
    iterations = 0
    while iterations < max_iterations and np.abs(slope).max() > tolerance:
        iterations += 1
        step = -_scaled(slope, past)
        falls = float(slope @ step)
        length = 1.0 if past else min(1.0, 1.0 / np.abs(slope).sum())
        for _ in range(_MOST_HALVINGS):
            following, its_slope = loss(point + length * step)
            if following <= value + _SUFFICIENT * length * falls:
                break
            length /= 2.0
        else:
            break  # as low as rounding lets it get
        moved, turned = length * step, its_slope - slope
        bend = float(moved @ turned)
        if bend > 1e-12 * float(turned @ turned):
            past.append((moved, turned, 1.0 / bend))
        point, value, slope = point + moved, following, its_slope
    return LogisticRegression(point[:-1], float(point[-1]), iterations)


def _sums(groups: NDArray[np.int64], values: Floats, count: int) -> Floats:
    return np.asarray(np.bincount(groups, values, minlength=count), np.float64)


def _scaled(slope: Floats, past: deque[tuple[Floats, Floats, float]]) -> Floats:
    """The gradient times an estimate of the inverse Hessian, from past steps."""
    result = slope.copy()
    shares = []
    for moved, turned, inverse in reversed(past):
        share = inverse * float(moved @ result)
        shares.append(share)
        result -= share * turned
    if past:
        moved, turned, inverse = past[-1]
        result *= 1.0 / (inverse * float(turned @ turned))
    for (moved, turned, inverse), share in zip(past, reversed(shares), strict=True):
        result += (share - inverse * float(turned @ result)) * moved
    return result
