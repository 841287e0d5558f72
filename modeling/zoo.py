"""Registered models: what a job file's ``model`` may name."""

import difflib
from collections.abc import Mapping

from device_runtime.errors import FlintError
from device_runtime.hashing import MAX_IDS, PADDING
from device_runtime.manifest import InputSpec
from modeling.spec import Dense, HashedBag, ModelSpec


class UnknownModel(FlintError):
    """A name no registered model has."""

    code = "FLN-1501"


TINY_MLP = ModelSpec(
    name="tiny_mlp",
    layers=(Dense("hidden", 40, 36, "relu"), Dense("logit", 36, 1, "none")),
    input=InputSpec("features", (40,), "float32"),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
"""Model A of FLINT's Table 5: a small MLP over dense features, 1,513 parameters."""

SPARSE_MLP = ModelSpec(
    name="sparse_mlp",
    layers=(
        HashedBag("bag", 1024, 180),
        Dense("hidden", 180, 20, "relu"),
        Dense("logit", 20, 1, "none"),
    ),
    input=InputSpec("bucket_ids", (MAX_IDS,), "int32", PADDING),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
"""Model B of FLINT's Table 5: an MLP over hashed sparse features, 188,141 parameters."""

MODELS: Mapping[str, ModelSpec] = {spec.name: spec for spec in (TINY_MLP, SPARSE_MLP)}


def get_model(name: str) -> ModelSpec:
    """Look up a registered model.

    Raises:
        UnknownModel: If there is none of this name; says which there are.
    """
    spec = MODELS.get(name)
    if spec is None:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownModel(
            f"{name!r} is not a registered model{hint}; registered are {', '.join(MODELS)}"
        )
    return spec
