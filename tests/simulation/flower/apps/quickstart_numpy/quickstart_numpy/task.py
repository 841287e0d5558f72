"""The model and the data: nothing is downloaded, every partition has its own records."""

import numpy as np

FEATURES = 8
TRUTH = np.linspace(-1.0, 1.0, FEATURES)


def load_data(partition_id: int):
    """Between 5 and 24 records of a partition, with noise."""
    rng = np.random.default_rng(partition_id)
    features = rng.normal(size=(5 + partition_id % 20, FEATURES))
    return features, features @ TRUTH + 0.1 * rng.normal(size=len(features))


def train(weights, features, labels, epochs: int, learning_rate: float, shuffle: bool):
    """Gradient steps on batches of 4, shuffled by the global generator."""
    for _ in range(epochs):
        order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
        for batch in np.array_split(order, max(1, len(order) // 4)):
            error = features[batch] @ weights - labels[batch]
            weights = weights - learning_rate * features[batch].T @ error / len(batch)
    return weights, loss(weights, features, labels)


def loss(weights, features, labels) -> float:
    """Mean squared error."""
    return float(np.mean((features @ weights - labels) ** 2))


def accuracy(weights, features, labels) -> float:
    """Share of signs that are right."""
    return float(np.mean(np.sign(features @ weights) == np.sign(labels)))
