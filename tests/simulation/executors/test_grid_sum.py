"""Sums on a grid: any order and grouping gives the same bits, near the exact sum."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simulation.executors.grid_sum import GRID, add_update
from simulation.executors.training import LocalUpdate

SIZE = 3
deltas = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=SIZE, max_size=SIZE), min_size=1, max_size=12
)


def update(delta) -> LocalUpdate:
    return LocalUpdate(np.array(delta, np.float32), None, 0, 1, 1.0, 1.0, None, None, True)


@given(deltas, st.data())
def test_order_and_grouping_do_not_matter_and_the_sum_is_exact_to_the_grid(rows, data):
    weights = data.draw(
        st.lists(st.integers(1, 500), min_size=len(rows), max_size=len(rows)), label="weights"
    )
    order = data.draw(st.permutations(range(len(rows))), label="order")
    cut = data.draw(st.integers(0, len(rows)), label="cut")
    whole, first, second = np.zeros((3, SIZE))
    for index in range(len(rows)):
        add_update(whole, update(rows[index]), weights[index])
    for place, index in enumerate(order):
        add_update(first if place < cut else second, update(rows[index]), weights[index])
    np.testing.assert_array_equal(whole, first + second)
    for column in range(SIZE):
        exact = sum(
            Fraction(float(np.float32(row[column]))) * weight
            for row, weight in zip(rows, weights, strict=True)
        )
        assert abs(exact - Fraction(float(whole[column]))) <= Fraction(GRID) * len(rows) / 2
