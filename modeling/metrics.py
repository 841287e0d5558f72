"""Metrics by which model versions are compared; numpy only, equal to scikit-learn's."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike


def auprc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision, ``sum (R_n - R_n-1) P_n``.

    Equal to ``sklearn.metrics.average_precision_score``: records of equal score share one
    threshold, and there is no interpolation between thresholds.

    Args:
        labels: 0 or 1 each, any shape; columns of a matrix are the tasks of a multi-task model.
        scores: Higher means more likely 1 (logits will do); as many as labels.

    Returns:
        In [0, 1], the mean over tasks; a random ranking gets the share of ones. 0.0 if no label
        is 1 (scikit-learn warns and returns the same); NaN if a score is NaN: a diverged model
        ranks nothing.

    Raises:
        ValueError: If lengths differ or there are no records.

    >>> auprc([1, 0, 1], [0.9, 0.8, 0.7])
    0.8333333333333333
    """
    by_task = np.asarray(labels)
    if by_task.ndim == 2 and by_task.shape[1] > 1 and by_task.shape == np.shape(scores):
        columns = zip(by_task.T, np.asarray(scores).T, strict=True)
        return float(np.mean([auprc(truth, ranking) for truth, ranking in columns]))
    truth = np.ravel(by_task) > 0.5
    ranking = np.ravel(np.asarray(scores))
    _check_lengths(truth.size, ranking.size)
    if np.isnan(ranking).any():
        return float("nan")
    order = np.argsort(-ranking, kind="stable")
    truth, ranking = truth[order], ranking[order]
    last_of_score = np.append(np.flatnonzero(ranking[1:] != ranking[:-1]), truth.size - 1)
    true_positives = np.cumsum(truth)[last_of_score]
    positives = int(true_positives[-1])
    if positives == 0:
        return 0.0
    precision = true_positives / (last_of_score + 1)
    recall_gain = np.diff(true_positives, prepend=0) / positives
    return float(np.sum(recall_gain * precision))


def accuracy(labels: ArrayLike, logits: ArrayLike) -> float:
    """Share of records whose logit is on the label's side of 0 (probability one half).

    Args:
        labels: 0 or 1 each, any shape; with several tasks, each of a record's labels counts.
        logits: As many as labels; exactly 0 counts as a prediction of 0.

    Returns:
        In [0, 1], or NaN if a logit is NaN.

    Raises:
        ValueError: If lengths differ or there are no records.

    >>> accuracy([1, 0, 1], [0.3, -2.0, -0.1])
    0.6666666666666666
    """
    truth = np.ravel(np.asarray(labels)) > 0.5
    predictions = np.ravel(np.asarray(logits))
    _check_lengths(truth.size, predictions.size)
    if np.isnan(predictions).any():
        return float("nan")
    return float(np.mean((predictions > 0) == truth))


Metric = Callable[[ArrayLike, ArrayLike], float]

METRICS: Mapping[str, Metric] = {"auprc": auprc, "accuracy": accuracy}
"""Every metric takes labels and logits and is better when higher."""


def _check_lengths(labels: int, scores: int) -> None:
    if labels != scores:
        raise ValueError(f"{labels} labels but {scores} scores")
    if labels == 0:
        raise ValueError("a metric of no records is undefined")
