"""The manifest beside every ``model.tflite``: what a device must know to train it."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal, Self

from device_runtime.errors import FlintError


class InvalidManifest(FlintError):
    """The manifest of a model artefact is not readable or does not fit its model file."""

    code = "FLN-1401"


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """Name and shape of one trainable float32 array.

    Attributes:
        name: Unique within a model, e.g. ``"dense_1/kernel"``.
        shape: Dimensions, all positive.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Name, per-record shape and dtype of one model input (``"float32"`` or ``"int32"``).

    Attributes:
        padding: Value that marks an unused slot in a record, or None when there is none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int32"]
    padding: int | None = None


@dataclass(frozen=True, slots=True)
class ArtifactManifest:
    """Contents of ``manifest.json``.

    Attributes:
        model: Registered model name, e.g. ``"sparse_mlp"``.
        model_sha256: Digest of ``model.tflite``, hex.
        model_bytes: Size of ``model.tflite``.
        batch_size: Records in one call of ``train``; short batches are masked by sample weight 0.
        optimizer: Local optimiser built into the ``train`` signature.
        proximal: Whether ``train`` takes ``proximal_mu`` (FedProx).
        parameters: Trainable arrays in wire order; signature ``restore`` takes and ``parameters``
            returns them under ``tensor_names``.
        tensor_names: Argument name of each parameter in the signatures, same order.
        input: The model's one input, fed as ``x``.
        label_shape: Per-record shape of ``y``.
        loss: What ``train`` returns and descends, mean over records; over logits of ``infer``.
    """

    model: str
    model_sha256: str
    model_bytes: int
    batch_size: int
    optimizer: str
    proximal: bool
    parameters: tuple[ParameterSpec, ...]
    tensor_names: tuple[str, ...]
    input: InputSpec
    label_shape: tuple[int, ...]
    loss: Literal["binary_cross_entropy"] = "binary_cross_entropy"

    def to_json(self) -> str:
        """Serialise canonically: sorted keys, no spaces, so equal manifests have equal digests."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse ``to_json`` output.

        Raises:
            InvalidManifest: If a key is missing or of the wrong form.
        """
        try:
            raw = json.loads(text)
            return cls(
                model=str(raw["model"]),
                model_sha256=str(raw["model_sha256"]),
                model_bytes=int(raw["model_bytes"]),
                batch_size=int(raw["batch_size"]),
                optimizer=str(raw["optimizer"]),
                proximal=bool(raw["proximal"]),
                parameters=tuple(
                    ParameterSpec(str(p["name"]), tuple(int(d) for d in p["shape"]))
                    for p in raw["parameters"]
                ),
                tensor_names=tuple(str(n) for n in raw["tensor_names"]),
                input=InputSpec(
                    str(raw["input"]["name"]),
                    tuple(int(d) for d in raw["input"]["shape"]),
                    raw["input"]["dtype"],
                    raw["input"]["padding"],
                ),
                label_shape=tuple(int(d) for d in raw["label_shape"]),
                loss=raw["loss"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidManifest(
                f"manifest is not a model manifest ({type(error).__name__}: {error}); "
                "submit the job again to build it anew"
            ) from error
