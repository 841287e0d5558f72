"""Whether devices can train a model: it converts, learns, and takes the steps of its framework."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from modeling.model_file import UserModel, load_model_file
from modeling.model_reading import Arrays
from modeling.model_sizes import ModelSizes, sizes_of
from modeling.parity import TOLERANCE, Batch, litert_steps, random_batches, torch_steps
from modeling.spec import ModelSpec
from modeling.tflite import ModelArtifact, build_artifact
from modeling.zoo import MODELS, get_model

BATCH_SIZE = 20
PARITY_STEPS = 5
LEARNING_STEPS = 30
LEARNING_RATE = 0.1

Origin = Literal["registered", "torch", "keras"]
Train = Callable[[Sequence[Batch]], tuple[Arrays, list[float]]]


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was found.

    Attributes:
        origin: Where the model is from, whose own training is the twin.
        operators: Builtin operators of the artefact, by name; others make the conversion fail.
        custom_operators: Operators that are not built in: none, or phones cannot run it.
        first_loss: On one random batch, before the first step.
        last_loss: After `LEARNING_STEPS` steps on it.
        max_difference: Largest difference of any parameter, or of a step's loss, between device
            and twin after `PARITY_STEPS` steps from the same start on the same batches.
    """

    origin: Origin
    spec: ModelSpec
    sizes: ModelSizes
    operators: tuple[str, ...]
    custom_operators: tuple[str, ...]
    first_loss: float
    last_loss: float
    max_difference: float

    @property
    def trains(self) -> bool:
        """Whether the loss goes down."""
        return self.last_loss < self.first_loss

    @property
    def matches_twin(self) -> bool:
        """Whether device and twin are equal to within `TOLERANCE`."""
        return self.max_difference <= TOLERANCE

    @property
    def is_fit(self) -> bool:
        """Whether devices can train it as it is."""
        return not self.custom_operators and self.trains and self.matches_twin


def check_model(path_or_name: str, seed: int = 0) -> ModelCheck:
    """Check a registered model, or the one a Python file defines; takes some seconds.

    Args:
        seed: Of the random records, and of a registered model's start.

    Raises:
        UnreadableModelFile: If the file cannot be run or defines no model.
        UnsupportedLayer: If devices cannot train one of its layers; says which, and the mend.
        UnknownModel: If it is the name of neither a file nor a model.
        UnsupportedOperators: If the converter finds operators that are not built in.
    """
    if path_or_name in MODELS or not _is_path(path_or_name):
        spec = get_model(path_or_name)
        start = spec.initial_parameters(seed)

        def train(batches: Sequence[Batch]) -> tuple[Arrays, list[float]]:
            return torch_steps(spec, start, batches, learning_rate=LEARNING_RATE)

        return _check("registered", spec, start, spec.frozen_arrays(), train, seed)
    return _check_user_model(load_model_file(Path(path_or_name)), seed)


def operators_of(model_bytes: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of an artefact's builtin operators, and of its custom ones."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
    model = schema.Model.GetRootAs(model_bytes, 0)
    builtin, custom = set(), set()
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        if code.CustomCode() is not None:
            custom.add(code.CustomCode().decode())
        else:
            # Codes below 127 stand in the older, narrower field.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            builtin.add(names.get(number, f"operator {number}"))
    return tuple(sorted(builtin)), tuple(sorted(custom))


def _check_user_model(user: UserModel, seed: int) -> ModelCheck:
    if user.framework == "torch":
        from modeling.torch_reading import read_torch
        from modeling.user_training import torch_trainer

        read = read_torch(user.name, user.model, user.input_shape)
        train = torch_trainer(user.model, read, LEARNING_RATE)
    else:
        from modeling.keras_reading import read_keras
        from modeling.user_training import keras_trainer

        read = read_keras(user.name, user.model)
        train = keras_trainer(user.model, read, LEARNING_RATE)
    return _check(user.framework, read.spec, read.parameters(), read.frozen, train, seed)


def _check(
    origin: Origin, spec: ModelSpec, start: Arrays, frozen: Arrays, train: Train, seed: int
) -> ModelCheck:
    batches = list(random_batches(spec, PARITY_STEPS, batch_size=BATCH_SIZE, seed=seed))
    theirs, their_losses = train(batches)
    artifact = build_artifact(spec, batch_size=BATCH_SIZE, frozen=frozen)
    builtin, custom = operators_of(artifact.model_bytes)
    first_loss, last_loss = _learn(artifact, start, batches[0])
    ours, our_losses = litert_steps(artifact, start, batches, learning_rate=LEARNING_RATE)
    differences = [
        _largest_difference(one, other)
        for one, other in zip(
            [*ours, np.array(our_losses)], [*theirs, np.array(their_losses)], strict=True
        )
    ]
    return ModelCheck(
        origin=origin,
        spec=spec,
        sizes=sizes_of(spec, artifact.manifest),
        operators=builtin,
        custom_operators=custom,
        first_loss=first_loss,
        last_loss=last_loss,
        max_difference=float(np.max(differences)),
    )


def _learn(artifact: ModelArtifact, start: Arrays, batch: Batch) -> tuple[float, float]:
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    engine.restore(start)
    losses = [engine.train_batch(*batch, LEARNING_RATE) for _ in range(LEARNING_STEPS + 1)]
    return losses[0], losses[-1]


def _largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """NaN where either is not a number."""
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))


def _is_path(text: str) -> bool:
    return text.endswith(".py") or "/" in text or Path(text).exists()
