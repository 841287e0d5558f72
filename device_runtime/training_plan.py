"""What one task asks of a device, and the order in which its records are seen."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.compression import UnknownCodec, UpdateCodec
from device_runtime.errors import FlintError
from device_runtime.manifest import ArtifactManifest
from device_runtime.protocol import device_pb2 as pb


class UnsuitablePlan(FlintError):
    """A task's plan does not fit the artefact it comes with."""

    code = "FLN-1412"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """`TrainingPlan` of ``device.proto``.

    Attributes:
        max_records: Newest local records to train on, at most.
        proximal_mu: Strength of FedProx's proximal term; 0 leaves it out.
        shuffle_seed: See `epoch_order`.
        codec: How the update is encoded; None is plain float32.
    """

    local_epochs: int
    batch_size: int
    max_records: int
    learning_rate: float
    proximal_mu: float
    shuffle_seed: int
    codec: UpdateCodec | None = None

    @classmethod
    def from_message(cls, message: pb.TrainingPlan) -> Self:
        """The plan a leased task carries.

        Raises:
            UnsuitablePlan: If it asks for an update codec this runtime does not have.
        """
        return cls(
            local_epochs=message.local_epochs,
            batch_size=message.batch_size,
            max_records=message.max_records,
            learning_rate=message.learning_rate,
            proximal_mu=message.proximal_mu,
            shuffle_seed=message.shuffle_seed,
            codec=_codec(message),
        )

    def check(self, manifest: ArtifactManifest) -> None:
        """Refuse a plan made for another artefact.

        Raises:
            UnsuitablePlan: If batch size or proximal term are not what the artefact has built in.
        """
        if self.batch_size != manifest.batch_size:
            raise UnsuitablePlan(
                f"the task's batch size is {self.batch_size}, its artefact was built for "
                f"{manifest.batch_size}; submit the job again to build one that fits"
            )
        if self.proximal_mu and not manifest.proximal:
            raise UnsuitablePlan(
                f"the task asks for a proximal term ({self.proximal_mu}), which its artefact does "
                "not have; submit the job again to build one that does"
            )


def _codec(message: pb.TrainingPlan) -> UpdateCodec | None:
    if not message.HasField("codec"):
        return None
    try:
        return UpdateCodec.from_message(message.codec)
    except UnknownCodec as error:
        raise UnsuitablePlan(
            f"the task asks for an update encoding this device cannot make ({error}); update the "
            "app, or train without client.compression"
        ) from error


def epoch_order(count: int, shuffle_seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of ``count`` records in one epoch: a permutation of ``0 .. count - 1``.

    Drawn by ``numpy.random.Generator(Philox(key=(shuffle_seed, epoch))).permutation``: counter
    based, so any epoch's order is known without those before it, and the same on every machine.

    Args:
        count: Records, at least 0.
        shuffle_seed: Of the task, 64 bits.
        epoch: From 0.

    Returns:
        Record indices, shape ``(count,)``.
    """
    key = np.array([shuffle_seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)
