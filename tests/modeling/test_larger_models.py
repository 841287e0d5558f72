"""Models C, D and E of FLINT's Table 5, from torch to the artefact a phone trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_runtime.engine import LiteRtEngine
from device_runtime.manifest import InputSpec
from modeling.model_sizes import FLINT_TABLE_5, sizes_of
from modeling.parity import check_parity, random_batches
from modeling.spec import Dense, Embedding, FactorisedEmbedding, ModelSpec, TextConvolution
from modeling.tflite import build_artifact
from modeling.torch_models import build_torch, load_parameters
from tests.modeling.conftest import BATCH_SIZE
from tests.modeling.test_tflite import custom_operators

pytestmark = pytest.mark.integration


def test_it_converts_to_builtin_operators_alone(larger_artifact):
    assert custom_operators(larger_artifact.model_bytes) == []


def test_torch_and_litert_take_the_same_steps(larger, larger_artifact):
    report = check_parity(larger, 4, batch_size=BATCH_SIZE, artifact=larger_artifact)
    assert report.equal, report


def test_repeated_steps_on_one_batch_lower_the_loss(larger, larger_artifact):
    engine = LiteRtEngine(larger_artifact.model_bytes, larger_artifact.manifest)
    engine.restore(larger.initial_parameters(0))
    [(x, y)] = random_batches(larger, 1, batch_size=BATCH_SIZE, seed=0)
    losses = [engine.train_batch(x, y, 0.1) for _ in range(30)]
    assert losses[-1] < 0.95 * losses[0]


def test_its_file_is_as_large_as_its_numbers(larger, larger_artifact):
    """Each number is in the file once, beside at most 50 kB of training graph."""
    sizes = sizes_of(larger, larger_artifact.manifest)
    numbers = 4 * (sizes.parameters + sizes.frozen_parameters)
    assert 0 < sizes.storage_bytes - numbers < 50_000
    published = FLINT_TABLE_5[larger.name]
    if larger.name != "multitask_mlp":  # there FLINT stores twice what its parameters take
        assert sizes.storage_bytes / 1e6 == pytest.approx(published.storage_mb, rel=0.01)


SMALL_TEXT = ModelSpec(
    "small_text",
    (
        Embedding("words", 50, 6, slots=9),
        TextConvolution("convolution", 9, 6, windows=(2, 4), filters=5),
        Dense("logits", 10, 2, "none"),
    ),
    InputSpec("ids", (9,), "int32", -1),
    (2,),
    "binary_cross_entropy",
    "auprc",
    ("click", "like"),
)
"""A table that is trained through a convolution, with several tasks."""

FACTORISED = replace(
    SMALL_TEXT,
    name="factorised",
    layers=(FactorisedEmbedding("words", 50, 3, 6, slots=9), Dense("logits", 54, 2, "none")),
)


@pytest.mark.parametrize("spec", [SMALL_TEXT, FACTORISED], ids=lambda spec: spec.name)
@pytest.mark.parametrize("proximal_mu", [None, 0.5])
def test_layers_that_no_registered_model_combines_take_the_same_steps(spec, proximal_mu):
    report = check_parity(spec, 5, batch_size=7, proximal_mu=proximal_mu)
    assert report.equal, report


def test_vectors_learnt_beforehand_go_into_the_artefact_and_not_into_updates():
    frozen = replace(
        SMALL_TEXT, layers=(Embedding("words", 50, 6, slots=9, frozen=True), *SMALL_TEXT.layers[1:])
    )
    vectors = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    weights = frozen.initial_parameters(1)
    artifact, again = (
        build_artifact(frozen, batch_size=7, initial_parameters=weights, frozen=[vectors])
        for _ in range(2)
    )
    assert again == artifact
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    [(x, _)] = random_batches(frozen, 1, batch_size=7, seed=1)
    model = build_torch(frozen, [vectors])
    load_parameters(model, weights)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(engine.infer(x), expected, atol=1e-6)
    assert [array.shape for array in engine.parameters()] == [w.shape for w in weights]
