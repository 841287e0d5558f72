import numpy as np
import pytest

from server.aggregation.aggregator import PartialSum
from server.aggregation.rule import mean_delta
from server.strategies.fedbuff import staleness_weight


def bucket(base_version, deltas, weights):
    total = np.sum([w * d for w, d in zip(weights, deltas, strict=True)], axis=0)
    return PartialSum(base_version, total.astype(np.float32), float(sum(weights)), ())


def test_buckets_give_the_same_mean_as_single_updates_written_out():
    generator = np.random.default_rng(0)
    deltas = generator.standard_normal((6, 11)).astype(np.float32)
    weights, bases = [1, 20, 7, 3, 3, 50], [9, 9, 8, 5, 5, 9]
    expected = np.zeros(11)
    for delta, weight, base in zip(deltas, weights, bases, strict=True):
        expected += (1 + 9 - base) ** -0.5 * weight * delta.astype(np.float64)
    expected /= sum(weights)
    sums = []
    for base in (9, 8, 5):
        members = [i for i, b in enumerate(bases) if b == base]
        sums.append(bucket(base, [deltas[i] for i in members], [weights[i] for i in members]))
    np.testing.assert_allclose(mean_delta(sums, 9, staleness_weight), expected, rtol=1e-5)


def test_a_buffer_that_is_three_versions_old_moves_the_model_half_as_far():
    delta = np.array([1.0, -2.0], np.float32)
    stale = mean_delta([bucket(2, [delta], [1])], 5, staleness_weight)
    np.testing.assert_array_equal(stale, delta / 2)


def test_staleness_is_not_in_the_denominator():
    fresh, old = np.array([1.0], np.float32), np.array([1.0], np.float32)
    mean = mean_delta([bucket(3, [fresh], [1]), bucket(0, [old], [1])], 3, staleness_weight)
    assert mean[0] == pytest.approx((1 + 0.5) / 2)
