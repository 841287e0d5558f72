"""What a model is, without any framework: layers, parameters in wire order, input, loss, metric.

Gateways, coordinators and device processes import this module; it needs numpy only.
"""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

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


Layer = Dense | HashedBag


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model, defined once; torch, TensorFlow and TFLite builds are made from it.

    Attributes:
        name: Registered name.
        layers: Applied in order; the last one gives one logit per record.
        input: The model's one input.
        label_shape: Per-record shape of the label.
        loss: Mean over (unmasked) records.
        metric: What evaluation reports, a name in `modeling.metrics`.
    """

    name: str
    layers: tuple[Layer, ...]
    input: InputSpec
    label_shape: tuple[int, ...]
    loss: Literal["binary_cross_entropy"]
    metric: Literal["auprc", "accuracy"]

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Trainable arrays in wire order."""
        return tuple(p for layer in self.layers for p in layer.parameters)

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        return sum(p.size for p in self.parameters)

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
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`; for JSON written by this package only."""
        raw = json.loads(text)
        layers: list[Layer] = []
        for layer in raw["layers"]:
            layers.append(Dense(**layer) if layer["kind"] == "dense" else HashedBag(**layer))
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
        )
