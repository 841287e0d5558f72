"""The model, logistic regression in NumPy, and generated clicks to train it on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEATURES = 20
HELD_OUT = -1
"""Partition of the users nobody trains on."""

_BATCH = 16


@dataclass(frozen=True)
class Clicks:
    """Records of one client: inputs ``(records, FEATURES)``, labels ``(records,)`` of 0 and 1."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.float32]


def initial_parameters() -> dict[str, NDArray[np.float32]]:
    """Zero weights and bias."""
    return {"weights": np.zeros(FEATURES, np.float32), "bias": np.zeros((), np.float32)}


def generate_clicks(partition: int) -> Clicks:
    """One client's records: how many there are, and how often it clicks, differ among clients."""
    taste = np.random.default_rng(0).standard_normal(FEATURES)
    own = np.random.default_rng([1, partition + 1])
    records = 2_000 if partition == HELD_OUT else int(np.clip(own.lognormal(4.0, 0.7), 20, 500))
    inputs = own.standard_normal((records, FEATURES))
    logits = inputs @ taste + own.normal(-1.0, 0.5)
    labels = own.random(records) < 1 / (1 + np.exp(-logits))
    return Clicks(inputs.astype(np.float32), labels.astype(np.float32))


def train(
    parameters: dict[str, NDArray[np.float32]], clicks: Clicks, *, epochs: int, learning_rate: float
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Plain SGD; returns new parameters and the mean loss after training."""
    weights, bias = parameters["weights"].copy(), parameters["bias"].copy()
    for _ in range(epochs):
        for start in range(0, len(clicks.labels), _BATCH):
            x, y = clicks.inputs[start : start + _BATCH], clicks.labels[start : start + _BATCH]
            error = 1 / (1 + np.exp(-(x @ weights + bias))) - y
            weights -= learning_rate * (x.T @ error) / len(y)
            bias -= learning_rate * error.mean()
    trained = {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}
    return trained, evaluate(trained, clicks)[0]


def evaluate(parameters: dict[str, NDArray[np.float32]], clicks: Clicks) -> tuple[float, float]:
    """Mean loss and accuracy."""
    logits = clicks.inputs @ parameters["weights"] + parameters["bias"]
    loss = np.mean(np.logaddexp(0.0, logits) - clicks.labels * logits)
    return float(loss), float(np.mean((logits > 0) == clicks.labels))
