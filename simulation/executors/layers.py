"""Layers of a `ModelSpec` over views of one flat buffer: forward, and a gradient step in place.

Gradients are written out by hand, as in ``modeling.tf_models``: for batches of twenty the cost of
autograd, modules and optimisers is many times that of the arithmetic, and a gradient that goes
straight into its parameter is never stored. ``modeling.torch_models`` is what they are tested by.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.spec import Dense, HashedBag, ModelSpec
from simulation.executors.prepared import BagBatch, Bags, Batch

_SUM = 0


class TrainableLayer(Protocol):
    """One layer; `step` uses what the last `forward` saw."""

    def forward(self, inputs: Any) -> Tensor:  # noqa: ANN401 - a layer's own kind of input
        """Outputs, shape ``(batch, outputs)``."""
        ...

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """Subtract ``rate`` times the parameters' gradients.

        Args:
            gradient: Of the outputs, shape ``(batch, outputs)``; it may be changed in place.
            need_input: Whether the gradient of the inputs is wanted.

        Returns:
            Gradient of the inputs, at the parameters before the step, if wanted.
        """
        ...


class DenseLayer:
    """`Dense`: ``activation(inputs @ kernel + bias)``."""

    def __init__(self, layer: Dense, kernel: Tensor, bias: Tensor) -> None:
        self._relu = layer.activation == "relu"
        self._kernel, self._bias = kernel, bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs, shape ``(batch, outputs)``."""
        self._inputs = inputs
        outputs = torch.addmm(self._bias, inputs, self._kernel)
        self._outputs = outputs.relu_() if self._relu else outputs
        return self._outputs

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """See `TrainableLayer.step`."""
        if self._relu:
            gradient.mul_(self._outputs > 0)
        below = torch.mm(gradient, self._kernel.t()) if need_input else None
        self._kernel.addmm_(self._inputs.t(), gradient, alpha=-rate)
        self._bias.sub_(gradient.sum(0), alpha=rate)
        return below


class BagLayer:
    """`HashedBag`: ``relu(sum of rows / sqrt(count) + bias)``, the model's first layer."""

    def __init__(self, table: Tensor, bias: Tensor) -> None:
        self._table, self._bias = table, bias

    def forward(self, inputs: BagBatch) -> Tensor:
        """Outputs, shape ``(batch, outputs)``."""
        self._inputs = inputs
        pooled = _sums(self._table, inputs.records)
        self._outputs = pooled.add_(self._bias).relu_()
        return self._outputs

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """See `TrainableLayer.step`; ids have no gradient."""
        touched = self._inputs.touched
        if touched is None or need_input:
            raise ValueError("these records were prepared for evaluation, not for training")
        gradient.mul_(self._outputs > 0)
        row_gradient = _sums(gradient, touched.uses)
        if len(row_gradient) == len(self._table):
            self._table.sub_(row_gradient, alpha=rate)
        else:
            self._table.index_add_(0, touched.rows, row_gradient, alpha=-rate)
        self._bias.sub_(gradient.sum(0), alpha=rate)
        return None


def build_layers(model: ModelSpec, arrays: Sequence[Tensor]) -> list[TrainableLayer]:
    """Layers over a model's parameters, in wire order; a table may hold fewer rows than declared.

    Raises:
        ValueError: If a layer other than the first is a `HashedBag`.
    """
    layers: list[TrainableLayer] = []
    for position, layer in enumerate(model.layers):
        weights, bias = arrays[2 * position : 2 * position + 2]
        if isinstance(layer, HashedBag):
            if position:
                raise ValueError(f"{layer.name} takes ids, so it must be the first layer")
            layers.append(BagLayer(weights, bias))
        else:
            layers.append(DenseLayer(layer, weights, bias))
    return layers


def forward(layers: Sequence[TrainableLayer], inputs: Batch) -> Tensor:
    """Logits, shape ``(batch, 1)``."""
    outputs = layers[0].forward(inputs)
    for layer in layers[1:]:
        outputs = layer.forward(outputs)
    return outputs


def descend(
    layers: Sequence[TrainableLayer], inputs: Batch, labels: Tensor, learning_rate: float
) -> None:
    """One step of SGD on the mean binary cross-entropy of a batch, parameters changed in place."""
    gradient = forward(layers, inputs).sigmoid_().sub_(labels)
    rate = learning_rate / len(labels)
    for position in range(len(layers) - 1, -1, -1):
        below = layers[position].step(gradient, rate, need_input=position > 0)
        if below is not None:
            gradient = below


def _sums(table: Tensor, bags: Bags) -> Tensor:
    """Shape ``(bags, columns of the table)``; an empty bag is 0."""
    return torch.embedding_bag(table, bags.rows, bags.first, False, _SUM, False, bags.weight)[0]
