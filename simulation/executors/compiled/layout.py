"""Where a model's parameters and a batch's values lie in the kernel's padded buffers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from modeling.spec import Dense, Embedding, HashedBag, ModelSpec
from simulation.executors.compiled.tiles import LANES, ROWS

FEATURES, BAG, EMBEDDING = 0, 1, 2
"""What a model's first layer takes: numbers, or ids that it sums or puts side by side."""

_ALIASED = 256
"""Rows a multiple of so many floats apart compete for the same few lines of a cache."""


class Layer(NamedTuple):
    """A dense layer's place: offsets and sizes in floats.

    Attributes:
        kernel: Of the padded kernel, ``(rows, columns)``.
        bias: Of the padded bias, ``(columns,)``.
        inputs: Rows that are parameters.
        outputs: Columns that are parameters.
        relu: 1 if negative outputs are cut off, else 0.
        wire: Of kernel and then bias among the parameters in wire order.
    """

    kernel: int
    bias: int
    rows: int
    columns: int
    inputs: int
    outputs: int
    relu: int
    wire: int


class Level(NamedTuple):
    """Place of the values between two layers: a matrix of ``(records, columns)``.

    Attributes:
        relu: 1 if they went through ReLU, else 0.
        width: Columns that are not padding.
    """

    offset: int
    columns: int
    relu: int
    width: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A model that the kernel can train, laid out.

    Attributes:
        first: `FEATURES`, `BAG` or `EMBEDDING`.
        layers: The dense ones.
        levels: Inputs of the first dense layer, and outputs of each.
        padded: Floats of all padded dense parameters and a bag's bias.
        table_rows: Of the first layer's table; 0 without one.
        table_width: Of a row of it.
        slots: Ids a record; 0 for features.
        bag_bias: Offset of a bag's padded bias; its place in wire order follows the table.
        capacity: Records a batch can have.
    """

    first: int
    layers: tuple[Layer, ...]
    levels: tuple[Level, ...]
    padded: int
    table_rows: int
    table_width: int
    slots: int
    bag_bias: int
    capacity: int

    @classmethod
    def of(cls, model: ModelSpec, capacity: int) -> Self:
        """Lay a model out; `why_not_compiled` says which cannot be.

        Args:
            capacity: Records a batch can have at most.
        """
        first = model.layers[0]
        table_rows = table_width = slots = 0
        kind, wire = FEATURES, 0
        if isinstance(first, HashedBag):
            kind, table_rows, table_width = BAG, first.buckets, first.outputs
            slots = model.input.shape[0]
            wire = table_rows * table_width + table_width
        elif isinstance(first, Embedding):
            kind, table_rows, table_width, slots = EMBEDDING, first.rows, first.width, first.slots
            wire = table_rows * table_width
        dense = [layer for layer in model.layers if isinstance(layer, Dense)]
        widths = [dense[0].inputs, *(layer.outputs for layer in dense)]

        records = _up(capacity, ROWS)
        levels, values = [], 0
        is_cut_off = [kind == BAG, *(layer.activation == "relu" for layer in dense)]
        for width, cut_off in zip(widths, is_cut_off, strict=True):
            levels.append(Level(values, padded_columns(width), int(cut_off), width))
            values += records * padded_columns(width)
        layers, padded = [], 0
        for layer, (inputs, outputs) in zip(dense, pairwise(widths), strict=True):
            rows, columns = _up(inputs, ROWS), padded_columns(outputs)
            bias = padded + rows * columns
            relu = int(layer.activation == "relu")
            layers.append(Layer(padded, bias, rows, columns, inputs, outputs, relu, wire))
            padded = bias + columns
            wire += inputs * outputs + outputs
        return cls(
            first=kind,
            layers=tuple(layers),
            levels=tuple(levels),
            padded=padded + levels[0].columns,
            table_rows=table_rows,
            table_width=table_width,
            slots=slots,
            bag_bias=padded,
            capacity=records,
        )

    @property
    def values(self) -> int:
        """Floats of all levels."""
        last = self.levels[-1]
        return last.offset + self.capacity * last.columns

    def unpack(self, packed: NDArray[np.float32]) -> NDArray[np.float32]:
        """The parameters after the table, in wire order; a copy."""
        parts = []
        if self.first == BAG:
            parts.append(packed[self.bag_bias : self.bag_bias + self.table_width])
        for layer in self.layers:
            kernel = packed[layer.kernel : layer.bias].reshape(layer.rows, layer.columns)
            parts.append(kernel[: layer.inputs, : layer.outputs].ravel())
            parts.append(packed[layer.bias : layer.bias + layer.outputs])
        return np.concatenate(parts)


def why_not_compiled(model: ModelSpec) -> str | None:
    """Why the kernel cannot train a model, or None if it can."""
    first, *rest = model.layers
    if isinstance(first, Embedding) and first.frozen:
        return f"{first.name} is a frozen table"
    if not isinstance(first, Dense | HashedBag | Embedding):
        return f"{first.name} is a {_kind(first.kind)}"
    for layer in rest:
        if not isinstance(layer, Dense):
            return f"{layer.name} is a {_kind(layer.kind)}"
    if not any(isinstance(layer, Dense) for layer in model.layers):
        return f"there is no dense layer after {first.name}"
    return None


def _kind(kind: str) -> str:
    return kind.replace("_", " ")


def _up(count: int, to: int) -> int:
    return -(-count // to) * to


def padded_columns(width: int) -> int:
    """Columns of a matrix in which rows of ``width`` floats are whole vectors."""
    columns = _up(width, LANES)
    return columns + LANES if columns % _ALIASED == 0 else columns
