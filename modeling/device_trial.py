"""A model on the device's engine, beside the same steps in its own framework."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from modeling.model_check import ModelCheck, Origin
from modeling.model_reading import Arrays
from modeling.model_sizes import sizes_of
from modeling.parity import TOLERANCE, Batch, litert_steps, random_batches
from modeling.spec import ModelSpec
from modeling.tflite import ModelArtifact, build_artifact
from modeling.user_training import LEARNING_RATE, Trainer

BATCH_SIZE = 20
PARITY_STEPS = 5
LEARNING_STEPS = 30


def try_on_device(
    origin: Origin, spec: ModelSpec, start: Arrays, frozen: Arrays, train: Trainer, seed: int
) -> ModelCheck:
    """Build a model's artefact, train it with LiteRT, and compare it with its twin.

    Args:
        start: Parameters that both begin from, in wire order.
        frozen: In the order of ``spec.frozen_parameters``.
        train: The twin's steps.
        seed: Of the random records.

    Raises:
        UnsupportedOperators: If the converter finds operators that are not built in.
        UnreadableModelFile: If a user's model fails on records of the shape that it takes.
    """
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
        learning_steps=LEARNING_STEPS,
        max_difference=float(np.max(differences)),
        tolerance=TOLERANCE,
        parity_steps=PARITY_STEPS,
    )


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


def _learn(artifact: ModelArtifact, start: Arrays, batch: Batch) -> tuple[float, float]:
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    engine.restore(start)
    losses = [engine.train_batch(*batch, LEARNING_RATE) for _ in range(LEARNING_STEPS + 1)]
    return losses[0], losses[-1]


def _largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """NaN where either is not a number."""
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
