"""The process's random generators, set for a while and put back: Flower apps draw from these."""

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np

_SEEDS_BELOW = 2**32


def seed_of(uniform: float) -> int:
    """A seed all of the generators take, from a uniform draw."""
    return int(uniform * _SEEDS_BELOW)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and, where they are loaded, torch and TensorFlow.

    Afterwards they go on where they were; TensorFlow's, which cannot be asked where it was, stays.
    Generators an app makes itself (``np.random.default_rng()``) are its own affair.

    Args:
        seed: Not negative, below ``2**32``.
    """
    torch = sys.modules.get("torch")
    tensorflow = sys.modules.get("tensorflow")
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state() if torch is not None else None
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
    if tensorflow is not None:
        tensorflow.random.set_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
