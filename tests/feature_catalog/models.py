"""Small models for tests of the feature catalog, in every input form the platform knows."""

from device_runtime.manifest import InputSpec
from modeling.spec import Dense, Embedding, HashedBag, ModelSpec, TextConvolution

BAG_MODEL = ModelSpec(
    name="bag_model",
    layers=(HashedBag("bag", 128, 4), Dense("out", 4, 1, "none")),
    input=InputSpec("ids", (8,), "int32", padding=-1),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)

DENSE_MODEL = ModelSpec(
    name="dense_model",
    layers=(Dense("hidden", 2, 3, "relu"), Dense("out", 3, 1, "none")),
    input=InputSpec("x", (2,), "float32"),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="accuracy",
)

FIELD_MODEL = ModelSpec(
    name="field_model",
    layers=(Embedding("fields", 128, 4, slots=3), Dense("out", 12, 1, "none")),
    input=InputSpec("ids", (3,), "int32", padding=-1),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)

WORD_MODEL = ModelSpec(
    name="word_model",
    layers=(
        Embedding("words", 128, 4, slots=5),
        TextConvolution("convolution", 5, 4, windows=(2,), filters=3),
        Dense("out", 3, 1, "none"),
    ),
    input=InputSpec("ids", (5,), "int32", padding=-1),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
