"""How the server steps the model along the clients' mean delta.

Adaptive Federated Optimization (Reddi et al., ICLR 2021, Algorithm 2); momentum as FedAvgM (Hsu et
al., 2019). The mean delta points downhill, so every rule *adds* it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.job import ServerAdaptive, ServerSgd

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """A rule; its state is a mapping of named vectors that a checkpoint stores whole."""

    settings: ServerSgd | ServerAdaptive

    def initial_state(self, size: int) -> dict[str, Vector]:
        """Zero slots, each of shape ``(size,)``; none for plain SGD."""
        if isinstance(self.settings, ServerSgd):
            return {"momentum": np.zeros(size, np.float32)} if self.settings.momentum else {}
        # v starts at epsilon^2 (tau^2 in the paper), as its Algorithm 2 asks.
        second = np.full(size, self.settings.epsilon**2, np.float32)
        return {"first_moment": np.zeros(size, np.float32), "second_moment": second}

    def step(
        self, weights: Vector, mean_delta: Vector, state: Mapping[str, Vector]
    ) -> tuple[Vector, dict[str, Vector]]:
        """Return the next weights and state; the arguments are left as they are.

        Args:
            weights: Current model, shape ``(parameters,)``.
            mean_delta: ``sum s_i c_i delta_i / sum c_i``, shape ``(parameters,)``.
            state: What `initial_state` or the last step returned.
        """
        settings = self.settings
        if isinstance(settings, ServerSgd):
            if not settings.momentum:
                return weights + _times(settings.learning_rate, mean_delta), {}
            momentum = np.float32(settings.momentum) * state["momentum"] + mean_delta
            return weights + _times(settings.learning_rate, momentum), {"momentum": momentum}
        rate = np.float32(settings.learning_rate)
        first = _average(settings.beta_1, state["first_moment"], mean_delta)
        square, before = np.square(mean_delta), state["second_moment"]
        if settings.name == "adagrad":
            second = before + square
        elif settings.name == "adam":
            second = _average(settings.beta_2, before, square)
        else:
            step = np.float32(1 - settings.beta_2) * square
            second = before - step * np.sign(before - square)
        stepped = weights + rate * first / (np.sqrt(second) + np.float32(settings.epsilon))
        return stepped.astype(np.float32, copy=False), {
            "first_moment": first,
            "second_moment": second,
        }


def _times(rate: float, step: Vector) -> Vector:
    """A step of that rate; at 1, the usual one, the step itself."""
    return step if rate == 1.0 else np.float32(rate) * step


def _average(beta: float, before: Vector, value: Vector) -> Vector:
    """Exponential moving average in float32."""
    return np.float32(beta) * before + np.float32(1 - beta) * value
