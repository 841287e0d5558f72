import math
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, average_precision_score

from modeling.metrics import METRICS, accuracy, auprc

SCORES = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 2.0]),  # many ties
    st.floats(-1e6, 1e6, width=32),
)


@st.composite
def labels_and_scores(draw):
    count = draw(st.integers(1, 60))
    labels = draw(hnp.arrays(np.int8, count, elements=st.integers(0, 1)))
    return labels, draw(hnp.arrays(np.float32, count, elements=SCORES))


@given(labels_and_scores())
@example((np.zeros(3, np.int8), np.arange(3, dtype=np.float32)))
@example((np.array([0, 1, 1], np.int8), np.zeros(3, np.float32)))
def test_auprc_is_scikit_learns_average_precision(case):
    labels, scores = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # labels without a 1
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = average_precision_score(labels, scores)
    assert auprc(labels, scores) == pytest.approx(expected, abs=1e-12)


@given(labels_and_scores())
def test_accuracy_is_scikit_learns(case):
    labels, logits = case
    assert accuracy(labels, logits) == pytest.approx(accuracy_score(labels, logits > 0), abs=1e-12)


@given(labels_and_scores(), st.randoms(use_true_random=False))
def test_auprc_does_not_depend_on_the_order_of_records(case, random):
    labels, scores = case
    order = list(range(len(labels)))
    random.shuffle(order)
    assert auprc(labels[order], scores[order]) == pytest.approx(auprc(labels, scores), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_columns_of_labels_and_logits_count_as_rows_do(metric):
    labels, logits = np.array([1.0, 0.0, 1.0]), np.array([0.2, 0.4, -0.1], np.float32)
    assert metric(labels[:, None], logits[:, None]) == metric(labels, logits)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_diverged_model_has_no_metric(metric):
    assert math.isnan(metric([0, 1], [0.0, float("nan")]))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metric_of_nothing_or_of_unequal_lengths_is_an_error(metric):
    with pytest.raises(ValueError, match="no records"):
        metric([], [])
    with pytest.raises(ValueError, match="2 labels but 3 scores"):
        metric([0, 1], [1, 2, 3])


def test_several_tasks_give_the_mean_of_their_metrics():
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.9], [-0.6, 0.3]])
    each = [average_precision_score(labels[:, task], scores[:, task]) for task in (0, 1)]
    assert auprc(labels, scores) == pytest.approx(np.mean(each))
    assert accuracy(labels, scores) == pytest.approx(
        np.mean([accuracy_score(labels[:, task], scores[:, task] > 0) for task in (0, 1)])
    )
