"""Proof that the torch twin and the LiteRT artefact of a model take the same steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from modeling.spec import ModelSpec
from modeling.tflite import ModelArtifact, build_artifact
from modeling.torch_models import (
    TorchModel,
    build_torch,
    dump_parameters,
    load_parameters,
    weighted_loss,
)

Batch = tuple[NDArray[Any], NDArray[np.float32]]

TOLERANCE = 1e-5
"""Largest difference of any parameter after ten steps that still counts as equal in float32."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How far the two twins are apart after the same steps from the same start.

    Attributes:
        steps: Steps taken; the last one on a short, masked batch.
        max_difference: Largest absolute difference by parameter name.
        max_loss_difference: Largest absolute difference of any step's loss.
        moved: Largest absolute change of any parameter from the start, to show there was training.
    """

    model: str
    steps: int
    max_difference: dict[str, float]
    max_loss_difference: float
    moved: float

    @property
    def equal(self) -> bool:
        """Whether every difference is within `TOLERANCE`."""
        differences = [*self.max_difference.values(), self.max_loss_difference]
        return self.moved > 0 and all(difference <= TOLERANCE for difference in differences)


def check_parity(
    spec: ModelSpec,
    steps: int = 10,
    *,
    batch_size: int = 20,
    learning_rate: float = 0.1,
    proximal_mu: float | None = None,
    seed: int = 0,
    artifact: ModelArtifact | None = None,
) -> ParityReport:
    """Train both twins from one start on the same random batches and compare them.

    Args:
        proximal_mu: Checks the proximal artefact with this strength; None the plain one.
        seed: Of start and batches.
        artifact: To check; None builds one.
    """
    if artifact is None:
        artifact = build_artifact(spec, batch_size=batch_size, proximal=proximal_mu is not None)
    batches = list(random_batches(spec, steps, batch_size=batch_size, seed=seed))
    start = spec.initial_parameters(seed)
    litert, litert_losses = litert_steps(
        artifact, start, batches, learning_rate=learning_rate, proximal_mu=proximal_mu or 0.0
    )
    reference, torch_losses = torch_steps(
        spec, start, batches, learning_rate=learning_rate, proximal_mu=proximal_mu or 0.0
    )
    return ParityReport(
        model=spec.name,
        steps=steps,
        max_difference={
            parameter.name: _largest_difference(ours, theirs)
            for parameter, ours, theirs in zip(spec.parameters, litert, reference, strict=True)
        },
        max_loss_difference=_largest_difference(np.array(litert_losses), np.array(torch_losses)),
        moved=max(map(_largest_difference, reference, start)),
    )


def random_batches(spec: ModelSpec, steps: int, *, batch_size: int, seed: int) -> Iterator[Batch]:
    """Draw records a model takes: ids in 0 to all slots, with repeats, or normal features.

    The last batch is short by a third, so masking is part of what is compared.
    """
    generator = np.random.Generator(np.random.Philox(seed + 1))
    for step in range(steps):
        count = max(1, batch_size * 2 // 3) if step == steps - 1 else batch_size
        shape = (count, *spec.input.shape)
        if spec.ids is not None:
            x = generator.integers(0, spec.ids, shape, np.int32)
            if spec.input.padding is not None:
                used = generator.integers(0, spec.input.shape[0] + 1, (count, 1))
                x[np.arange(spec.input.shape[0]) >= used] = spec.input.padding
        else:
            x = generator.standard_normal(shape, np.float32)
        labels = generator.random((count, *spec.label_shape)) < 0.3
        yield x, labels.astype(np.float32)


def litert_steps(
    artifact: ModelArtifact,
    start: Sequence[NDArray[np.float32]],
    batches: Sequence[Batch],
    *,
    learning_rate: float,
    proximal_mu: float = 0.0,
) -> tuple[list[NDArray[np.float32]], list[float]]:
    """Train as a device does; parameters after the last step, and each step's loss before it."""
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    engine.restore(start)
    losses = [engine.train_batch(x, y, learning_rate, proximal_mu) for x, y in batches]
    return engine.parameters(), losses


def torch_steps(
    spec: ModelSpec,
    start: Sequence[NDArray[np.float32]],
    batches: Sequence[Batch],
    *,
    learning_rate: float,
    proximal_mu: float = 0.0,
) -> tuple[list[NDArray[np.float32]], list[float]]:
    """Train with autograd on the batches as they are, unpadded; see `litert_steps`."""
    model = build_torch(spec)
    load_parameters(model, start)
    base = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    losses = []
    for x, y in batches:
        loss = weighted_loss(model(torch.from_numpy(x)), torch.from_numpy(y), torch.ones(len(x)))
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss + proximal_mu / 2 * _squared_distance(model, base)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return dump_parameters(model), losses


def _squared_distance(model: TorchModel, base: Sequence[torch.Tensor]) -> torch.Tensor:
    distances = [
        (parameter - start).square().sum()
        for parameter, start in zip(model.parameters(), base, strict=True)
    ]
    return torch.stack(distances).sum()


def _largest_difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    return float(np.max(np.abs(ours.astype(np.float64) - theirs.astype(np.float64))))
