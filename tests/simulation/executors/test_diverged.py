"""A client whose training leaves the numbers is told with the step, on every path of training."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import flatten
from modeling.zoo import get_model
from simulation.executors.compiled.arranging import NEXT, TURNS
from simulation.executors.compiled.task_block import TaskBlock
from simulation.executors.local import LocalExecutor
from simulation.executors.paths import TrainingPath
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import BATCH_SIZE, EVERYTHING, few_records, make_tasks

TINY = get_model("tiny_mlp")
SICK = 4
"""The client with a record that is no number: 64 records, of which it trains on the last ones."""
SICK_ROW = 13
"""Of those that it trains on."""
PLAN = LocalPlan(local_epochs=2, batch_size=BATCH_SIZE, max_records=40)
ONE_STEP = replace(PLAN, local_epochs=1, batch_size=64)


def way_of(name: str) -> tuple[object, LocalPlan]:
    """Model and plan that are trained on a path."""
    return {
        "collapsed, one step": (WIDE, ONE_STEP),
        "sample space": (WIDE, PLAN),
        "sample space, all outputs": (WIDE, replace(PLAN, outputs=EVERYTHING)),
        "own kernel": (TINY, PLAN),
        "own kernel, one step": (TINY, ONE_STEP),
        "layers": (TINY, PLAN),
        "module": (TINY, replace(PLAN, by_module=True)),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "collapsed, one step",
        "sample space",
        "sample space, all outputs",
        "own kernel",
        "own kernel, one step",
        "layers",
        "module",
    ],
)
def test_a_record_that_is_no_number_names_client_and_step_and_is_in_no_sum(name):
    model, plan = way_of(name)
    records = few_records(model) if model is TINY else records_of(model)
    held = int(records.records[SICK])
    trained_on = min(held, plan.max_records)
    records.x[int(records.first_row[SICK]) + held - trained_on + SICK_ROW, 2] = np.nan
    nobody = np.zeros(len(records), np.bool_)
    path = TrainingPath("layers", "this test says so", nobody) if name == "layers" else None
    executor = LocalExecutor(model, plan, records, path)
    assert executor.path.in_samples.any() == (model is WIDE)
    executor.set_weights(1, flatten(model.initial_parameters(1)))
    tasks = make_tasks(12, base_version=1)
    steps = [
        1 + int(np.flatnonzero(epoch_order(trained_on, task.shuffle_seed, 0) == SICK_ROW)[0])
        // plan.batch_size
        if task.data_client == SICK
        else 0
        for task in tasks
    ]  # fmt: skip
    assert sum(step > 0 for step in steps) == 2
    for found in (executor.train(tasks), executor.reduce(tasks).statistics):
        assert [each.diverged_step for each in found] == steps
        assert [each.is_finite for each in found] == [step == 0 for step in steps]

    well = [task for task in tasks if task.data_client != SICK]
    (total,), (wanted,) = executor.reduce(tasks).sums, executor.reduce(well).sums
    assert total.task_ids == wanted.task_ids
    np.testing.assert_allclose(total.total, wanted.total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["collapsed, one step", "sample space", "own kernel"])
def test_an_executor_that_trained_nothing_finite_adds_nothing_to_what_another_has_summed(name):
    model, plan = way_of(name)
    records = few_records(model) if model is TINY else records_of(model)
    records.x[int(records.first_row[SICK] + records.records[SICK]) - 1] = np.nan
    executor = LocalExecutor(model, plan, records)
    executor.set_weights(1, flatten(model.initial_parameters(1)))
    tasks = TaskColumns.of(
        [task for task in make_tasks(6, versions=1) if task.data_client in (0, SICK)]
    )
    (wanted,) = executor.reduce(tasks[:1]).sums

    kernel, block = executor.kernel, TaskBlock(8)
    assert kernel.post(tasks, block) == 1
    found = StatisticsColumns.room(tasks.task_ids, plan.outputs)
    rows = np.full((2, model.parameter_count), 7.0)  # what they have summed of other tasks
    addresses = np.array([[row.ctypes.data for row in rows]])
    for number, turns in ((0, 1), (1, 2)):  # the sick one's come first, as they take longer
        block.words[[TURNS, NEXT]] = turns, number
        sums, is_summed = addresses[:, number].copy(), np.zeros(1, np.bool_)
        kernel.train(block, kernel.versions.rows, found, sums, is_summed, number=number)
    assert found.is_finite.tolist() == [True, False]
    (total,) = kernel.put_together(tasks, block, found, addresses).sums
    np.testing.assert_array_equal(total.total, wanted.total)
