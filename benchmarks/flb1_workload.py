"""FLB-1: cross-device FedAvg as a modeller tunes it, the workload of `flb1.py` and its peers.

10,000 clients, records of each log-normal (sigma 1.2), 20 on average before rounding, 1 to 400:
half have ten or fewer, 73 % take a single step. Features are normal with a shift of the client's
own, labels a noisy linear rule. A round is a cohort drawn without replacement, one local epoch of
SGD in batches of 20 at 0.05, averaged by records.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.manifest import InputSpec
from modeling.spec import Dense, ModelSpec
from simulation.executors.records import ClientRecords

CLIENTS = 10_000
LEARNING_RATE = 0.05
WIDTHS = {"A": (32, 40, 4, 1), "B": (256, 512, 112, 1), "C": (512, 1024, 512, 1)}
"""1,489, 189,153 and 1,050,625 parameters."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What both sides of a comparison are given.

    Attributes:
        cohorts: Data clients of each round.
    """

    spec: ModelSpec
    records: ClientRecords
    start: list[NDArray[np.float32]]
    cohorts: Sequence[NDArray[np.int64]]


def make_workload(model: str, *, cohort: int, rounds: int, seed: int) -> Workload:
    """Draw the workload of a model, the same for the same seed."""
    widths = WIDTHS[model]
    layers = tuple(
        Dense(f"layer_{i}", widths[i], widths[i + 1], "relu" if i < 2 else "none") for i in range(3)
    )
    spec = ModelSpec(
        f"flb_{model.lower()}",
        layers,
        InputSpec("features", (widths[0],), "float32"),
        (1,),
        "binary_cross_entropy",
        "auprc",
    )
    draws = np.random.default_rng(seed)
    sizes = np.exp(draws.normal(0.0, 1.2, CLIENTS)) * 20.0 / np.exp(0.72)
    counts = np.clip(np.round(sizes), 1, 400).astype(np.int64)
    shift = draws.normal(0.0, 0.3, (CLIENTS, widths[0])).astype(np.float32)
    x = draws.standard_normal((int(counts.sum()), widths[0]), np.float32)
    x += np.repeat(shift, counts, axis=0)
    rule = (draws.standard_normal(widths[0]) / np.sqrt(widths[0])).astype(np.float32)
    y = (x @ rule + draws.normal(0.0, 0.5, len(x)) > 0).astype(np.float32)[:, None]
    records = ClientRecords(x, y, np.cumsum(counts) - counts, counts)
    cohorts = [draws.choice(CLIENTS, cohort, replace=False) for _ in range(rounds)]
    return Workload(spec, records, spec.initial_parameters(seed), cohorts)
