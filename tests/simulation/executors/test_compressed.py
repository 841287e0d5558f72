"""The executor's codec is the device's, also where a table is cut to the rows that are used."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.compression import UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.update_codec import unflatten
from simulation.executors.grid_sum import GRID
from simulation.executors.local import LocalExecutor
from tests.simulation.executors.conftest import PLAN, make_tasks
from tests.simulation.executors.contract import ExecutorContract

CODECS = [
    UpdateCodec("float16"),
    UpdateCodec("int8"),
    UpdateCodec("top_k", 0.01, "float16"),
    UpdateCodec("top_k", 0.05, "int8", error_feedback=True),
]
EVERY = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name + codec.values)


class TestCompressingExecutor(ExecutorContract):
    """Whose sums and statistics are of decoded updates, as reproducible as plain ones."""

    @pytest.fixture(params=CODECS[:3], ids=lambda codec: codec.name)
    def executor(self, spec, records, request) -> LocalExecutor:
        return LocalExecutor(spec, replace(PLAN, codec=request.param), records)


@EVERY
@pytest.mark.parametrize("client", [0, 2, 3])
def test_an_update_is_what_a_server_would_decode_of_the_devices(
    spec, records, weights, codec, client
):
    (task,) = make_tasks(1, data_client=client, base_version=1, weight=1.0)
    plain = LocalExecutor(spec, PLAN, records)
    plain.set_weights(1, weights(1))
    learned = plain.learned(task).dense(spec.parameter_count)
    tensors = compress(unflatten(spec.parameters, learned), codec, seed=task.shuffle_seed)

    lossy = LocalExecutor(spec, replace(PLAN, codec=codec), records)
    lossy.set_weights(1, weights(1))
    reduced = lossy.reduce([task])
    np.testing.assert_allclose(reduced.sums[0].total, all_decoded(tensors), rtol=0, atol=GRID)
    norm = np.linalg.norm(reduced.sums[0].total.astype(np.float64))
    assert reduced.statistics[0].update_norm == pytest.approx(norm, rel=1e-6)


@pytest.fixture
def feeding_back(spec, records, weights) -> LocalExecutor:
    executor = LocalExecutor(spec, replace(PLAN, codec=CODECS[3]), records)
    for version in (1, 2):
        executor.set_weights(version, weights(version))
    return executor


def totals(executor: LocalExecutor, *tasks) -> np.ndarray:
    return np.sum([s.total for s in executor.reduce(tasks).sums], axis=0, dtype=np.float64)


def test_only_updates_that_count_are_carried_over(feeding_back):
    first, second = make_tasks(2, data_client=2, client=5, weight=1.0, versions=1)
    fresh = totals(feeding_back, second)
    feeding_back.forget([second.task_id])
    totals(feeding_back, first)
    feeding_back.forget([first.task_id])
    np.testing.assert_array_equal(totals(feeding_back, second), fresh)
    feeding_back.forget([second.task_id])

    totals(feeding_back, first)
    feeding_back.carry_over([first.task_id])
    carried = totals(feeding_back, second)
    assert not np.array_equal(carried, fresh)
    feeding_back.forget_residuals([4])
    np.testing.assert_array_equal(totals(feeding_back, second), carried)
    feeding_back.forget_residuals([5])
    np.testing.assert_array_equal(totals(feeding_back, second), fresh)


def test_clients_that_share_records_do_not_share_what_they_left_out(feeding_back):
    first, second = make_tasks(2, data_client=2, client=5, weight=1.0, versions=1)
    fresh = totals(feeding_back, replace(second, client=6))
    feeding_back.forget([second.task_id])
    totals(feeding_back, first)
    feeding_back.carry_over([first.task_id])
    np.testing.assert_array_equal(totals(feeding_back, replace(second, client=6)), fresh)


def test_an_update_trained_with_one_that_is_dropped_is_trained_again(feeding_back):
    first, second = make_tasks(2, data_client=2, client=5, weight=1.0, versions=1)
    fresh = totals(feeding_back, second)
    feeding_back.forget([second.task_id])
    feeding_back.train([first, second])
    feeding_back.forget([first.task_id])
    np.testing.assert_array_equal(totals(feeding_back, second), fresh)
