"""LiteRT on the device: runs the signatures of a model artefact, one thread, no TensorFlow."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.examples import Records
from device_runtime.manifest import ArtifactManifest
from device_runtime.training_plan import epoch_order

__all__ = ["InvalidArtifact", "LiteRtEngine", "UnsuitableExamples", "epoch_order"]


class InvalidArtifact(FlintError):
    """A model artefact is damaged, or is not the one its manifest describes."""

    code = "FLN-1402"


class UnsuitableExamples(FlintError):
    """Local records do not have the form the model takes."""

    code = "FLN-1403"


class LiteRtEngine:
    """One model artefact, loaded: trains on batches, infers, hands parameters in and out.

    The parameters live in the interpreter. Whoever shares an engine with others (many identities in
    one process) keeps its own copy and restores it when ``holder`` is not itself any more.

    Attributes:
        holder: Who restored the parameters that are loaded now.
    """

    def __init__(self, model: bytes | Path, manifest: ArtifactManifest) -> None:
        """Load an artefact.

        Args:
            model: Contents of ``model.tflite``, or its path, which is then memory-mapped.
            manifest: What the file must be.

        Raises:
            InvalidArtifact: If file and manifest contradict each other, or LiteRT refuses the file.
        """
        if _sha256_of(model) != manifest.model_sha256:
            raise InvalidArtifact(
                f"the model file is not the one its manifest names "
                f"(SHA-256 {manifest.model_sha256[:12]}...); fetch the artefact again"
            )
        self.manifest = manifest
        self.holder: object | None = None
        try:
            self._interpreter = (
                Interpreter(model_content=model, num_threads=1)
                if isinstance(model, bytes)
                else Interpreter(model_path=str(model), num_threads=1)
            )
            self._train = self._interpreter.get_signature_runner("train")
            self._infer = self._interpreter.get_signature_runner("infer")
            self._parameters = self._interpreter.get_signature_runner("parameters")
            self._restore = self._interpreter.get_signature_runner("restore")
            self._resume = (
                self._interpreter.get_signature_runner("resume") if manifest.proximal else None
            )
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(
                f"LiteRT cannot load the artefact of {manifest.model} ({error}); "
                "submit the job again to build it anew"
            ) from error
        self._check_parameters()
        batch = manifest.batch_size
        self._unused = manifest.input.padding or 0
        self._x = np.zeros((batch, *manifest.input.shape), np.dtype(manifest.input.dtype))
        self._y = np.zeros((batch, *manifest.label_shape), np.float32)
        self._sample_weight = np.zeros(batch, np.float32)

    def restore(self, arrays: Sequence[NDArray[np.float32]], holder: object | None = None) -> None:
        """Load a task's base parameters, in wire order; the shapes must be the manifest's."""
        self._restore(**self._named(arrays))
        self.holder = holder

    def resume(
        self,
        base: Sequence[NDArray[np.float32]],
        local: Sequence[NDArray[np.float32]],
        holder: object | None = None,
    ) -> None:
        """Load the parameters of a task set aside: ``local``, if proximal pulled to ``base``."""
        if self._resume is None:
            self._restore(**self._named(local))
        else:
            self._restore(**self._named(base))
            self._resume(**self._named(local))
        self.holder = holder

    def parameters(self) -> list[NDArray[np.float32]]:
        """A copy of the parameters, in wire order."""
        tensors = self._parameters()
        return [tensors[name] for name in self.manifest.tensor_names]

    def train_batch(
        self, x: Records, y: Records, learning_rate: float, proximal_mu: float = 0.0
    ) -> float:
        """One optimiser step on at most ``batch_size`` records; a short batch is masked.

        Returns:
            Mean loss over the records, before the step.
        """
        self._fill(x, y)
        arguments = {
            "x": self._x,
            "y": self._y,
            "sample_weight": self._sample_weight,
            "learning_rate": np.float32(learning_rate),
        }
        if self.manifest.proximal:
            arguments["proximal_mu"] = np.float32(proximal_mu)
        return float(self._train(**arguments)["loss"])

    def infer(self, x: Records) -> NDArray[np.float32]:
        """Logits of any number of records, shape ``(records, *label_shape)``."""
        batch = self.manifest.batch_size
        logits = np.empty((len(x), *self.manifest.label_shape), np.float32)
        for start in range(0, len(x), batch):
            part = x[start : start + batch]
            self._x[: len(part)] = part
            self._x[len(part) :] = self._unused
            logits[start : start + batch] = self._infer(x=self._x)["logits"][: len(part)]
        return logits

    def total_loss(self, x: Records, y: Records) -> float:
        """Sum of the records' losses at the loaded parameters, in float64."""
        return binary_cross_entropy(self.infer(x), y)

    def check_examples(self, x: Records, y: Records) -> None:
        """Refuse records of another form than the model takes.

        Raises:
            UnsuitableExamples: Naming what was found and what the model takes.
        """
        taken = (self.manifest.input.dtype, self.manifest.input.shape, self.manifest.label_shape)
        found = (str(x.dtype), x.shape[1:], y.shape[1:])
        if found != taken or len(x) != len(y):
            raise UnsuitableExamples(
                f"the local records (x {found[0]}{found[1]}, y {found[2]}) are not what "
                f"{self.manifest.model} takes (x {taken[0]}{taken[1]}, y {taken[2]}); "
                "fill the example store for this model"
            )

    def _named(self, arrays: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self.manifest.tensor_names, arrays, strict=True))

    def _fill(self, x: Records, y: Records) -> None:
        count = len(x)
        self._x[:count] = x
        self._y[:count] = y
        self._sample_weight[:count] = 1
        # Weight 0 masks a record, but 0 * NaN is NaN: what others left behind goes too.
        self._x[count:] = self._unused
        self._y[count:] = 0
        self._sample_weight[count:] = 0

    def _check_parameters(self) -> None:
        found = [array.shape for array in self._parameters_or_refuse()]
        declared = [parameter.shape for parameter in self.manifest.parameters]
        if found != declared:
            raise InvalidArtifact(
                f"the artefact's parameters have shapes {found}, its manifest says {declared}; "
                "submit the job again to build it anew"
            )

    def _parameters_or_refuse(self) -> list[NDArray[np.float32]]:
        try:
            return self.parameters()
        except (KeyError, ValueError, RuntimeError) as error:
            raise InvalidArtifact(
                f"the artefact of {self.manifest.model} has no tensors "
                f"{', '.join(self.manifest.tensor_names)}; submit the job again to build it anew"
            ) from error


def binary_cross_entropy(logits: NDArray[np.float32], labels: Records) -> float:
    """Sum over records of ``max(z, 0) - z y + log(1 + exp(-|z|))``, in float64."""
    z = logits.astype(np.float64)
    return float(np.sum(np.maximum(z, 0) - z * labels + np.log1p(np.exp(-np.abs(z)))))


def _sha256_of(model: bytes | Path) -> str:
    if isinstance(model, bytes):
        return hashlib.sha256(model).hexdigest()
    with model.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
