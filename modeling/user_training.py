"""Steps of a model in its own framework: what devices are compared with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modeling.model_file import UnreadableModelFile
from modeling.model_reading import Arrays, ReadModel
from modeling.parity import Batch, torch_steps
from modeling.spec import ModelSpec
from modeling.torch_models import weighted_loss

LEARNING_RATE = 0.1

Trainer = Callable[[Sequence[Batch]], tuple[Arrays, list[float]]]


def twin_trainer(spec: ModelSpec, start: Arrays) -> Trainer:
    """SGD by autograd on a registered model's torch twin."""
    return lambda batches: torch_steps(spec, start, batches, learning_rate=LEARNING_RATE)


def torch_trainer(module: nn.Module, read: ReadModel) -> Trainer:
    """SGD by autograd on the module itself, in training mode as its author would run it."""

    def train(batches: Sequence[Batch]) -> tuple[Arrays, list[float]]:
        module.train()
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE)
        losses = []
        for x, y in batches:
            with _forward(read, x):
                logits = module(torch.from_numpy(x)).reshape(y.shape)
            loss = weighted_loss(logits, torch.from_numpy(y), torch.ones(len(x)))
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return read.parameters(), losses

    return train


def keras_trainer(model: Any, read: ReadModel) -> Trainer:  # noqa: ANN401 - Keras has no types
    """SGD by TensorFlow's gradients on the model itself."""
    from modeling.quiet_tensorflow import tf

    def train(batches: Sequence[Batch]) -> tuple[Arrays, list[float]]:
        variables = [weight.value for weight in model.trainable_weights]
        losses = []
        for x, y in batches:
            with _forward(read, x), tf.GradientTape() as tape:
                logits = tf.reshape(model(x, training=True), y.shape)
                by_task = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)
                loss = tf.reduce_mean(tf.reduce_sum(by_task, axis=1))
            losses.append(float(loss))
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(LEARNING_RATE * tf.convert_to_tensor(gradient))
        return read.parameters(), losses

    return train


@contextmanager
def _forward(read: ReadModel, x: NDArray[np.generic]) -> Iterator[None]:
    """A user's model at work: what goes wrong in it is its author's to see."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        raise UnreadableModelFile(
            f"{read.spec.name}: the model fails on {len(x)} records of {x.dtype}{x.shape[1:]} "
            f"({type(error).__name__}: {said}); make its layers, and input_shape if you gave it, "
            "fit each other"
        ) from error
