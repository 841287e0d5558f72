import numpy as np
import pytest

from device_runtime.update_codec import flatten
from feature_catalog.record_files import read_records, write_records
from modeling.spec import ModelSpec
from modeling.zoo import get_model
from simulation.executors import ClientOutputs, TrainingTask
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan
from tests.device_runtime.records import draw_records

BATCH_SIZE = 20
RECORDS = (7, 20, 53, 1, 64, 33)
"""Records of each client: short and whole batches, and more than `PLAN` lets a task use."""

EVERYTHING = ClientOutputs(losses=True, norms=True)

PLAN = LocalPlan(local_epochs=2, batch_size=BATCH_SIZE, max_records=40, outputs=EVERYTHING)


@pytest.fixture(scope="session", params=["tiny_mlp", "sparse_mlp"])
def spec(request):
    return get_model(request.param)


@pytest.fixture(scope="session")
def records(spec) -> ClientRecords:
    return few_records(spec)


def few_records(spec: ModelSpec) -> ClientRecords:
    """Of so many clients as `RECORDS` says."""
    counts = np.array(RECORDS)
    x, y = draw_records(spec, int(counts.sum()), seed=3)
    return ClientRecords(x, y, np.cumsum(counts) - counts, counts)


@pytest.fixture(scope="session")
def weights(spec):
    """Flat weights of a version."""
    return lambda version: flatten(spec.initial_parameters(version))


@pytest.fixture
def mapped(tmp_path) -> ClientRecords:
    """Ten records of each of four clients of tiny_mlp, in a records file."""
    draws = np.random.default_rng(0)
    path = tmp_path / "records.arrow"
    write_records(
        path,
        tmp_path / "scratch",
        iter([draws.standard_normal((40, 40)).astype(np.float32)]),
        place=np.arange(40),
        labels=(np.arange(40) % 3 == 0).astype(np.uint8),
        width=40,
        dtype=np.float32,
    )
    return ClientRecords(*read_records(path), np.arange(4) * 10, np.full(4, 10), path)


def make_tasks(count: int = 12, versions: int = 3, **changes) -> list[TrainingTask]:
    """Tasks over all clients and versions 1, 2, ..., each with a weight of its own."""
    return [
        TrainingTask(
            **{
                "task_id": f"t-{i}",
                "data_client": i % len(RECORDS),
                "base_version": 1 + (5 * i) % versions,
                "weight": 1.0 + 0.3 * i,
                "learning_rate": 0.1,
                "shuffle_seed": 2**64 - 1 - i,
            }
            | changes
        )
        for i in range(count)
    ]
