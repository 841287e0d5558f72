"""What a model is, without any framework: layers, parameters in wire order, input, loss, metric.

Gateways, coordinators and device processes import this module; it needs numpy only.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.manifest import InputSpec, ParameterSpec


@dataclass(frozen=True, slots=True)
class Dense:
    """``y = activation(x @ kernel + bias)``; kernel ``(inputs, outputs)``, bias ``(outputs,)``."""

    name: str
    inputs: int
    outputs: int
    activation: Literal["relu", "none"]
    kind: Literal["dense"] = "dense"

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Kernel, then bias."""
        return (
            ParameterSpec(f"{self.name}/kernel", (self.inputs, self.outputs)),
            ParameterSpec(f"{self.name}/bias", (self.outputs,)),
        )


@dataclass(frozen=True, slots=True)
class HashedBag:
    """``y = relu(sum of table rows / sqrt(count) + bias)`` over a record's bucket ids.

    Ids are padded with -1, which counts for nothing; a record without ids gives ``relu(bias)``.
    """

    name: str
    buckets: int
    outputs: int
    kind: Literal["hashed_bag"] = "hashed_bag"

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Table ``(buckets, outputs)``, then bias ``(outputs,)``."""
        return (
            ParameterSpec(f"{self.name}/table", (self.buckets, self.outputs)),
            ParameterSpec(f"{self.name}/bias", (self.outputs,)),
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """A record's ids looked up in one table, their rows side by side: ``(slots * width,)``.

    An id of -1 marks an unused slot and gives zeros.

    Attributes:
        rows: Ids are below it.
        width: Numbers a row.
        slots: Ids a record.
        frozen: Whether the table is never trained. It is then part of the artefact and of no
            update, so it costs storage but no bandwidth.
    """

    name: str
    rows: int
    width: int
    slots: int
    frozen: bool = False
    kind: Literal["embedding"] = "embedding"

    @property
    def outputs(self) -> int:
        """Numbers a record."""
        return self.slots * self.width

    @property
    def table(self) -> ParameterSpec:
        """The table, trained or frozen, ``(rows, width)``."""
        return ParameterSpec(f"{self.name}/table", (self.rows, self.width))

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """The table, unless it is frozen."""
        return () if self.frozen else (self.table,)


@dataclass(frozen=True, slots=True)
class FactorisedEmbedding:
    """An `Embedding` whose table is the product of two smaller ones, ``(rows, rank)`` and so on.

    ``rows * rank + rank * width`` numbers stand for ``rows * width`` (Lan et al., ALBERT, ICLR
    2020, section 3.1).
    """

    name: str
    rows: int
    rank: int
    width: int
    slots: int
    kind: Literal["factorised_embedding"] = "factorised_embedding"

    @property
    def outputs(self) -> int:
        """Numbers a record."""
        return self.slots * self.width

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Table ``(rows, rank)``, then projection ``(rank, width)``."""
        return (
            ParameterSpec(f"{self.name}/table", (self.rows, self.rank)),
            ParameterSpec(f"{self.name}/projection", (self.rank, self.width)),
        )


@dataclass(frozen=True, slots=True)
class TextConvolution:
    """``relu(max over positions of (window @ kernel + bias))`` for windows of several widths.

    The text CNN of Kim (EMNLP 2014): inputs are ``tokens`` rows of ``width`` numbers side by side,
    as `Embedding` gives them; outputs are ``filters`` numbers for each of ``windows``.

    Attributes:
        windows: Tokens that a window spans, each at most ``tokens``.
        filters: Of each window width.
    """

    name: str
    tokens: int
    width: int
    windows: tuple[int, ...]
    filters: int
    kind: Literal["text_convolution"] = "text_convolution"

    @property
    def outputs(self) -> int:
        """Numbers a record."""
        return len(self.windows) * self.filters

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """For each window, kernel ``(window * width, filters)``, then bias ``(filters,)``."""
        return tuple(
            ParameterSpec(f"{self.name}/{part}_{window}", shape)
            for window in self.windows
            for part, shape in (
                ("kernel", (window * self.width, self.filters)),
                ("bias", (self.filters,)),
            )
        )


Layer = Dense | HashedBag | Embedding | FactorisedEmbedding | TextConvolution

_LAYERS: Mapping[str, Any] = {
    "dense": Dense,
    "hashed_bag": HashedBag,
    "embedding": Embedding,
    "factorised_embedding": FactorisedEmbedding,
    "text_convolution": TextConvolution,
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model, defined once; torch, TensorFlow and TFLite builds are made from it.

    Attributes:
        name: Registered name.
        layers: Applied in order; the last one gives the logits of a record, one a task.
        input: The model's one input.
        label_shape: Per-record shape of the label and of the logits, ``(tasks,)``.
        loss: Mean over (unmasked) records of what a record's tasks sum to.
        metric: What evaluation reports, a name in `modeling.metrics`; the mean over tasks.
        tasks: Names of the tasks of a model with several, in the order of its logits.
    """

    name: str
    layers: tuple[Layer, ...]
    input: InputSpec
    label_shape: tuple[int, ...]
    loss: Literal["binary_cross_entropy"]
    metric: Literal["auprc", "accuracy"]
    tasks: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Trainable arrays in wire order."""
        return tuple(p for layer in self.layers for p in layer.parameters)

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(p.size for p in self.parameters)

    @property
    def frozen_parameters(self) -> tuple[ParameterSpec, ...]:
        """Arrays that are part of the artefact and of no update, in the order of the layers."""
        return tuple(
            layer.table for layer in self.layers if isinstance(layer, Embedding) and layer.frozen
        )

    @property
    def ids(self) -> int | None:
        """How many ids the first layer looks up; None for a model that takes numbers."""
        first = self.layers[0]
        if isinstance(first, HashedBag):
            return first.buckets
        return first.rows if isinstance(first, Embedding | FactorisedEmbedding) else None

    def frozen_arrays(self) -> list[NDArray[np.float32]]:
        """The frozen arrays, the same in every process: normal with std 0.3, as word vectors have.

        They stand in for vectors learnt beforehand, which `modeling.tflite.build_artifact` takes.
        """
        arrays = []
        for parameter in self.frozen_parameters:
            seed = zlib.crc32(f"{self.name}/{parameter.name}".encode())
            generator = np.random.Generator(np.random.Philox(seed))
            drawn = generator.standard_normal(parameter.shape, np.float32)
            arrays.append(drawn * np.float32(0.3))
        return arrays

    def initial_parameters(self, seed: int) -> list[NDArray[np.float32]]:
        """Draw He-normal kernels and tables (std 0.05 for tables) and zero biases from ``seed``."""
        generator = np.random.Generator(np.random.Philox(seed))
        arrays = []
        for parameter in self.parameters:
            if len(parameter.shape) == 1:
                arrays.append(np.zeros(parameter.shape, np.float32))
                continue
            is_table = parameter.name.endswith("/table")
            std = 0.05 if is_table else (2.0 / parameter.shape[0]) ** 0.5
            arrays.append((generator.standard_normal(parameter.shape) * std).astype(np.float32))
        return arrays

    def to_json(self) -> str:
        """Serialise canonically, so equal specs have equal digests."""
        fields = asdict(self)
        if not self.tasks:  # specs older than tasks keep their digests
            del fields["tasks"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`; for JSON written by this package only."""
        raw = json.loads(text)
        layers: list[Layer] = []
        for layer in raw["layers"]:
            if "windows" in layer:
                layer["windows"] = tuple(layer["windows"])
            layers.append(_LAYERS[layer["kind"]](**layer))
        raw_input = raw["input"]
        return cls(
            name=raw["name"],
            layers=tuple(layers),
            input=InputSpec(
                raw_input["name"],
                tuple(raw_input["shape"]),
                raw_input["dtype"],
                raw_input["padding"],
            ),
            label_shape=tuple(raw["label_shape"]),
            loss=raw["loss"],
            metric=raw["metric"],
            tasks=tuple(raw.get("tasks", ())),
        )
