"""The local executor against the engine of devices, and against the gateway's arithmetic."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_runtime.engine import LiteRtEngine
from device_runtime.examples import SqliteExampleStore
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from device_runtime.update_codec import flatten
from modeling.spec import HashedBag
from modeling.tflite import build_artifact
from modeling.zoo import get_model
from server.aggregation.mean import add_scaled
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan, one_thread, train_locally
from tests.device_runtime.records import draw_records
from tests.simulation.executors.conftest import BATCH_SIZE, PLAN, RECORDS, make_tasks
from tests.simulation.executors.contract import ExecutorContract


@pytest.fixture
def executor(spec, records) -> LocalExecutor:
    return LocalExecutor(spec, PLAN, records)


class TestLocalExecutor(ExecutorContract):
    """In this process."""


@pytest.fixture(scope="module")
def engines(spec):
    """Devices' engines: of the plain artefact and of the proximal one."""
    artifacts = [build_artifact(spec, batch_size=BATCH_SIZE, proximal=p) for p in (False, True)]
    return [LiteRtEngine(a.model_bytes, a.manifest) for a in artifacts]


@pytest.mark.parametrize("proximal_mu", [0.0, 0.5])
@pytest.mark.parametrize("client", range(len(RECORDS)))
def test_a_simulated_client_uploads_what_its_device_would(
    engines, spec, records, weights, tmp_path, client, proximal_mu
):
    """The device reads its records from its own store, which may hold more than a task takes."""
    store = SqliteExampleStore(tmp_path / "examples.sqlite")
    store.fill(*records.of(client))
    (task,) = make_tasks(1, data_client=client, base_version=1, weight=1.0)
    plan = TrainingPlan(
        PLAN.local_epochs,
        BATCH_SIZE,
        PLAN.max_records,
        task.learning_rate,
        proximal_mu,
        task.shuffle_seed,
    )
    engine = engines[proximal_mu > 0]
    device = train(engine, plan, spec.initial_parameters(1), *store.load(plan.max_records))

    executor = LocalExecutor(spec, replace(PLAN, proximal_mu=proximal_mu), records)
    executor.set_weights(1, weights(1))
    reduced = executor.reduce([task])
    (partial,), (statistics,) = reduced.sums, reduced.statistics
    np.testing.assert_allclose(partial.total, flatten(device.delta), rtol=0, atol=1e-5)
    assert np.abs(partial.total).max() > 1e-3
    assert statistics.num_examples == device.num_examples
    assert statistics.loss_before == pytest.approx(device.loss_before, abs=1e-5)
    assert statistics.loss_after == pytest.approx(device.loss_after, abs=1e-5)


def test_the_pull_changes_the_update(spec, records, weights):
    norms = []
    for proximal_mu in (0.0, 5.0):
        executor = LocalExecutor(spec, replace(PLAN, proximal_mu=proximal_mu), records)
        executor.set_weights(1, weights(1))
        norms.append(executor.train(make_tasks(1, base_version=1))[0].update_norm)
    assert norms[1] < 0.9 * norms[0]


def test_sums_are_a_gateways_but_for_rounding(executor, spec, records, weights):
    """Whole updates folded one by one by the production arithmetic, in float32."""
    executor.set_weights(1, weights(1))
    tasks = make_tasks(9, base_version=1)
    expected = np.zeros(spec.parameter_count, np.float32)
    scratch = np.empty(32_768, np.float32)
    for task in tasks:
        delta = executor.reduce([replace(task, weight=1.0)]).sums[0].total
        add_scaled(expected, [delta], task.weight, scratch)
    found = executor.reduce(tasks).sums[0].total
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_table_of_which_little_is_used_is_trained_as_a_whole_one():
    """Few records of a large table, whose other rows neither move nor are read."""
    spec = get_model("sparse_mlp")
    large = replace(spec, layers=(HashedBag("bag", 2**15, 180), *spec.layers[1:]))
    x, y = draw_records(spec, 30)
    x = np.where(x >= 0, x * 31 + 5, x).astype(np.int32)
    base = torch.tensor(flatten(large.initial_parameters(0)))
    plan = LocalPlan(2, BATCH_SIZE, 500)
    with one_thread():
        update = train_locally(large, plan, base, x, y, learning_rate=0.1, shuffle_seed=1)
        same = train_locally(
            spec,
            plan,
            _rows_of(large, base, np.arange(1024) * 31 + 5),
            *draw_records(spec, 30),
            learning_rate=0.1,
            shuffle_seed=1,
        )
    delta = update.dense(large.parameter_count)
    table = delta[: 2**15 * 180].reshape(2**15, 180)
    used = np.unique(x[x >= 0])
    assert set(np.flatnonzero(table.any(axis=1))) <= set(used)
    small = same.dense(spec.parameter_count)[: 1024 * 180].reshape(1024, 180)
    np.testing.assert_allclose(table[np.arange(1024) * 31 + 5], small, atol=1e-6)
    assert update.loss_after == pytest.approx(same.loss_after, abs=1e-6)


def _rows_of(large, base, rows):
    table = base[: 2**15 * 180].view(2**15, 180)
    return torch.cat([table[torch.from_numpy(rows)].ravel(), base[2**15 * 180 :]])


def test_records_without_any_id_train_the_biases_only():
    spec = get_model("sparse_mlp")
    base = torch.tensor(flatten(spec.initial_parameters(1)))
    x = np.full((25, *spec.input.shape), -1, np.int32)
    y = (np.arange(25) < 9).astype(np.float32)[:, None]
    with one_thread():
        update = train_locally(spec, PLAN, base, x, y, learning_rate=0.1, shuffle_seed=1)
    assert update.is_finite
    assert not update.dense(spec.parameter_count)[: 1024 * 180].any()
    assert update.loss_after < update.loss_before


def test_the_callers_torch_is_left_as_it_was(executor, weights):
    executor.set_weights(1, weights(1))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        executor.train(make_tasks(1, base_version=1))
        assert torch.get_num_threads() == 2
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)


def test_weights_of_another_model_are_refused(executor):
    with pytest.raises(ValueError, match="parameters"):
        executor.set_weights(1, np.zeros(3, np.float32))


def test_nothing_is_written_to_the_records(executor, records, weights):
    executor.set_weights(1, weights(1))
    x, y = records.x.copy(), records.y.copy()
    executor.reduce(make_tasks(base_version=1))
    np.testing.assert_array_equal(records.x, x)
    np.testing.assert_array_equal(records.y, y)
