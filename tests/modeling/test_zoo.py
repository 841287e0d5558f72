import hashlib

import numpy as np
import pytest

from modeling.model_sizes import FLINT_TABLE_5
from modeling.spec import ModelSpec
from modeling.zoo import MODELS, TEXT_CNN, UnknownModel, get_model


def test_models_have_the_parameter_counts_of_flints_table_5():
    assert {name: spec.parameter_count for name, spec in MODELS.items()} == {
        "tiny_mlp": 1_513,
        "sparse_mlp": 188_141,
        "embedding_mlp": 207_601,
        "text_cnn": 389_589,
        "multitask_mlp": 920_452,
    }
    for name, published in FLINT_TABLE_5.items():
        assert get_model(name).parameter_count == pytest.approx(published.parameters, rel=0.01)


def test_a_frozen_table_is_no_part_of_what_updates_hold():
    assert [p.name for p in TEXT_CNN.frozen_parameters] == ["words/table"]
    assert not any(p.name.startswith("words") for p in TEXT_CNN.parameters)
    first, again = TEXT_CNN.frozen_arrays(), TEXT_CNN.frozen_arrays()
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].std() == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(
    ("name", "digest"), [("tiny_mlp", "4a2f851791c5ce8c"), ("sparse_mlp", "80e27f51ae3ef9d9")]
)
def test_specs_older_than_tasks_keep_their_digests(name, digest):
    """Devices echo the digest with every update; a job under way must not change its own."""
    assert hashlib.sha256(get_model(name).to_json().encode()).hexdigest().startswith(digest)


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
