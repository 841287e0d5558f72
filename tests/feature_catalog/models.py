"""Small models for tests of the feature catalog, in the two input forms the platform knows."""

from device_runtime.manifest import InputSpec
from modeling.spec import Dense, HashedBag, ModelSpec

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
