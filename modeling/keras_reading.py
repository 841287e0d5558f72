"""A user's Keras model (Sequential or functional), read layer by layer."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling import model_reading as reading
from modeling.model_reading import INPUT, Arrays, ReadModel, UnsupportedLayer, Value, unsupported
from modeling.quiet_tensorflow import tf


def read_keras(name: str, model: "tf.keras.Model") -> ReadModel:
    """Read a model of layers that devices can train.

    Args:
        name: Of the spec.

    Raises:
        UnsupportedLayer: If there is another layer; names it and what to use instead.
    """
    functional = getattr(model, "_functional", None) or model
    if not isinstance(functional, tf.keras.Model) or not hasattr(functional, "_nodes_by_depth"):
        raise UnsupportedLayer(
            f"{name}: its layers cannot be followed; make it a keras.Sequential with an Input, "
            "or a functional model"
        )
    if len(functional.inputs) != 1 or len(functional.outputs) != 1:
        raise UnsupportedLayer(
            f"{name}: it has several inputs or outputs; give all features as one input and the "
            "logits of all tasks as one output"
        )
    values: dict[int, Value] = {id(functional.inputs[0]): INPUT}
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if node.is_input:
                continue
            inputs = [values[id(tensor)] for tensor in node.input_tensors]
            value = _value(node.operation, inputs, node.input_tensors)
            values.update((id(tensor), value) for tensor in node.outputs)
    return reading.read_model(name, values[id(functional.outputs[0])])


def _value(layer: Any, inputs: list[Value], tensors: list[Any]) -> Value:  # noqa: ANN401 - Keras has no types
    layers, where = tf.keras.layers, layer.name
    if isinstance(layer, layers.Concatenate):
        return reading.side_by_side(inputs, where)
    (value,) = inputs
    match layer:
        case layers.Dense():
            shape = tuple(layer.kernel.shape)
            found = _activated(reading.dense(value, where, shape, _kernel_and_bias(layer)), layer)
        case layers.Embedding():
            found = _embedding(value, layer, int(tensors[0].shape[1]))
        case layers.Conv1D():
            found = _convolution(value, layer)
        case layers.GlobalMaxPooling1D():
            found = reading.maximum(value, where)
        case layers.Flatten():
            found = reading.flatten(value, where)
        case layers.ReLU() | layers.Activation():
            found = _activated(value, layer)
        case _:
            raise unsupported(where, type(layer).__name__)
    return found


def _embedding(value: Value, layer: Any, slots: int) -> Value:  # noqa: ANN401 - as above
    if layer.mask_zero:
        raise unsupported(
            layer.name,
            "an Embedding with mask_zero",
            "leave it out: devices mark an unused slot with id -1, which gives zeros",
        )
    return reading.embedding(
        value,
        layer.name,
        lambda: _array(layer.embeddings),
        slots,
        frozen=not layer.trainable,
    )


def _convolution(value: Value, layer: Any) -> Value:  # noqa: ANN401 - as above
    plain = (layer.strides, layer.dilation_rate, layer.groups) == ((1,), (1,), 1)
    if not plain or layer.padding != "valid" or layer.data_format != "channels_last":
        raise unsupported(
            layer.name,
            "a Conv1D with strides, padding, dilation or groups",
            "leave them at their defaults",
        )
    read = reading.convolution(
        value,
        layer.name,
        layer.kernel_size[0],
        layer.filters,
        _kernel_and_bias(layer),
        along_last=False,
    )
    return _activated(read, layer)


def _kernel_and_bias(layer: Any) -> Callable[[], Arrays]:  # noqa: ANN401 - as above
    kind = type(layer).__name__
    if not layer.use_bias:
        raise unsupported(layer.name, f"a {kind} without bias", "leave use_bias=True")
    if not layer.trainable:
        raise unsupported(layer.name, f"a frozen {kind}", "only an Embedding can be frozen")

    def arrays() -> Arrays:
        kernel = _array(layer.kernel)
        return [kernel.reshape(-1, kernel.shape[-1]), _array(layer.bias)]

    return arrays


def _activated(value: Value, layer: Any) -> Value:  # noqa: ANN401 - as above
    if isinstance(layer, tf.keras.layers.ReLU):
        plain = (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0.0, 0.0)
        name = "relu" if plain else "a capped or leaky ReLU"
    else:
        name = layer.activation.__name__
    if name == "linear":
        return value
    if name != "relu":
        raise unsupported(layer.name, name)
    return reading.relu(value, layer.name)


def _array(variable: Any) -> NDArray[np.float32]:  # noqa: ANN401 - as above
    return np.array(variable.numpy(), np.float32)
