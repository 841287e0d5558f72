import numpy as np
import pytest

from device_runtime.manifest import InputSpec
from device_runtime.update_codec import flatten
from modeling.parity import random_batches
from modeling.spec import Dense, ModelSpec
from simulation.executors.records import ClientRecords
from tests.simulation.executors.conftest import RECORDS

WIDE = ModelSpec(
    "wide",
    (
        Dense("hidden_1", 70, 450, "relu"),
        Dense("hidden_2", 450, 30, "relu"),
        Dense("logits", 30, 2, "none"),
    ),
    InputSpec("features", (70,), "float32"),
    (2,),
    "binary_cross_entropy",
    "auprc",
    ("click", "like"),
)
"""Large enough to be trained in sample space, 45,542 parameters; no size is a whole vector."""


def records_of(spec: ModelSpec) -> ClientRecords:
    counts = np.array(RECORDS)
    x, y = next(random_batches(spec, 2, batch_size=int(counts.sum()), seed=2))
    return ClientRecords(x, y, np.cumsum(counts) - counts, counts)


@pytest.fixture(scope="session")
def spec():
    return WIDE


@pytest.fixture(scope="session")
def records(spec):
    return records_of(spec)


@pytest.fixture(scope="session")
def weights(spec):
    return lambda version: flatten(spec.initial_parameters(version))
