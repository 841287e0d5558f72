"""Evaluation of a dry-run's versions: on held-out clients, and on each group of clients."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_catalog.record_files import Rows
from modeling.metrics import METRICS
from modeling.spec import ModelSpec
from simulation.executors.records import ClientRecords
from simulation.executors.training import binary_cross_entropy, logits_of, one_thread, prepare

_BATCH = 4096
GROUP_RECORDS = 100_000
"""Records that `metric_by_group` takes of a group, about."""


class TorchEvaluation:
    """A version's metrics on held-out records, as `CentralEvaluation` has them from an artefact.

    On one thread, so that a metric is the same to the bit on machines of any number of cores. What
    the records alone determine is prepared once, since a run measures many versions on them.
    """

    def __init__(
        self,
        model: ModelSpec,
        inputs: NDArray[Any],
        labels: NDArray[np.float32],
        metric: str,
    ) -> None:
        """Prepare.

        Args:
            inputs: Records of held-out clients, shape ``(records, *input shape)``.
            labels: Shape ``(records, *label shape)``.
            metric: Name in `modeling.metrics`.
        """
        self._model = model
        self._labels = labels
        self._metric = METRICS[metric]
        starts = range(0, len(inputs), _BATCH)
        self._batches = [prepare(model, inputs[start : start + _BATCH]) for start in starts]

    def __call__(self, weights: NDArray[np.float32]) -> Mapping[str, float]:
        """Metrics of the model with these weights: ``metric`` and ``loss``.

        Args:
            weights: Flat in wire order, shape ``(parameters,)``.
        """
        with one_thread():
            tensor = torch.tensor(weights)
            found = [logits_of(self._model, tensor, batch) for batch in self._batches]
        logits = np.concatenate(found)
        loss = binary_cross_entropy(logits, self._labels) / len(logits)
        return {"metric": self._metric(self._labels, logits), "loss": loss}


def metric_by_group(
    model: ModelSpec,
    weights: NDArray[np.float32],
    records: ClientRecords,
    data_client: NDArray[np.int64],
    group: Sequence[str],
    metric: str,
    *,
    max_records: int = GROUP_RECORDS,
    seed: int = 0,
) -> dict[str, float | None]:
    """How well a model serves each group of clients, such as device tiers (FedScale, Fig. 13).

    The metric is that of all training records of a group's clients together. Of a group with more
    than ``max_records`` of them, clients are drawn at random until there are as many; a client is
    taken with all its records or not at all.

    Args:
        weights: Flat in wire order, shape ``(parameters,)``.
        data_client: Whose records each simulated client holds, shape ``(clients,)``.
        group: Of each simulated client.
        metric: Name in `modeling.metrics`.
        seed: Of the draw.

    Returns:
        By group, in order of name. None where the records have one class only: a ranking of them
        says nothing.
    """
    groups = np.asarray(group)
    found: dict[str, float | None] = {}
    with one_thread():
        tensor = torch.tensor(weights)
        for name in sorted(set(group)):
            of_group = data_client[groups == name]
            clients = _up_to(max_records, of_group, records.records, seed)
            labels, logits = [], []
            for x, y in _batches(records, clients):
                labels.append(y)
                logits.append(logits_of(model, tensor, prepare(model, x)))
            truth = np.concatenate(labels) if labels else np.empty((0, 1), np.float32)
            if len(np.unique(truth)) < 2:
                found[name] = None
            else:
                found[name] = METRICS[metric](truth, np.concatenate(logits))
    return found


def _up_to(
    max_records: int, clients: NDArray[np.int64], records: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """All clients, or as many drawn at random as it takes to have ``max_records`` records."""
    if records[clients].sum() <= max_records:
        return clients
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(clients)
    enough = np.searchsorted(np.cumsum(records[drawn]), max_records)
    return drawn[: int(enough) + 1]


def _batches(records: ClientRecords, clients: NDArray[np.int64]) -> Iterator[Rows]:
    """The clients' records, some thousands at a time."""
    held: list[Rows] = []
    for client in clients.tolist():
        held.append(records.of(client))
        if sum(len(y) for _, y in held) >= _BATCH:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(held: Sequence[Rows]) -> Rows:
    return np.concatenate([x for x, _ in held]), np.concatenate([y for _, y in held])
