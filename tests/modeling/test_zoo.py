import numpy as np
import pytest

from modeling.spec import ModelSpec
from modeling.zoo import MODELS, UnknownModel, get_model


def test_models_have_the_parameter_counts_of_flints_table_5():
    assert get_model("tiny_mlp").parameter_count == 1_513
    assert get_model("sparse_mlp").parameter_count == 188_141


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_a_spec_survives_json(spec):
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("spec", MODELS.values(), ids=MODELS)
def test_initial_parameters_depend_on_the_seed_alone(spec):
    first, again, other = (spec.initial_parameters(seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert [array.shape for array in first] == [p.shape for p in spec.parameters]


def test_an_unknown_model_is_named_with_the_near_match_and_the_registered_ones():
    with pytest.raises(UnknownModel, match=r"did you mean tiny_mlp.*tiny_mlp, sparse_mlp.*1501"):
        get_model("tiny_mpl")
