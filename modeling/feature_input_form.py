"""What a model reads of the features of a service."""

from device_runtime.feature_inputs import InputForm, UnsuitableFeatures
from modeling.spec import HashedBag, ModelSpec, TextConvolution


def input_form(model: ModelSpec, seed: int) -> InputForm:
    """What a model reads of features.

    Args:
        seed: Of the feature hash.

    Raises:
        UnsuitableFeatures: If it reads the words of a text in order, which no feature is.
    """
    (places,) = model.input.shape
    if model.ids is None:
        return InputForm("numbers", places, seed=seed)
    if isinstance(model.layers[0], HashedBag):
        return InputForm("bag", places, model.ids, seed)
    if isinstance(model.layers[1], TextConvolution):
        raise UnsuitableFeatures(
            f"{model.name} reads the words of a text in order, and a feature service gives values; "
            "choose another model, or train it on a data set with a text field"
        )
    return InputForm("fields", places, model.ids, seed)
