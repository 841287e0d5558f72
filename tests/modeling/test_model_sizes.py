import pytest

from modeling.model_sizes import size_class


@pytest.mark.parametrize(
    ("megabytes", "accepted"),
    [
        (0.057, "third-party SDK"),
        (0.85, "third-party SDK"),
        (7.52, "first-party app"),
        (10.79, "too large"),
    ],
)
def test_flints_models_fall_into_its_classes(megabytes, accepted):
    assert size_class(round(megabytes * 1e6)) == accepted
