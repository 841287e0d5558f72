"""The central baseline is what scikit-learn gives on the features spelt out."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from flint.demo.central_baseline import central_metric
from modeling.zoo import SPARSE_MLP, TINY_MLP


def draw_bags(generator: np.random.Generator, records: int):
    """Records whose label depends on whether they hold a bucket below 40."""
    x = np.full((records, 64), -1, np.int32)
    for row in x:
        ids = generator.choice(200, generator.integers(0, 20), replace=False)
        row[: len(ids)] = ids
    wanted = ((x >= 0) & (x < 40)).sum(axis=1)
    chance = 1 / (1 + np.exp(2.0 - wanted))
    return x, (generator.random(records) < chance).astype(np.float32)[:, None]


def spelt_out(x: np.ndarray) -> np.ndarray:
    features = np.zeros((len(x), 1024))
    for features_row, row in zip(features, x, strict=True):
        ids = row[row >= 0]
        features_row[ids] = 1 / np.sqrt(max(len(ids), 1))
    return features


def test_bags_are_weighed_as_the_models_first_layer_does():
    generator = np.random.default_rng(0)
    train, heldout = draw_bags(generator, 400), draw_bags(generator, 200)
    regression = LogisticRegression(C=1.0, max_iter=1_000)
    regression.fit(spelt_out(train[0]), train[1].ravel())
    scores = regression.decision_function(spelt_out(heldout[0]))
    expected = average_precision_score(heldout[1].ravel(), scores)
    assert central_metric(SPARSE_MLP, train, heldout) == pytest.approx(expected, abs=1e-4)
    assert expected > heldout[1].mean() + 0.2


def test_numbers_are_taken_as_they_are():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(300, 40)).astype(np.float32)
    y = (x[:, :1] + generator.normal(size=(300, 1)) > 0).astype(np.float32)
    regression = LogisticRegression(C=1.0, max_iter=1_000).fit(x[:200], y[:200].ravel())
    expected = average_precision_score(y[200:].ravel(), regression.decision_function(x[200:]))
    found = central_metric(TINY_MLP, (x[:200], y[:200]), (x[200:], y[200:]))
    assert found == pytest.approx(expected, abs=1e-6)
