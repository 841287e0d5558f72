"""From a torch or Keras model to a `ModelSpec`: which layers say what, and what is refused.

Each framework's reader (`modeling.torch_reading`, `modeling.keras_reading`) walks its model and
calls one function here an operation; values that flow between layers are known by their `Form`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.manifest import InputSpec
from modeling.spec import Dense, Embedding, Layer, ModelSpec, TextConvolution

Arrays = list[NDArray[np.float32]]


class UnsupportedLayer(FlintError):
    """A user's model has a layer or operation that devices cannot train."""

    code = "FLN-1505"


_STANDARDISE = "leave it out and standardise the inputs; `flint dataset add` does so"
_CONVOLVE = "use convolutions over the tokens (Embedding, Conv1d of several widths, maximum)"

REPLACEMENTS: Mapping[str, str] = {
    "batchnorm": _STANDARDISE,
    "layernorm": _STANDARDISE,
    "groupnorm": _STANDARDISE,
    "normalization": _STANDARDISE,
    "dropout": "leave it out; a device takes few steps on its own records",
    "sigmoid": "use relu between layers, and end with logits: the loss applies the sigmoid",
    "softmax": "end with logits: the loss applies the sigmoid",
    "tanh": "use relu",
    "gelu": "use relu",
    "elu": "use relu",
    "silu": "use relu",
    "hardswish": "use relu",
    "embeddingbag": "use Embedding and flatten, or the registered model sparse_mlp",
    "lstm": _CONVOLVE,
    "gru": _CONVOLVE,
    "rnn": _CONVOLVE,
    "attention": _CONVOLVE,
    "transformer": _CONVOLVE,
    "conv2d": "compute image features beforehand and give them as inputs to dense layers",
    "maxpool": "take the maximum over all positions",
    "avgpool": "take the maximum over all positions",
    "averagepool": "take the maximum over all positions",
    "mean": "take the maximum over all positions",
    "sequential": "put its layers into the model itself",
    "functional": "put its layers into the model itself",
}
"""What to use instead, by a part of the operation's name in lower case."""

SUPPORTED = (
    "dense layers with relu or no activation, one Embedding of the input, and Conv1d over its "
    "tokens with relu and the maximum over positions"
)


def unsupported(where: str, operation: str, instead: str | None = None) -> UnsupportedLayer:
    """The sentence about one operation.

    Args:
        where: The layer's name in the user's model.
        operation: E.g. ``"BatchNorm1d"``.
        instead: What to do; None looks the operation up.
    """
    if instead is None:
        name = operation.lower().replace("_", "")
        known = (mend for part, mend in REPLACEMENTS.items() if part in name)
        instead = next(known, f"use {SUPPORTED}")
    return UnsupportedLayer(f"layer {where}: devices cannot train {operation}; {instead}")


class Form(Enum):
    """What a value between two layers is, a record; the batch comes first in all of them."""

    INPUT = "the input"
    FLAT = "numbers"
    WORDS = "an embedding, (tokens, width)"
    CHANNELS = "an embedding turned round, (width, tokens)"
    SCORES = "a convolution's scores by position"
    POOLED = "maxima over positions"


@dataclass(frozen=True, slots=True)
class _Branch:
    """One convolution of several that are put side by side; arrays are kernel and bias."""

    window: int
    filters: int
    has_relu: bool
    arrays: Callable[[], Arrays]


@dataclass(frozen=True, slots=True, eq=False)
class _ReadLayer:
    """A layer, and its trained arrays as they are now, in wire order."""

    layer: Layer
    arrays: Callable[[], Arrays]
    frozen: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """What a model computes up to some point."""

    form: Form
    layers: tuple[_ReadLayer, ...] = ()
    branches: tuple[_Branch, ...] = ()


INPUT = Value(Form.INPUT)


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A user's model as a spec.

    Attributes:
        parameters: Its trained arrays as they are now, in wire order.
        frozen: In the order of ``spec.frozen_parameters``.
    """

    spec: ModelSpec
    parameters: Callable[[], Arrays]
    frozen: Arrays


def dense(value: Value, where: str, shape: tuple[int, int], arrays: Callable[[], Arrays]) -> Value:
    """A dense layer without activation; arrays are its kernel, of this shape, and its bias."""
    below = _flat(value, where, "a dense layer")
    read = _ReadLayer(Dense(layer_name(where), *shape, "none"), arrays)
    return Value(Form.FLAT, (*below.layers, read))


def relu(value: Value, where: str) -> Value:
    """Relu of a dense layer's or a convolution's outputs."""
    if value.form in {Form.SCORES, Form.POOLED}:
        return replace(value, branches=tuple(replace(b, has_relu=True) for b in value.branches))
    last = value.layers[-1] if value.form is Form.FLAT else None
    if last is None or not isinstance(last.layer, Dense):
        raise unsupported(
            where, f"relu of {value.form.value}", "apply it to a dense layer or a convolution"
        )
    activated = replace(last, layer=replace(last.layer, activation="relu"))
    return replace(value, layers=(*value.layers[:-1], activated))


def embedding(
    value: Value, where: str, table: Callable[[], NDArray[np.float32]], slots: int, *, frozen: bool
) -> Value:
    """A table that the input's ids are looked up in."""
    if value.form is not Form.INPUT:
        raise unsupported(where, f"an embedding of {value.form.value}", "look up the input's ids")
    rows, width = table().shape
    layer = Embedding(layer_name(where), rows, width, slots, frozen)
    read = _ReadLayer(layer, lambda: [] if frozen else [table()], table() if frozen else None)
    return Value(Form.WORDS, (read,))


def turn_round(value: Value, where: str) -> Value:
    """Swap tokens and width, as torch's convolutions want it."""
    if value.form is not Form.WORDS:
        raise unsupported(where, f"a transposition of {value.form.value}", "transpose embeddings")
    return replace(value, form=Form.CHANNELS)


def flatten(value: Value, where: str) -> Value:
    """One row of numbers a record."""
    if value.form in {Form.WORDS, Form.FLAT}:
        return replace(value, form=Form.FLAT)
    if value.form is Form.INPUT or value.form is Form.POOLED:
        return value
    raise unsupported(where, f"flattening {value.form.value}", "take the maximum over positions")


def convolution(
    value: Value,
    where: str,
    window: int,
    filters: int,
    arrays: Callable[[], Arrays],
    *,
    along_last: bool,
) -> Value:
    """A convolution along the tokens.

    Args:
        arrays: Kernel ``(window * width, filters)``, and bias.
        along_last: Whether the framework convolves along the last axis, as torch does, rather than
            the one before it.
    """
    if value.form is not (Form.CHANNELS if along_last else Form.WORDS):
        turned = ", turned round with transpose(1, 2)" if along_last else ""
        raise unsupported(
            where,
            f"a convolution of {value.form.value}",
            f"convolve the embedding of the input{turned}",
        )
    return Value(Form.SCORES, value.layers, (_Branch(window, filters, False, arrays),))


def maximum(value: Value, where: str) -> Value:
    """The maximum over positions of a convolution's scores."""
    if value.form is not Form.SCORES:
        raise unsupported(
            where, f"a maximum of {value.form.value}", "take it over a convolution's positions"
        )
    return replace(value, form=Form.POOLED)


def side_by_side(values: Sequence[Value], where: str) -> Value:
    """Maxima of several convolutions of one embedding, concatenated."""
    first = values[0]
    if any(v.form is not Form.POOLED or v.layers != first.layers for v in values):
        raise unsupported(
            where, "a concatenation", "concatenate only convolutions' maxima, of one embedding"
        )
    return replace(first, branches=tuple(branch for v in values for branch in v.branches))


def read_model(name: str, value: Value) -> ReadModel:
    """The spec of a whole model, from the value it returns.

    Raises:
        UnsupportedLayer: If that is not the logits of a dense layer.
    """
    last = value.layers[-1].layer if value.form is Form.FLAT else None
    if not isinstance(last, Dense) or last.activation != "none":
        raise UnsupportedLayer(
            f"{name}: it does not give logits; end with a dense layer without activation, since "
            "the loss applies the sigmoid"
        )
    layers = [read.layer for read in value.layers]
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise unsupported(twice, "a layer used twice", "give each place a layer of its own")
    first = layers[0]
    model_input = (
        InputSpec("ids", (first.slots,), "int32")
        if isinstance(first, Embedding)
        else InputSpec("features", (_as_dense(first).inputs,), "float32")
    )
    tasks = tuple(f"task_{task}" for task in range(last.outputs)) if last.outputs > 1 else ()
    spec = ModelSpec(
        name=name,
        layers=tuple(layers),
        input=model_input,
        label_shape=(last.outputs,),
        loss="binary_cross_entropy",
        metric="auprc",
        tasks=tasks,
    )
    reads = value.layers
    return ReadModel(
        spec,
        lambda: [array for read in reads for array in read.arrays()],
        [read.frozen for read in reads if read.frozen is not None],
    )


def layer_name(where: str) -> str:
    """A layer's name in a spec, from its name in the user's model.

    >>> layer_name("encoder.0"), layer_name("0")
    ('encoder_0', 'layer_0')
    """
    name = re.sub(r"\W", "_", where)
    return name if name[:1].isalpha() else f"layer_{name}"


def _flat(value: Value, where: str, what: str) -> Value:
    """The value as rows of numbers; maxima become the text convolution they are."""
    if value.form is Form.POOLED:
        return _text_convolution(value, where)
    if value.form in {Form.INPUT, Form.FLAT}:
        return value
    raise unsupported(where, f"{what} over {value.form.value}", "flatten it first")


def _text_convolution(value: Value, where: str) -> Value:
    (words,) = value.layers
    table = words.layer
    branches = value.branches
    windows = tuple(branch.window for branch in branches)
    if not all(branch.has_relu for branch in branches):
        raise unsupported(where, "a convolution without relu", "apply relu to its scores")
    if len({branch.filters for branch in branches}) > 1:
        raise unsupported(where, "convolutions of unequal width", "give all as many filters")
    if len(set(windows)) < len(windows):
        raise unsupported(where, "two convolutions of one width", "join them into one")
    if not isinstance(table, Embedding) or max(windows) > table.slots:
        raise unsupported(where, "a convolution wider than the text", "make its window smaller")
    layer = TextConvolution("convolution", table.slots, table.width, windows, branches[0].filters)
    read = _ReadLayer(layer, lambda: [array for branch in branches for array in branch.arrays()])
    return Value(Form.FLAT, (words, read))


def _as_dense(layer: Layer) -> Dense:
    if not isinstance(layer, Dense):
        raise TypeError(f"a model cannot begin with {layer.kind}")
    return layer
