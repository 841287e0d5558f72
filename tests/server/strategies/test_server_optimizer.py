import numpy as np
import pytest

from server.job import ServerAdaptive, ServerSgd
from server.strategies.server_optimizer import ServerOptimizer


def reference(settings, weights, deltas):
    """Reddi et al., Algorithm 2, written out in float64, element by element."""
    w = weights.astype(np.float64).copy()
    m = np.zeros_like(w)
    v = np.full_like(w, settings.epsilon**2)
    for delta in deltas.astype(np.float64):
        for i, d in enumerate(delta):
            m[i] = settings.beta_1 * m[i] + (1 - settings.beta_1) * d
            if settings.name == "adagrad":
                v[i] = v[i] + d * d
            elif settings.name == "adam":
                v[i] = settings.beta_2 * v[i] + (1 - settings.beta_2) * d * d
            else:
                v[i] = v[i] - (1 - settings.beta_2) * d * d * np.sign(v[i] - d * d)
            w[i] += settings.learning_rate * m[i] / (np.sqrt(v[i]) + settings.epsilon)
    return w


def run(settings, weights, deltas):
    optimizer = ServerOptimizer(settings)
    state = optimizer.initial_state(weights.size)
    for delta in deltas:
        weights, state = optimizer.step(weights, delta, state)
    return weights


@pytest.fixture
def problem():
    generator = np.random.default_rng(3)
    weights = generator.standard_normal(7).astype(np.float32)
    return weights, (0.1 * generator.standard_normal((5, 7))).astype(np.float32)


@pytest.mark.parametrize("name", ["adam", "yogi", "adagrad"])
def test_adaptive_rules_follow_the_paper(name, problem):
    settings = ServerAdaptive(name=name, learning_rate=0.03)
    np.testing.assert_allclose(run(settings, *problem), reference(settings, *problem), rtol=2e-5)


def test_sgd_at_rate_one_adds_the_mean_delta(problem):
    weights, deltas = problem
    np.testing.assert_allclose(run(ServerSgd(), weights, deltas[:1]), weights + deltas[0])


def test_momentum_sums_the_discounted_past(problem):
    weights, deltas = problem
    stepped = run(ServerSgd(learning_rate=0.5, momentum=0.9), weights, deltas[:2])
    first = deltas[0].astype(np.float64)
    expected = weights + 0.5 * first + 0.5 * (0.9 * first + deltas[1])
    np.testing.assert_allclose(stepped, expected, rtol=1e-5)


def test_a_step_leaves_its_arguments_alone(problem):
    weights, deltas = problem
    before = weights.copy()
    run(ServerAdaptive(name="adam", learning_rate=0.1), weights, deltas)
    np.testing.assert_array_equal(weights, before)
