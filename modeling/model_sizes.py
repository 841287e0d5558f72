"""What a model costs a device: storage, network, and the class of app it fits into (FLINT)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from device_runtime.manifest import ArtifactManifest
from modeling.spec import ModelSpec

AppKind = Literal["third-party SDK", "first-party app"]
SizeClass = AppKind | Literal["too large"]

BELOW_BYTES: Mapping[AppKind, int] = {
    "third-party SDK": 1_000_000,
    "first-party app": 10_000_000,
}
"""What apps accept, smallest first: of a third party, and of one's own (FLINT)."""

_FLOAT_BYTES = 4


def fits(kind: AppKind, storage_bytes: int) -> bool:
    """Whether an app of this kind accepts a model file of this size.

    >>> fits("third-party SDK", 774_108), fits("first-party app", 10_798_600)
    (True, False)
    """
    return storage_bytes < BELOW_BYTES[kind]


def size_class(storage_bytes: int) -> SizeClass:
    """The most demanding kind of app that accepts a model file of this size.

    >>> size_class(999_999), size_class(1_000_000), size_class(10_000_000)
    ('third-party SDK', 'first-party app', 'too large')
    """
    fitting = (kind for kind in BELOW_BYTES if fits(kind, storage_bytes))
    return next(fitting, "too large")


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Bytes of one model; MB are 10^6 bytes, as in FLINT.

    Attributes:
        parameters: Trained scalars.
        frozen_parameters: Scalars in the artefact that no update holds.
        storage_bytes: The artefact's model file: parameters, frozen ones, training graph.
        network_bytes: Of one task: parameters down, update up, float32, without headers. The
            artefact itself is fetched once a job.
    """

    parameters: int
    frozen_parameters: int
    storage_bytes: int
    network_bytes: int

    @property
    def size_class(self) -> SizeClass:
        """See `size_class`."""
        return size_class(self.storage_bytes)


def sizes_of(spec: ModelSpec, manifest: ArtifactManifest) -> ModelSizes:
    """Sizes of a model as an artefact has it."""
    return ModelSizes(
        parameters=spec.parameter_count,
        frozen_parameters=sum(parameter.size for parameter in spec.frozen_parameters),
        storage_bytes=manifest.model_bytes,
        network_bytes=2 * _FLOAT_BYTES * spec.parameter_count,
    )


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A row of FLINT's Table 5 (Wang et al., MLSys 2023).

    Attributes:
        letter: Its name there.
        parameters: Trained scalars, to three digits.
        storage_mb: Of the model on the device.
        train_s: Mean over its 27 phones of training on 5,000 records.
        network_mb: Down and up together; None where we have not the paper's figure.
    """

    letter: str
    parameters: int
    storage_mb: float
    train_s: float
    network_mb: float | None = None


FLINT_TABLE_5: Mapping[str, PublishedModel] = {
    "tiny_mlp": PublishedModel("A", 1_510, 0.057, 4.98),
    "sparse_mlp": PublishedModel("B", 189_000, 0.76, 61.8, 1.52),
    "embedding_mlp": PublishedModel("C", 208_000, 0.85, 3.26),
    "text_cnn": PublishedModel("D", 390_000, 10.79, 70.1, 3.12),
    "multitask_mlp": PublishedModel("E", 922_000, 7.52, 238.0),
}
"""By the name of the registered model that stands for it."""
