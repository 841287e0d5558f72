"""Records that the models can learn something from, and the models' loss in plain float64 numpy."""

import numpy as np
from numpy.typing import NDArray

from modeling.spec import Dense, ModelSpec


def draw_records(spec: ModelSpec, count: int, seed: int = 0):
    """Inputs and labels of a learnable rule for either model."""
    draws = np.random.default_rng(seed)
    if spec.input.dtype == "int32":
        x = draws.integers(0, 1024, (count, *spec.input.shape), dtype=np.int32)
        lengths = draws.integers(1, x.shape[1] + 1, count)
        x[np.arange(x.shape[1])[None, :] >= lengths[:, None]] = -1
        y = (x[:, 0] < 300).astype(np.float32)[:, None]
    else:
        x = draws.standard_normal((count, *spec.input.shape)).astype(np.float32)
        y = (x[:, 0] > 0.5).astype(np.float32)[:, None]
    return x, y


def reference_steps(
    spec: ModelSpec,
    parameters: list[NDArray[np.float32]],
    batches: list[tuple[NDArray, NDArray]],
    learning_rate: float,
) -> tuple[list[NDArray[np.float64]], list[float]]:
    """SGD in float64 with gradients written out by hand; the loss before each step."""
    weights = [p.astype(np.float64) for p in parameters]
    losses = []
    for x, y in batches:
        loss, gradients = _loss_and_gradients(spec, weights, x, y)
        losses.append(loss)
        weights = [w - learning_rate * g for w, g in zip(weights, gradients, strict=True)]
    return weights, losses


def reference_loss(spec: ModelSpec, parameters, x, y) -> float:
    """Mean loss, float64."""
    return _loss_and_gradients(spec, [p.astype(np.float64) for p in parameters], x, y)[0]


def _loss_and_gradients(spec, weights, x, y):
    activations, pre = [x], []
    for layer, (kernel, bias) in zip(spec.layers, _pairs(weights), strict=True):
        inputs = activations[-1]
        z = inputs @ kernel + bias if isinstance(layer, Dense) else _bag(inputs) @ kernel + bias
        pre.append(z)
        linear = isinstance(layer, Dense) and layer.activation == "none"
        activations.append(z if linear else np.maximum(z, 0))
    z = pre[-1]
    loss = np.mean(np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z))))
    gradient = (1 / (1 + np.exp(-z)) - y) / len(x)
    gradients = []
    for index in range(len(spec.layers) - 1, -1, -1):
        layer, (kernel, _) = spec.layers[index], _pairs(weights)[index]
        inputs = activations[index] if isinstance(layer, Dense) else _bag(x)
        gradients[:0] = [inputs.T @ gradient, gradient.sum(axis=0)]
        if index:
            gradient = (gradient @ kernel.T) * (pre[index - 1] > 0)
    return float(loss), gradients


def _pairs(weights):
    return list(zip(weights[::2], weights[1::2], strict=True))


def _bag(ids):
    """Each record as a dense row: how often each bucket is in it, over the root of its length."""
    rows = np.zeros((len(ids), 1024))
    for row, record in zip(rows, ids, strict=True):
        used = record[record >= 0]
        np.add.at(row, used, 1.0 / max(len(used), 1) ** 0.5)
    return rows
