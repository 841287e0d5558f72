"""The mean of large sums is taken a piece at a time, and is the same to the bit."""

import numpy as np

from server.aggregation.aggregator import PartialSum
from server.aggregation.rule import mean_delta


def test_a_mean_of_many_pieces_is_that_of_the_whole_to_the_bit():
    generator = np.random.default_rng(4)
    totals = [generator.standard_normal(200_001).astype(np.float32) for _ in range(3)]
    sums = [PartialSum(b, total, 1.5 + b, ()) for b, total in enumerate(totals)]
    factors = [1 / (1 + 2 - b) for b in range(3)]
    whole = sum(f * total.astype(np.float64) for f, total in zip(factors, totals, strict=True))
    expected = (whole / (1.5 + 2.5 + 3.5)).astype(np.float32)
    found = mean_delta(sums, 2, lambda staleness: 1 / (1 + staleness))
    np.testing.assert_array_equal(found, expected)
