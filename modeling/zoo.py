"""Registered models: what a job file's ``model`` may name."""

import difflib
from collections.abc import Mapping

from device_runtime.errors import FlintError
from device_runtime.hashing import MAX_IDS, PADDING
from device_runtime.manifest import InputSpec
from modeling.spec import Dense, Embedding, HashedBag, ModelSpec, TextConvolution


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

EMBEDDING_MLP = ModelSpec(
    name="embedding_mlp",
    layers=(
        Embedding("fields", 5_000, 32, slots=8),
        Dense("hidden_1", 8 * 32, 160, "relu"),
        Dense("hidden_2", 160, 40, "relu"),
        Dense("logit", 40, 1, "none"),
    ),
    input=InputSpec("field_ids", (8,), "int32", PADDING),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
"""Model C of FLINT's Table 5: an MLP over a medium embedding of 8 fields, 207,601 parameters."""

TEXT_CNN = ModelSpec(
    name="text_cnn",
    layers=(
        Embedding("words", 23_000, 100, slots=40, frozen=True),
        TextConvolution("convolution", 40, 100, windows=(3, 4, 5), filters=256),
        Dense("hidden", 3 * 256, 106, "relu"),
        Dense("logit", 106, 1, "none"),
    ),
    input=InputSpec("token_ids", (40,), "int32", PADDING),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
"""Model D of FLINT's Table 5: a text CNN over a large frozen table, 389,589 trained parameters.

A table of 23,000 x 100 float32 is what FLINT's 10.79 MB of storage leave room for.
"""

MULTITASK_MLP = ModelSpec(
    name="multitask_mlp",
    layers=(
        Dense("hidden_1", 512, 1_024, "relu"),
        Dense("hidden_2", 1_024, 384, "relu"),
        Dense("logits", 384, 4, "none"),
    ),
    input=InputSpec("features", (512,), "float32"),
    label_shape=(4,),
    loss="binary_cross_entropy",
    metric="auprc",
    tasks=("click", "like", "share", "long_view"),
)
"""Model E of FLINT's Table 5: an MLP with four tasks over one trunk, 920,452 parameters."""

MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec for spec in (TINY_MLP, SPARSE_MLP, EMBEDDING_MLP, TEXT_CNN, MULTITASK_MLP)
}


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
