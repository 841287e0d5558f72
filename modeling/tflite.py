"""Model artefacts: ``model.tflite`` that trains on the device, and the manifest beside it.

Signatures, all on a fixed batch of ``manifest.batch_size`` records, float32 unless the input is
int32:

* ``train(x, y, sample_weight, learning_rate[, proximal_mu]) -> loss``: one SGD step. The loss is
  that before the step, without the proximal term. ``sample_weight``, shape ``(batch,)``, is 1 for
  a record and 0 for an unused place of a short batch; loss and gradient are means over it.
* ``infer(x) -> logits``, shape ``(batch, *label_shape)``.
* ``parameters() -> {tensor_names}``.
* ``restore(**{tensor_names})``: sets the parameters and, in a proximal artefact, the reference
  they are pulled back to: the task's global model (FedProx, Li et al., MLSys 2020).
* ``resume(**{tensor_names})``, proximal artefacts only: sets the parameters and leaves the
  reference. A task set aside goes on with ``restore(base)``, then ``resume(local)``.

Equal arguments give equal bytes on one TensorFlow version, whatever the process built before, so
an artefact built twice has one digest.
"""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.manifest import ArtifactManifest
from modeling.quiet_tensorflow import ConverterError, tf
from modeling.spec import ModelSpec
from modeling.training_signatures import TrainableModel, tensor_names

OPTIMIZERS = ("sgd",)
"""Local optimisers that can be built into ``train``."""


class UnsupportedOperators(FlintError):
    """The model needs operators that TFLite on a phone does not have."""

    code = "FLN-1502"


class UnsupportedTraining(FlintError):
    """An artefact was asked for with an optimiser or batch size that cannot be built."""

    code = "FLN-1503"


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """What the model store keeps and devices fetch.

    Attributes:
        model_bytes: Contents of ``model.tflite``.
        manifest: Contents of ``manifest.json``; names the digest of ``model_bytes``.
    """

    model_bytes: bytes
    manifest: ArtifactManifest


def build_artifact(
    spec: ModelSpec,
    *,
    batch_size: int,
    optimizer: str = "sgd",
    proximal: bool = False,
    initial_parameters: Sequence[NDArray[np.float32]] | None = None,
    frozen: Sequence[NDArray[np.float32]] | None = None,
) -> ModelArtifact:
    """Convert a model into an artefact that devices can train; takes about a second.

    Args:
        batch_size: Records in one call of ``train`` or ``infer``.
        optimizer: One of `OPTIMIZERS`.
        proximal: Whether ``train`` takes ``proximal_mu``.
        initial_parameters: Weights inside the file, in wire order; None means zeros, because a
            task restores its base version anyway. Give a version's to export it for inference.
        frozen: Arrays that are never trained, e.g. word vectors, in the order of
            ``spec.frozen_parameters``; None means ``spec.frozen_arrays()``.

    Raises:
        UnsupportedTraining: If optimiser or batch size cannot be built.
        UnsupportedOperators: If the model needs other than builtin operators; names them.
    """
    if optimizer not in OPTIMIZERS:
        raise UnsupportedTraining(
            f"optimizer {optimizer!r} cannot be built into an artefact; "
            f"choose {' or '.join(OPTIMIZERS)}"
        )
    if batch_size < 1:
        raise UnsupportedTraining(f"batch_size is {batch_size}; set at least 1 record")
    if initial_parameters is None:
        initial_parameters = [np.zeros(p.shape, np.float32) for p in spec.parameters]
    model = TrainableModel(
        spec,
        batch_size=batch_size,
        proximal=proximal,
        initial_parameters=initial_parameters,
        frozen=spec.frozen_arrays() if frozen is None else frozen,
    )
    model_bytes = convert(spec.name, model.module, model.signatures())
    manifest = ArtifactManifest(
        model=spec.name,
        model_sha256=hashlib.sha256(model_bytes).hexdigest(),
        model_bytes=len(model_bytes),
        batch_size=batch_size,
        optimizer=optimizer,
        proximal=proximal,
        parameters=spec.parameters,
        tensor_names=tensor_names(spec),
        input=spec.input,
        label_shape=spec.label_shape,
        loss=spec.loss,
    )
    return ModelArtifact(model_bytes, manifest)


def convert(model: str, module: tf.Module, signatures: dict[str, Any]) -> bytes:
    """Convert a module to TFLite, builtin operators only.

    Args:
        model: Name for the error message.
        module: Holds the variables that the signatures use.
        signatures: Concrete functions by signature name.

    Raises:
        UnsupportedOperators: If an operator has no builtin form; names all of them.
    """
    with tempfile.TemporaryDirectory(prefix="flint-convert-") as directory:
        tf.saved_model.save(module, directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.experimental_enable_resource_variables = True
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return bytes(converter.convert())
        except ConverterError as error:
            refused = {item.operator.name.removeprefix("tf.") for item in error.errors} - {""}
            if not refused:
                raise
            raise _unsupported(model, refused) from error


def _unsupported(model: str, operators: Iterable[str]) -> UnsupportedOperators:
    return UnsupportedOperators(
        f"{model} needs operators that TFLite does not have built in: "
        f"{', '.join(sorted(operators))}; write that layer's gradient by hand with builtin ones, "
        "as modeling/tf_models.py does"
    )
