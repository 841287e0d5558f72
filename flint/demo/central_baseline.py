"""What training with all data in one place reaches: the line federated training is measured by.

Logistic regression on the very features devices train on. It is a floor for what a central model
could do, not a ceiling: an MLP may find interactions that it cannot.
"""

import numpy as np
from numpy.typing import NDArray

from modeling.metrics import METRICS
from modeling.spec import HashedBag, ModelSpec

Records = NDArray[np.int32] | NDArray[np.float32]

_INVERSE_REGULARISATION = 1.0
_MAX_ITERATIONS = 1_000


def central_metric(
    model: ModelSpec,
    train: tuple[Records, NDArray[np.float32]],
    heldout: tuple[Records, NDArray[np.float32]],
) -> float:
    """Metric on held-out clients of a logistic regression trained on all training clients.

    Args:
        model: Says what a record is: bucket ids (``(records, ids)``, padded) or numbers.
        train: Inputs and labels of training clients.
        heldout: The same of held-out clients.
    """
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=_MAX_ITERATIONS)
    regression.fit(_features(model, train[0]), train[1].ravel())
    scores = np.asarray(regression.decision_function(_features(model, heldout[0])), np.float64)
    return float(METRICS[model.metric](heldout[1].astype(np.float64).ravel(), scores))


def _features(model: ModelSpec, x: Records) -> object:
    """As the model's first layer sees a record: bucket ids become ``1 / sqrt(count)`` each."""
    first = model.layers[0]
    if not isinstance(first, HashedBag):
        return x
    from scipy.sparse import csr_matrix

    used = x != model.input.padding
    counts = used.sum(axis=1)
    rows = np.repeat(np.arange(len(x)), counts)
    values = np.repeat(1.0 / np.sqrt(np.maximum(counts, 1)), counts)
    return csr_matrix((values, (rows, x[used])), shape=(len(x), first.buckets))
