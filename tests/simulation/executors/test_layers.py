"""Hand-written steps of every layer against torch's autograd on the twin model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_runtime.manifest import InputSpec
from device_runtime.update_codec import flatten
from modeling.parity import random_batches, torch_steps
from modeling.spec import Dense, Embedding, FactorisedEmbedding, ModelSpec, TextConvolution
from modeling.torch_models import build_torch, load_parameters
from modeling.zoo import MODELS, TEXT_CNN
from simulation.executors.training import LocalPlan, logits_of, one_thread, prepare, train_locally
from tests.simulation.executors.conftest import EVERYTHING

SMALL_TEXT = ModelSpec(
    "small_text",
    (
        Embedding("words", 50, 6, slots=9),
        TextConvolution("convolution", 9, 6, windows=(2, 4), filters=5),
        Dense("logit", 10, 1, "none"),
    ),
    InputSpec("ids", (9,), "int32", -1),
    (1,),
    "binary_cross_entropy",
    "auprc",
)
"""A table below a convolution is trained through it."""

FACTORISED = replace(
    SMALL_TEXT,
    name="factorised",
    layers=(FactorisedEmbedding("words", 50, 3, 6, slots=9), Dense("logit", 54, 1, "none")),
)
SPECS = {spec.name: spec for spec in (*MODELS.values(), SMALL_TEXT, FACTORISED)}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_simulated_task_takes_the_steps_of_autograd(spec):
    [(x, y)] = random_batches(spec, 1, batch_size=18, seed=2)
    start = spec.initial_parameters(1)
    plan = LocalPlan(local_epochs=3, batch_size=len(x), max_records=100, outputs=EVERYTHING)
    with one_thread():
        update = train_locally(
            spec, plan, torch.tensor(flatten(start)), x, y, learning_rate=0.1, shuffle_seed=0
        )
    expected, losses = torch_steps(spec, start, [(x, y)] * 3, learning_rate=0.1)
    delta = flatten([end - begin for end, begin in zip(expected, start, strict=True)])
    np.testing.assert_allclose(update.dense(spec.parameter_count), delta, rtol=0, atol=1e-6)
    assert np.abs(delta).max() > 1e-3
    assert update.loss_before == pytest.approx(losses[0], abs=1e-6)
    assert update.loss_after < update.loss_before


@pytest.mark.parametrize("spec", [TEXT_CNN, SMALL_TEXT], ids=lambda spec: spec.name)
def test_logits_of_many_records_are_the_twins(spec):
    """More records than a convolution takes at once."""
    [(x, _)] = random_batches(spec, 1, batch_size=240, seed=3)
    start = spec.initial_parameters(1)
    model = build_torch(spec)
    load_parameters(model, start)
    with one_thread():
        found = logits_of(spec, torch.tensor(flatten(start)), prepare(spec, x))
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_only_the_first_layer_can_look_up_ids():
    twice = replace(SMALL_TEXT, layers=(*SMALL_TEXT.layers, Embedding("late", 5, 2, slots=1)))
    with pytest.raises(ValueError, match="late takes ids, so it must be the first layer"):
        logits_of(twice, torch.zeros(twice.parameter_count), prepare(twice, np.zeros((1, 9), int)))
