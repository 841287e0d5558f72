"""Layers of a `ModelSpec` over views of one flat buffer: forward, and a gradient step in place.

Gradients are written out by hand, as in ``modeling.tf_models``: for batches of twenty the cost of
autograd, modules and optimisers is many times that of the arithmetic, and a gradient that goes
straight into its parameter is never stored. ``modeling.torch_models`` is what they are tested by.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from modeling.spec import (
    Dense,
    Embedding,
    FactorisedEmbedding,
    HashedBag,
    Layer,
    ModelSpec,
    TextConvolution,
)
from simulation.executors.prepared import BagBatch, Bags, Batch

_SUM = 0
_RECORDS_AT_ONCE = 64
"""Of a text convolution, whose scores by position take a hundred times an output's memory."""


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


class EmbeddingLayer:
    """`Embedding`: rows side by side; the model's first layer."""

    def __init__(self, layer: Embedding, table: Tensor) -> None:
        self.is_frozen = layer.frozen
        self._layer = layer
        self._table = table

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs, shape ``(batch, slots * width)``."""
        self._ids = inputs
        return _looked_up(self._table, inputs).flatten(1)

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """See `TrainableLayer.step`; ids have no gradient, and a frozen table does not move."""
        _refuse_gradient_of_ids(need_input)
        if not self.is_frozen:
            by_slot = gradient.view(-1, self._layer.width)
            _subtract_rows(self._table, self._ids, by_slot, rate)
        return None


class FactorisedEmbeddingLayer:
    """`FactorisedEmbedding`: rows side by side; the model's first layer."""

    def __init__(self, layer: FactorisedEmbedding, table: Tensor, projection: Tensor) -> None:
        self._layer = layer
        self._table, self._projection = table, projection

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs, shape ``(batch, slots * width)``."""
        self._ids = inputs
        self._codes = _looked_up(self._table, inputs).view(-1, self._layer.rank)
        return torch.mm(self._codes, self._projection).view(-1, self._layer.outputs)

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """See `TrainableLayer.step`; ids have no gradient."""
        _refuse_gradient_of_ids(need_input)
        by_slot = gradient.reshape(-1, self._layer.width)
        of_codes = torch.mm(by_slot, self._projection.t())
        self._projection.addmm_(self._codes.t(), by_slot, alpha=-rate)
        _subtract_rows(self._table, self._ids, of_codes, rate)
        return None


class TextConvolutionLayer:
    """`TextConvolution`: the gradient goes to the first of the positions that tie for the best.

    That is the same step as sharing it among them, since windows that tie are equal but for chance.
    """

    def __init__(self, layer: TextConvolution, parameters: Sequence[Tensor]) -> None:
        self._layer = layer
        self._kernels, self._biases = list(parameters[::2]), list(parameters[1::2])

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs, shape ``(batch, windows * filters)``."""
        self._words = inputs.view(-1, self._layer.tokens, self._layer.width)
        parts = [self._best_of(part) for part in torch.split(self._words, _RECORDS_AT_ONCE)]
        self._positions = [torch.cat(found) for found in zip(*(p for _, p in parts), strict=True)]
        self._outputs = torch.cat([best for best, _ in parts]).relu_()
        return self._outputs

    def step(self, gradient: Tensor, rate: float, *, need_input: bool) -> Tensor | None:
        """See `TrainableLayer.step`."""
        layer, words = self._layer, self._words
        gradient.mul_(self._outputs > 0)
        below = torch.zeros_like(words) if need_input else None
        by_window = torch.split(gradient, layer.filters, dim=1)
        for window, kernel, bias, positions, of_best in zip(
            layer.windows, self._kernels, self._biases, self._positions, by_window, strict=True
        ):
            columns = _windows(words, window)
            if below is not None:
                scores = torch.zeros(len(words), columns.shape[1], layer.filters)
                scores.scatter_(1, positions.unsqueeze(1), of_best.unsqueeze(1))
                of_columns = torch.mm(scores.view(-1, layer.filters), kernel.t())
                of_columns = of_columns.view(columns.shape)
                for i, of_words in enumerate(torch.split(of_columns, layer.width, dim=2)):
                    below[:, i : i + columns.shape[1]] += of_words
            # One window a record and filter has a gradient: their weighted sum is a bag.
            first = torch.arange(0, columns.shape[0] * columns.shape[1], columns.shape[1])
            bags = Bags(
                (positions + first.unsqueeze(1)).t().reshape(-1),
                torch.arange(0, positions.numel(), len(words)),
                of_best.t().reshape(-1),
            )
            kernel.t().sub_(_sums(columns.view(-1, columns.shape[2]), bags), alpha=rate)
            bias.sub_(of_best.sum(0), alpha=rate)
        return None if below is None else below.flatten(1)

    def _best_of(self, words: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Best scores before relu, ``(records, outputs)``, and their positions by window."""
        values, positions = [], []
        for window, kernel, bias in zip(
            self._layer.windows, self._kernels, self._biases, strict=True
        ):
            scores = torch.matmul(_windows(words, window), kernel)
            best, position = scores.max(dim=1)
            values.append(best.add_(bias))
            positions.append(position)
        return torch.cat(values, dim=1), positions


def build_layers(model: ModelSpec, arrays: Sequence[Tensor]) -> list[TrainableLayer]:
    """Layers over a model's parameters, in wire order; a table may hold fewer rows than declared.

    Raises:
        ValueError: If a layer other than the first looks up ids.
    """
    remaining = iter(arrays)
    frozen = iter(_frozen_tensors(model))
    layers: list[TrainableLayer] = []
    for position, layer in enumerate(model.layers):
        if position and isinstance(layer, HashedBag | Embedding | FactorisedEmbedding):
            raise ValueError(f"{layer.name} takes ids, so it must be the first layer")
        own = [next(remaining) for _ in layer.parameters]
        if isinstance(layer, Embedding) and layer.frozen:
            own = [next(frozen)]
        layers.append(_trainable(layer, own))
    return layers


def _trainable(layer: Layer, parameters: list[Tensor]) -> TrainableLayer:
    match layer:
        case Dense():
            return DenseLayer(layer, *parameters)
        case HashedBag():
            return BagLayer(*parameters)
        case Embedding():
            return EmbeddingLayer(layer, *parameters)
        case FactorisedEmbedding():
            return FactorisedEmbeddingLayer(layer, *parameters)
        case TextConvolution():
            return TextConvolutionLayer(layer, parameters)


@lru_cache(maxsize=4)
def _frozen_tensors(model: ModelSpec) -> tuple[Tensor, ...]:
    """A model's frozen arrays, drawn once a process; nothing writes to them."""
    return tuple(map(torch.from_numpy, model.frozen_arrays()))


def forward(layers: Sequence[TrainableLayer], inputs: Batch) -> Tensor:
    """Logits, shape ``(batch, *label_shape)``."""
    outputs = layers[0].forward(inputs)
    for layer in layers[1:]:
        outputs = layer.forward(outputs)
    return outputs


def descend(
    layers: Sequence[TrainableLayer], inputs: Batch, labels: Tensor, learning_rate: float
) -> Tensor:
    """One step of SGD on the mean binary cross-entropy of a batch, parameters changed in place.

    A record's cross-entropy is the sum over its tasks.

    Returns:
        Sum of the records' cross-entropies before the step.
    """
    logits = forward(layers, inputs)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    gradient = logits.sigmoid_().sub_(labels)
    rate = learning_rate / len(labels)
    first = layers[0]
    lowest = 1 if isinstance(first, EmbeddingLayer) and first.is_frozen else 0
    for position in range(len(layers) - 1, lowest - 1, -1):
        below = layers[position].step(gradient, rate, need_input=position > lowest)
        if below is not None:
            gradient = below
    return loss


def _refuse_gradient_of_ids(wanted: bool) -> None:
    if wanted:
        raise ValueError("ids have no gradient, so no layer can come before those that take them")


def _looked_up(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of the ids, shape ``(batch, slots, columns of the table)``; zeros for -1."""
    rows = torch.nn.functional.embedding(ids.clamp(min=0), table)
    return rows.mul_((ids >= 0).unsqueeze(2))


def _subtract_rows(table: Tensor, ids: Tensor, row_gradient: Tensor, rate: float) -> None:
    """Subtract ``rate`` times the gradient, ``(batch * slots, columns)``, where ids are used."""
    used = (ids >= 0).view(-1)
    table.index_add_(0, ids.view(-1)[used], row_gradient[used], alpha=-rate)


def _windows(words: Tensor, window: int) -> Tensor:
    """Neighbouring words side by side, shape ``(records, positions, window * width)``."""
    positions = words.shape[1] - window + 1
    return torch.cat([words[:, i : i + positions] for i in range(window)], dim=2)


def _sums(table: Tensor, bags: Bags) -> Tensor:
    """Shape ``(bags, columns of the table)``; an empty bag is 0."""
    return torch.embedding_bag(table, bags.rows, bags.first, False, _SUM, False, bags.weight)[0]
