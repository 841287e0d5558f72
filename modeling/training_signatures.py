"""The functions a device calls: train, infer, parameters, restore, over variables of one model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.quiet_tensorflow import tf
from modeling.spec import ModelSpec
from modeling.tf_models import infer_logits, loss_and_gradients


def tensor_names(spec: ModelSpec) -> tuple[str, ...]:
    """Argument names of the parameters in the signatures, in wire order: no slash is allowed."""
    return tuple(parameter.name.replace("/", "_") for parameter in spec.parameters)


class TrainableModel:
    """Variables of one model, and the functions over them, on one fixed batch size.

    Attributes:
        module: Holds the variables, as saving them needs.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        batch_size: int,
        proximal: bool,
        initial_parameters: Sequence[NDArray[np.float32]],
        frozen: Sequence[NDArray[np.float32]] = (),
    ) -> None:
        """Create the variables.

        Args:
            proximal: Whether ``train`` takes ``proximal_mu``.
            initial_parameters: In wire order.
            frozen: In the order of ``spec.frozen_parameters``; constants in the file.
        """
        self._spec = spec
        self._batch_size = batch_size
        self._names = tensor_names(spec)
        named = list(zip(self._names, initial_parameters, strict=True))
        # TFLite finds a variable by its name, so names are unique in the file.
        self._parameters = [tf.Variable(array, name=name) for name, array in named]
        self._references = [
            tf.Variable(array, name=f"{name}_reference") for name, array in named if proximal
        ]
        self._frozen = [tf.constant(array) for array in frozen]
        self.module = tf.Module()
        self.module.parameters = self._parameters
        self.module.references = self._references

    def signatures(self) -> dict[str, Any]:
        """Concrete functions by signature name."""
        x = tf.TensorSpec([self._batch_size, *self._spec.input.shape], self._spec.input.dtype, "x")
        train_inputs = [
            x,
            tf.TensorSpec([self._batch_size, *self._spec.label_shape], tf.float32, "y"),
            tf.TensorSpec([self._batch_size], tf.float32, "sample_weight"),
            tf.TensorSpec([], tf.float32, "learning_rate"),
        ]
        arrays = [
            tf.TensorSpec(variable.shape, tf.float32, name)
            for variable, name in zip(self._parameters, self._names, strict=True)
        ]
        functions = {
            "train": (self._train, train_inputs),
            "infer": (self._infer, [x]),
            "parameters": (self._read, []),
            "restore": (self._restore, arrays),
        }
        if self._references:
            train_inputs.append(tf.TensorSpec([], tf.float32, "proximal_mu"))
            functions["resume"] = (self._resume, arrays)
        return {
            name: tf.function(function, input_signature=inputs).get_concrete_function()
            for name, (function, inputs) in functions.items()
        }

    def _train(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        sample_weight: tf.Tensor,
        learning_rate: tf.Tensor,
        proximal_mu: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        # Reading a variable copies it in TFLite: read each once.
        before = [variable.read_value() for variable in self._parameters]
        loss, steps = loss_and_gradients(
            self._spec, before, x, y, sample_weight, scale=learning_rate, frozen=self._frozen
        )
        if proximal_mu is not None:
            pull = learning_rate * proximal_mu
            steps = [
                step + pull * (array - reference)
                for step, array, reference in zip(steps, before, self._references, strict=True)
            ]
        for variable, array, step in zip(self._parameters, before, steps, strict=True):
            variable.assign(array - step)
        return {"loss": loss}

    def _infer(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"logits": infer_logits(self._spec, self._parameters, x, self._frozen)}

    def _read(self) -> dict[str, tf.Tensor]:
        return {
            name: tf.identity(variable)
            for name, variable in zip(self._names, self._parameters, strict=True)
        }

    def _restore(self, *arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        for reference, array in zip(self._references, arrays, strict=False):
            reference.assign(array)
        return self._resume(*arrays)

    def _resume(self, *arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        for variable, array in zip(self._parameters, arrays, strict=True):
            variable.assign(array)
        # A signature has at least one output.
        return {"restored": tf.constant(True)}
