"""Compiled seeds of the order of records, beside the function that devices' tasks are made with."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.coordination.selection import shuffle_seed
from simulation.timeline.shuffle_seeds import shuffle_seeds


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20))
def test_seeds_of_many_tasks_are_those_of_each(seed, numbers):
    found = shuffle_seeds(seed, np.array(numbers))
    assert found.tolist() == [shuffle_seed(seed, f"t{number}") for number in numbers]
