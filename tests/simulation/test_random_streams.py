"""A draw depends on its key alone, and is what Philox and the normal distribution say it is."""

import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulation.portable_math import normal_quantile, portable_exp, portable_log
from simulation.random_streams import RandomStreams, philox4x32, pick

# Random123 (D. E. Shaw Research), tests/kat_vectors, lines "philox4x32 10": counter, key, output.
KNOWN_ANSWERS = [
    "00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1",
]
WORDS = st.integers(0, 2**32 - 1)
CLIENTS = st.integers(0, 2**64 - 1)


def known(line: str) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, ...]]:
    words = [int(word, 16) for word in line.split()]
    return tuple(words[:4]), (words[4], words[5]), tuple(words[6:])


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(line):
    counter, key, answer = known(line)
    assert philox4x32(counter, key) == answer


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_philox_of_arrays_gives_the_published_answers(line):
    counter, key, answer = known(line)
    arrays = tuple(np.array([7, word], dtype=np.uint64) for word in counter)
    assert tuple(int(word[1]) for word in philox4x32(arrays, key)) == answer


@given(
    seed=st.integers(0, 2**63 - 1),
    clients=st.lists(CLIENTS, min_size=1, max_size=20),
    task=WORDS,
    draw=WORDS,
)
@settings(max_examples=60)
def test_one_client_and_many_draw_the_same_bits(seed, clients, task, draw):
    stream = RandomStreams(seed, trial=3)["per_example_s"]
    many = np.array(clients, dtype=np.uint64)
    for single, vector in (
        (stream.uniform, stream.uniforms),
        (stream.normal, stream.normals),
        (stream.exponential, stream.exponentials),
    ):
        drawn = vector(many, np.full(many.shape, task), draw)
        assert drawn.tolist() == [single(client, task, draw) for client in clients]


def test_clients_and_tasks_are_broadcast():
    stream = RandomStreams(1)["x"]
    grid = stream.uniforms(np.arange(3)[:, None], np.arange(4)[None, :])
    assert grid.shape == (3, 4)
    assert grid[2, 3] == stream.uniform(2, 3)


def test_order_of_asking_does_not_matter():
    stream = RandomStreams(5)["bandwidth"]
    clients = np.arange(1000)
    order = np.random.default_rng(0).permutation(1000)
    shuffled = np.empty(1000)
    shuffled[order] = stream.uniforms(clients[order])
    assert np.array_equal(shuffled, stream.uniforms(clients))


def test_another_process_draws_the_same_bits():
    script = (
        "import numpy as np\n"
        "from simulation.random_streams import RandomStreams\n"
        "print(RandomStreams(11, trial=2)['x'].normals(np.arange(50), 9).tobytes().hex())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    here = RandomStreams(11, trial=2)["x"].normals(np.arange(50), 9)
    assert other.stdout.strip() == here.tobytes().hex()


def test_these_bits_are_kept_for_ever():
    """A change here changes every recorded run."""
    stream = RandomStreams(seed=7, trial=1)["per_example_s"]
    assert stream.uniform(3, task=2).hex() == "0x1.4e14bc7a46afbp-1"
    assert stream.normal(3, task=2).hex() == "0x1.917e7d3236833p-2"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RandomStreams(1)["x"].uniforms(range(500)), RandomStreams(2)["x"].uniforms(range(500))),
        (RandomStreams(1)["x"].uniforms(range(500)), RandomStreams(1, 1)["x"].uniforms(range(500))),
        (RandomStreams(1)["x"].uniforms(range(500)), RandomStreams(1)["y"].uniforms(range(500))),
        (
            RandomStreams(1)["x"].uniforms(range(500)),
            RandomStreams(1)["x"].uniforms(range(500), 1),
        ),
        (
            RandomStreams(1)["x"].uniforms(range(500)),
            RandomStreams(1)["x"].uniforms(range(500), draw=1),
        ),
    ],
    ids=["seed", "trial", "name", "task", "draw"],
)
def test_streams_with_different_keys_are_unrelated(first, second):
    assert not np.intersect1d(first, second).size
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15


def test_the_client_number_uses_all_its_64_bits():
    stream = RandomStreams(1)["x"]
    assert stream.uniform(5) != stream.uniform(5 + 2**32)
    assert stream.uniform(0) != stream.uniform(2**63)


def test_draws_have_the_distributions_they_name():
    stream = RandomStreams(2026)["distribution"]
    clients = np.arange(200_000)
    assert stats.kstest(stream.uniforms(clients), "uniform").pvalue > 0.001
    assert stats.kstest(stream.normals(clients), "norm").pvalue > 0.001
    assert stats.kstest(stream.exponentials(clients), "expon").pvalue > 0.001


def test_a_permutation_holds_every_number_once_and_is_not_the_identity():
    order = RandomStreams(3)["order"].permutation(1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert np.corrcoef(order, np.arange(1000))[0, 1] < 0.15


@pytest.mark.parametrize("count", [1, 3, 7, 10**6])
def test_picking_never_leaves_the_range(count):
    extremes = [2.0**-53, 0.5, 1 - 2.0**-53]
    assert [pick(u, count) for u in extremes] == pick(np.array(extremes), count).tolist()
    assert pick(extremes[0], count) == 0
    assert pick(extremes[2], count) == count - 1


@pytest.mark.parametrize("wrong", [-1, 2**32])
def test_a_task_outside_its_counter_is_refused(wrong):
    stream = RandomStreams(1)["x"]
    with pytest.raises(ValueError, match=r"not in|negative"):
        stream.uniform(0, wrong)
    with pytest.raises(ValueError, match=r"not in|negative"):
        stream.uniforms([0], [wrong])


@given(st.floats(2.0**-1000, 2.0**1000))
def test_the_logarithm_is_within_two_units_in_the_last_place(x):
    assert abs(portable_log(x) - math.log(x)) <= 2 * math.ulp(math.log(x))


@given(st.floats(-700, 700))
def test_the_exponential_is_within_two_units_in_the_last_place(x):
    assert abs(portable_exp(x) - math.exp(x)) <= 2 * math.ulp(math.exp(x))


@given(st.floats(2.0**-53, 1 - 2.0**-53))
def test_the_normal_quantile_is_that_of_the_standard_library(p):
    assert normal_quantile(p) == pytest.approx(
        statistics.NormalDist().inv_cdf(p), rel=1e-14, abs=1e-16
    )


@given(st.lists(st.floats(1e-300, 1 - 2.0**-53), min_size=1, max_size=40))
def test_functions_of_arrays_and_of_numbers_agree_to_the_bit(values):
    array = np.array(values)
    assert portable_log(array).tolist() == [portable_log(value) for value in values]
    assert portable_exp(array).tolist() == [portable_exp(value) for value in values]
    assert normal_quantile(array).tolist() == [normal_quantile(value) for value in values]
