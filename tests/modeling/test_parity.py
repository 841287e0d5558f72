"""Torch and LiteRT take the same steps; torch's autograd is the oracle of our gradients."""

import numpy as np
import pytest

from modeling.parity import (
    TOLERANCE,
    check_parity,
    litert_steps,
    random_batches,
    torch_steps,
)
from modeling.zoo import SPARSE_MLP
from tests.modeling.conftest import BATCH_SIZE


@pytest.mark.parametrize("proximal_mu", [None, 0.5])
def test_ten_steps_end_in_the_same_parameters(spec, proximal_mu):
    report = check_parity(spec, 10, batch_size=BATCH_SIZE, proximal_mu=proximal_mu)
    assert report.equal, report


def test_the_batches_compared_contain_a_short_one_and_records_without_ids():
    batches = list(random_batches(SPARSE_MLP, 10, batch_size=BATCH_SIZE, seed=0))
    assert [len(x) for x, _ in batches] == [BATCH_SIZE] * 9 + [13]
    counts = np.concatenate([(x >= 0).sum(axis=1) for x, _ in batches])
    assert counts.min() == 0
    assert counts.max() == 64


@pytest.mark.parametrize("count", [1, 7, BATCH_SIZE])
def test_a_masked_batch_steps_as_the_unpadded_one(spec, artifact, count):
    start = spec.initial_parameters(3)
    batches = list(random_batches(spec, 1, batch_size=BATCH_SIZE, seed=3))
    short = [(x[:count], y[:count]) for x, y in batches]
    ours, our_losses = litert_steps(artifact, start, short, learning_rate=0.5)
    theirs, their_losses = torch_steps(spec, start, short, learning_rate=0.5)
    assert our_losses == pytest.approx(their_losses, abs=TOLERANCE)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their, atol=TOLERANCE, rtol=0)


def test_large_logits_overflow_neither_loss_nor_gradient(spec, artifact):
    start = [array * 300 for array in spec.initial_parameters(4)]
    batches = list(random_batches(spec, 1, batch_size=BATCH_SIZE, seed=4))
    ours, [loss] = litert_steps(artifact, start, batches, learning_rate=1e-3)
    _, [expected] = torch_steps(spec, start, batches, learning_rate=1e-3)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert all(np.isfinite(array).all() for array in ours)


def test_a_proximal_artefact_with_strength_zero_is_the_plain_one(spec, artifact, proximal_artifact):
    start = spec.initial_parameters(5)
    batches = list(random_batches(spec, 3, batch_size=BATCH_SIZE, seed=5))
    plain, _ = litert_steps(artifact, start, batches, learning_rate=0.1)
    proximal, _ = litert_steps(proximal_artifact, start, batches, learning_rate=0.1)
    for one, other in zip(plain, proximal, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7, rtol=0)
