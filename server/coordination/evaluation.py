"""Central evaluation: a version's metrics on held-out clients, by the very artefact devices run."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from device_runtime.update_codec import unflatten
from modeling.metrics import METRICS
from modeling.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class CentralEvaluation:
    """Runs ``infer`` over held-out records.

    Attributes:
        inputs: Records of held-out clients, shape ``(records, *input shape)``.
        labels: Shape ``(records, *label shape)``.
        metric: Name in `modeling.metrics`.
    """

    model: ModelSpec
    engine: LiteRtEngine
    inputs: NDArray[np.float32] | NDArray[np.int32]
    labels: NDArray[np.float32]
    metric: str

    def __call__(self, weights: NDArray[np.float32]) -> Mapping[str, float]:
        """Metrics of the model with these weights: ``metric`` and ``loss``.

        Args:
            weights: Shape ``(parameters,)``.
        """
        self.engine.restore(unflatten(self.model.parameters, weights))
        logits = self.engine.infer(self.inputs).astype(np.float64).ravel()
        labels = self.labels.astype(np.float64).ravel()
        loss = np.mean(np.logaddexp(0.0, logits) - labels * logits)
        return {"metric": METRICS[self.metric](labels, logits), "loss": float(loss)}
