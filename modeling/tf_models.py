"""TensorFlow twin of a `ModelSpec`: forward pass and hand-written gradients, builtin ops only.

TensorFlow's own gradients do not convert to TFLite's builtin ops (``ReluGrad`` and sparse variable
updates have no builtin form), and phones run builtin ops only. So every layer says its backward
pass itself; `modeling.parity` proves it equal to torch's autograd.
"""

from collections.abc import Sequence
from typing import Protocol

from modeling.quiet_tensorflow import tf
from modeling.spec import (
    Dense,
    Embedding,
    FactorisedEmbedding,
    HashedBag,
    Layer,
    ModelSpec,
    TextConvolution,
)


class LayerTwin(Protocol):
    """One layer applied to one batch; `backward` uses what `forward` saw."""

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """Outputs, shape ``(batch, outputs)``."""
        ...

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of the layer's parameters, in wire order."""
        ...

    def input_gradient(self) -> tf.Tensor:
        """Gradient of the inputs, after `backward`; only asked of layers that have one below."""
        ...


class DenseTwin:
    """`Dense` on one batch."""

    def __init__(self, layer: Dense, kernel: tf.Tensor, bias: tf.Tensor) -> None:
        self._relu = layer.activation == "relu"
        self._kernel = kernel
        self._bias = bias

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """``activation(inputs @ kernel + bias)``, shape ``(batch, outputs)``."""
        self._inputs = inputs
        self._before_relu = tf.matmul(inputs, self._kernel) + self._bias
        return tf.nn.relu(self._before_relu) if self._relu else self._before_relu

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of kernel and bias."""
        if self._relu:
            output_gradient *= _is_positive(self._before_relu)
        self._gradient = output_gradient
        kernel_gradient = tf.matmul(self._inputs, output_gradient, transpose_a=True)
        return [kernel_gradient, tf.reduce_sum(output_gradient, axis=0)]

    def input_gradient(self) -> tf.Tensor:
        """Gradient of the inputs, shape ``(batch, inputs)``."""
        return tf.matmul(self._gradient, self._kernel, transpose_b=True)


class HashedBagTwin:
    """`HashedBag` on one batch; a padded slot has weight 0 in both directions."""

    def __init__(self, table: tf.Tensor, bias: tf.Tensor) -> None:
        self._table = table
        self._bias = bias

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """``relu(sum of rows / sqrt(count) + bias)``, shape ``(batch, outputs)``."""
        used = tf.cast(inputs >= 0, tf.float32)
        count = tf.reduce_sum(used, axis=1, keepdims=True)
        slot_weight = used * tf.math.rsqrt(tf.maximum(count, 1.0))
        # Padding reads row 0, with weight 0: gathering row -1 is an error in TFLite.
        self._rows = tf.maximum(inputs, 0)
        self._slot_weight = tf.expand_dims(slot_weight, axis=2)
        gathered = tf.gather(self._table, self._rows)
        pooled = tf.reduce_sum(gathered * self._slot_weight, axis=1)
        self._before_relu = pooled + self._bias
        return tf.nn.relu(self._before_relu)

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of table and bias; ``scatter_nd`` adds up what one row gets from many slots.

        Per batch of 20 on one core it is level with a matmul by the batch's multi-hot matrix where
        XNNPACK accelerates that (0.4 ms), and eight times faster where it does not.
        """
        output_gradient *= _is_positive(self._before_relu)
        slot_gradient = self._slot_weight * tf.expand_dims(output_gradient, axis=1)
        table_gradient = _row_sums(self._rows, slot_gradient, self._table.shape)
        return [table_gradient, tf.reduce_sum(output_gradient, axis=0)]

    def input_gradient(self) -> tf.Tensor:
        """Bucket ids have no gradient.

        Raises:
            TypeError: Always; a hashed bag can only be a model's first layer.
        """
        raise _reads_ids("a HashedBag")


class EmbeddingTwin:
    """`Embedding` on one batch; an unused slot has weight 0 in both directions."""

    def __init__(self, layer: Embedding, table: tf.Tensor) -> None:
        self._layer = layer
        self._table = table

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """Rows side by side, shape ``(batch, slots * width)``."""
        self._rows, self._used, looked_up = _look_up(self._table, inputs)
        return tf.reshape(looked_up, [-1, self._layer.outputs])

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradient of the table; none of a frozen one."""
        if self._layer.frozen:
            return []
        by_slot = tf.reshape(output_gradient, [-1, self._layer.slots, self._layer.width])
        return [_row_sums(self._rows, by_slot * self._used, self._table.shape)]

    def input_gradient(self) -> tf.Tensor:
        """Ids have no gradient.

        Raises:
            TypeError: Always; an embedding can only be a model's first layer.
        """
        raise _reads_ids("an Embedding")


class FactorisedEmbeddingTwin:
    """`FactorisedEmbedding` on one batch; an unused slot has weight 0 in both directions."""

    def __init__(self, layer: FactorisedEmbedding, table: tf.Tensor, projection: tf.Tensor) -> None:
        self._layer = layer
        self._table = table
        self._projection = projection

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """Rows side by side, shape ``(batch, slots * width)``."""
        self._rows, self._used, looked_up = _look_up(self._table, inputs)
        self._looked_up = tf.reshape(looked_up, [-1, self._layer.rank])
        return tf.reshape(tf.matmul(self._looked_up, self._projection), [-1, self._layer.outputs])

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of table and projection."""
        layer = self._layer
        gradient = tf.reshape(output_gradient, [-1, layer.width])
        projection_gradient = tf.matmul(self._looked_up, gradient, transpose_a=True)
        row_gradient = tf.matmul(gradient, self._projection, transpose_b=True)
        by_slot = tf.reshape(row_gradient, [-1, layer.slots, layer.rank]) * self._used
        return [_row_sums(self._rows, by_slot, self._table.shape), projection_gradient]

    def input_gradient(self) -> tf.Tensor:
        """Ids have no gradient.

        Raises:
            TypeError: Always; an embedding can only be a model's first layer.
        """
        raise _reads_ids("a FactorisedEmbedding")


class TextConvolutionTwin:
    """`TextConvolution` on one batch: windows laid out side by side and one matmul a width.

    TensorFlow's convolution and pooling are out of the question: their gradients
    (``Conv2DBackpropFilter``, ``MaxPoolGrad``) have no builtin form.
    """

    def __init__(self, layer: TextConvolution, parameters: Sequence[tf.Tensor]) -> None:
        self._layer = layer
        self._kernels = list(parameters[::2])
        self._biases = list(parameters[1::2])

    def forward(self, inputs: tf.Tensor) -> tf.Tensor:
        """``relu(max over positions)``, shape ``(batch, windows * filters)``."""
        layer = self._layer
        words = tf.reshape(inputs, [-1, layer.tokens, layer.width])
        self._columns: list[tf.Tensor] = []
        self._scores: list[tf.Tensor] = []
        self._best: list[tf.Tensor] = []
        for window, kernel, bias in zip(layer.windows, self._kernels, self._biases, strict=True):
            positions = layer.tokens - window + 1
            shifted = [words[:, i : i + positions, :] for i in range(window)]
            columns = tf.reshape(tf.concat(shifted, axis=2), [-1, window * layer.width])
            scores = tf.reshape(tf.matmul(columns, kernel) + bias, [-1, positions, layer.filters])
            self._columns.append(columns)
            self._scores.append(scores)
            self._best.append(tf.reduce_max(scores, axis=1, keepdims=True))
        pooled = tf.concat(self._best, axis=2)
        return tf.nn.relu(tf.reshape(pooled, [-1, layer.outputs]))

    def backward(self, output_gradient: tf.Tensor) -> list[tf.Tensor]:
        """Gradients of each width's kernel and bias.

        Positions that tie for the maximum (windows of padding alone do) share its gradient.
        """
        filters = self._layer.filters
        gradients: list[tf.Tensor] = []
        self._score_gradients: list[tf.Tensor] = []
        for index, (columns, scores, best) in enumerate(
            zip(self._columns, self._scores, self._best, strict=True)
        ):
            of_width = output_gradient[:, index * filters : (index + 1) * filters]
            of_best = tf.expand_dims(of_width, axis=1) * _is_positive(best)
            is_best = tf.cast(scores >= best, tf.float32)
            share = is_best / tf.reduce_sum(is_best, axis=1, keepdims=True)
            score_gradient = tf.reshape(share * of_best, [-1, filters])
            self._score_gradients.append(score_gradient)
            gradients.append(tf.matmul(columns, score_gradient, transpose_a=True))
            gradients.append(tf.reduce_sum(of_best, axis=[0, 1]))
        return gradients

    def input_gradient(self) -> tf.Tensor:
        """Gradient of the inputs, shape ``(batch, tokens * width)``."""
        layer = self._layer
        total = None
        for window, kernel, score_gradient in zip(
            layer.windows, self._kernels, self._score_gradients, strict=True
        ):
            positions = layer.tokens - window + 1
            column_gradient = tf.reshape(
                tf.matmul(score_gradient, kernel, transpose_b=True),
                [-1, positions, window * layer.width],
            )
            for i in range(window):
                of_word = column_gradient[:, :, i * layer.width : (i + 1) * layer.width]
                placed = tf.pad(of_word, [[0, 0], [i, window - 1 - i], [0, 0]])
                total = placed if total is None else total + placed
        return tf.reshape(total, [-1, layer.tokens * layer.width])


def infer_logits(
    spec: ModelSpec,
    parameters: Sequence[tf.Tensor],
    inputs: tf.Tensor,
    frozen: Sequence[tf.Tensor] = (),
) -> tf.Tensor:
    """Logits of one batch, shape ``(batch, *label_shape)``.

    Args:
        parameters: In wire order.
        inputs: Shape ``(batch, *spec.input.shape)``.
        frozen: In the order of ``spec.frozen_parameters``.
    """
    outputs = inputs
    for twin in _layer_twins(spec, parameters, frozen):
        outputs = twin.forward(outputs)
    return outputs


def loss_and_gradients(
    spec: ModelSpec,
    parameters: Sequence[tf.Tensor],
    inputs: tf.Tensor,
    labels: tf.Tensor,
    sample_weight: tf.Tensor,
    *,
    scale: tf.Tensor,
    frozen: Sequence[tf.Tensor] = (),
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Mean loss ``sum(w l) / sum(w)`` of one batch, and ``scale`` times its gradients.

    The scale enters where the gradient is smallest, at the logits, which spares a pass over every
    parameter's gradient.

    Args:
        parameters: In wire order.
        inputs: Shape ``(batch, *spec.input.shape)``.
        labels: Shape ``(batch, *label_shape)``; a record's loss is the sum over its tasks.
        sample_weight: Shape ``(batch,)``; 0 masks a record. All 0 gives loss 0 and gradients 0.
        scale: Scalar, e.g. the learning rate.
        frozen: In the order of ``spec.frozen_parameters``.

    Returns:
        The scalar loss, and one gradient a parameter in wire order.
    """
    twins = _layer_twins(spec, parameters, frozen)
    outputs = inputs
    for twin in twins:
        outputs = twin.forward(outputs)
    loss, output_gradient = _weighted_cross_entropy(outputs, labels, sample_weight, scale)
    gradients: list[tf.Tensor] = []
    for position, twin in reversed(list(enumerate(twins))):
        gradients[:0] = twin.backward(output_gradient)
        if not any(layer.parameters for layer in spec.layers[:position]):
            break
        output_gradient = twin.input_gradient()
    return loss, gradients


def _layer_twins(
    spec: ModelSpec, parameters: Sequence[tf.Tensor], frozen: Sequence[tf.Tensor]
) -> list[LayerTwin]:
    trained, constant = iter(parameters), iter(frozen)
    twins = []
    for layer in spec.layers:
        own = [next(trained) for _ in layer.parameters]
        if isinstance(layer, Embedding) and layer.frozen:
            own = [next(constant)]
        twins.append(_twin_of(layer, own))
    return twins


def _twin_of(layer: Layer, parameters: list[tf.Tensor]) -> LayerTwin:
    match layer:
        case Dense():
            return DenseTwin(layer, *parameters)
        case HashedBag():
            return HashedBagTwin(*parameters)
        case Embedding():
            return EmbeddingTwin(layer, *parameters)
        case FactorisedEmbedding():
            return FactorisedEmbeddingTwin(layer, *parameters)
        case TextConvolution():
            return TextConvolutionTwin(layer, parameters)


def _look_up(table: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Rows read, 1.0 for each used slot, and what stands there, ``(batch, slots, columns)``."""
    used = tf.expand_dims(tf.cast(ids >= 0, tf.float32), axis=2)
    rows = tf.maximum(ids, 0)
    return rows, used, tf.gather(table, rows) * used


def _row_sums(rows: tf.Tensor, slot_gradient: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """Gradient of a table: what its rows get from all slots that read them, added up."""
    updates = tf.reshape(slot_gradient, [-1, shape[1]])
    return tf.scatter_nd(tf.reshape(rows, [-1, 1]), updates, list(shape))


def _reads_ids(layer: str) -> TypeError:
    return TypeError(f"{layer} reads ids, so no layer can come before it")


def _weighted_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, sample_weight: tf.Tensor, scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean over records of their summed cross-entropies, and ``scale`` times its gradient."""
    weight = tf.expand_dims(sample_weight, axis=1)
    total = tf.reduce_sum(weight)
    per_weight = 1.0 / (total + tf.cast(total <= 0.0, tf.float32))
    # max(z, 0) - z y + log(1 + exp(-|z|)): no overflow at any logit.
    losses = (
        tf.nn.relu(logits) - logits * labels + tf.math.log(1.0 + tf.math.exp(-tf.math.abs(logits)))
    )
    gradient = (tf.math.sigmoid(logits) - labels) * weight * (per_weight * scale)
    return tf.reduce_sum(losses * weight) * per_weight, gradient


def _is_positive(values: tf.Tensor) -> tf.Tensor:
    """1.0 where positive, else 0.0: the derivative of relu (0 at 0, as torch has it)."""
    return tf.cast(values > 0.0, tf.float32)
