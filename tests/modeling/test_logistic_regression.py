"""Logistic regression over sparse records, beside scikit-learn's."""

import numpy as np
import pytest

from modeling.logistic_regression import SparseRecords, fit_logistic_regression


def drawn(rows: int, inputs: int, seed: int) -> tuple[SparseRecords, np.ndarray, np.ndarray]:
    """Records with three inputs each, the same as a matrix, and labels drawn from a true model."""
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(rows), 3)
    index = (inputs * rng.random(3 * rows) ** 3).astype(np.int64)
    value = rng.choice([1.0, 0.5], 3 * rows)
    matrix = np.zeros((rows, inputs))
    np.add.at(matrix, (row, index), value)
    logits = matrix @ rng.normal(0, 1.5, inputs) - 1.0
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    return SparseRecords(row, index, value, rows, inputs), matrix, labels


@pytest.mark.parametrize("inverse_penalty", [0.1, 1.0, 10.0])
def test_it_finds_the_minimum_that_scikit_learn_finds(inverse_penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    records, matrix, labels = drawn(2000, 60, 4)
    found = fit_logistic_regression(
        records, labels, inverse_penalty=inverse_penalty, tolerance=1e-9, max_iterations=1000
    )
    theirs = linear_model.LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=5000)
    theirs.fit(matrix, labels)
    np.testing.assert_allclose(found.weights, theirs.coef_[0], atol=1e-5)
    assert found.intercept == pytest.approx(theirs.intercept_[0], abs=1e-5)
    np.testing.assert_allclose(found.scores(records), theirs.decision_function(matrix), atol=1e-4)


def test_an_input_that_no_record_has_weighs_nothing():
    records, _, labels = drawn(300, 20, 1)
    wider = SparseRecords(records.row, records.index, records.value, records.rows, 25)
    assert not fit_logistic_regression(wider, labels).weights[20:].any()


@pytest.mark.parametrize("labels", [np.zeros(300), np.ones(300), np.zeros(3)])
def test_labels_of_one_class_are_refused(labels):
    with pytest.raises(ValueError, match="both classes"):
        fit_logistic_regression(drawn(300, 20, 1)[0], labels)
