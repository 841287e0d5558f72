"""TensorFlow twin of a `ModelSpec`: forward pass and hand-written gradients, builtin ops only.

TensorFlow's own gradients do not convert to TFLite's builtin ops (``ReluGrad`` and sparse variable
updates have no builtin form), and phones run builtin ops only. So every layer says its backward
pass itself; `modeling.parity` proves it equal to torch's autograd.
"""

from collections.abc import Sequence
from typing import Protocol

from modeling.quiet_tensorflow import tf
from modeling.spec import Dense, HashedBag, ModelSpec


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

    def __init__(self, layer: HashedBag, table: tf.Tensor, bias: tf.Tensor) -> None:
        self._layer = layer
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
        table_gradient = tf.scatter_nd(
            tf.reshape(self._rows, [-1, 1]),
            tf.reshape(slot_gradient, [-1, self._layer.outputs]),
            [self._layer.buckets, self._layer.outputs],
        )
        return [table_gradient, tf.reduce_sum(output_gradient, axis=0)]

    def input_gradient(self) -> tf.Tensor:
        """Bucket ids have no gradient.

        Raises:
            TypeError: Always; a hashed bag can only be a model's first layer.
        """
        raise TypeError("a HashedBag reads bucket ids, so no layer can come before it")


def infer_logits(spec: ModelSpec, parameters: Sequence[tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """Logits of one batch, shape ``(batch, 1)``.

    Args:
        parameters: In wire order.
        inputs: Shape ``(batch, *spec.input.shape)``.
    """
    outputs = inputs
    for twin in _layer_twins(spec, parameters):
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
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Mean loss ``sum(w l) / sum(w)`` of one batch, and ``scale`` times its gradients.

    The scale enters where the gradient is smallest, at the logits, which spares a pass over every
    parameter's gradient.

    Args:
        parameters: In wire order.
        inputs: Shape ``(batch, *spec.input.shape)``.
        labels: Shape ``(batch, 1)``.
        sample_weight: Shape ``(batch,)``; 0 masks a record. All 0 gives loss 0 and gradients 0.
        scale: Scalar, e.g. the learning rate.

    Returns:
        The scalar loss, and one gradient a parameter in wire order.
    """
    twins = _layer_twins(spec, parameters)
    outputs = inputs
    for twin in twins:
        outputs = twin.forward(outputs)
    loss, output_gradient = _weighted_cross_entropy(outputs, labels, sample_weight, scale)
    gradients: list[tf.Tensor] = []
    for position, twin in reversed(list(enumerate(twins))):
        gradients[:0] = twin.backward(output_gradient)
        if position > 0:
            output_gradient = twin.input_gradient()
    return loss, gradients


def _layer_twins(spec: ModelSpec, parameters: Sequence[tf.Tensor]) -> list[LayerTwin]:
    remaining = list(parameters)
    twins: list[LayerTwin] = []
    for layer in spec.layers:
        weights, bias = remaining.pop(0), remaining.pop(0)
        if isinstance(layer, HashedBag):
            twins.append(HashedBagTwin(layer, weights, bias))
        else:
            twins.append(DenseTwin(layer, weights, bias))
    return twins


def _weighted_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor, sample_weight: tf.Tensor, scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean binary cross-entropy, and ``scale`` times its gradient, shape ``(batch, 1)``."""
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
