"""Whether devices can train a model: it converts, learns, and takes the steps of its framework.

TensorFlow is imported once a model has been read, so a model that cannot be is refused at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modeling.model_file import UserModel, load_model_file
from modeling.model_sizes import ModelSizes
from modeling.spec import ModelSpec
from modeling.zoo import MODELS, get_model

Origin = Literal["registered", "torch", "keras"]


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """What was found.

    Attributes:
        origin: Where the model is from, whose own training is the twin.
        operators: Builtin operators of the artefact, by name; others make the conversion fail.
        custom_operators: Operators that are not built in: none, or phones cannot run it.
        first_loss: On one random batch, before the first step.
        last_loss: After ``learning_steps`` steps on it.
        max_difference: Largest difference of any parameter, or of a step's loss, between device
            and twin after ``parity_steps`` steps from the same start on the same batches.
        tolerance: The largest that still counts as equal.
    """

    origin: Origin
    spec: ModelSpec
    sizes: ModelSizes
    operators: tuple[str, ...]
    custom_operators: tuple[str, ...]
    first_loss: float
    last_loss: float
    learning_steps: int
    max_difference: float
    tolerance: float
    parity_steps: int

    @property
    def trains(self) -> bool:
        """Whether the loss goes down."""
        return self.last_loss < self.first_loss

    @property
    def matches_twin(self) -> bool:
        """Whether device and twin are equal to within the tolerance."""
        return self.max_difference <= self.tolerance

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
        return _check_registered(get_model(path_or_name), seed)
    return _check_user_model(load_model_file(Path(path_or_name)), seed)


def _check_registered(spec: ModelSpec, seed: int) -> ModelCheck:
    from modeling.device_trial import try_on_device
    from modeling.user_training import twin_trainer

    start = spec.initial_parameters(seed)
    train = twin_trainer(spec, start)
    return try_on_device("registered", spec, start, spec.frozen_arrays(), train, seed)


def _check_user_model(user: UserModel, seed: int) -> ModelCheck:
    if user.framework == "torch":
        from modeling.torch_reading import read_torch

        read = read_torch(user.name, user.model, user.input_shape)
    else:
        from modeling.keras_reading import read_keras

        read = read_keras(user.name, user.model)
    from modeling.device_trial import try_on_device
    from modeling.user_training import keras_trainer, torch_trainer

    train = (torch_trainer if user.framework == "torch" else keras_trainer)(user.model, read)
    return try_on_device(user.framework, read.spec, read.parameters(), read.frozen, train, seed)


def _is_path(text: str) -> bool:
    return text.endswith(".py") or "/" in text or Path(text).exists()
