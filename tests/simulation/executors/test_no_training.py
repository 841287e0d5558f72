"""The executor that trains nothing, and which executor an environment gets."""

import math

import numpy as np

from server.job import ClientOptimizer, ClientTraining
from simulation.executors import NoTraining, make_executor
from simulation.executors.local import LocalExecutor
from tests.simulation.executors.conftest import RECORDS, make_tasks


def test_sums_are_zero_with_the_weights_and_ids_of_the_tasks():
    tasks = make_tasks(7, versions=2)
    reduced = NoTraining(9).reduce(tasks)
    assert [s.base_version for s in reduced.sums] == [1, 2]
    for partial in reduced.sums:
        mine = [t for t in tasks if t.base_version == partial.base_version]
        assert partial.task_ids == tuple(t.task_id for t in mine)
        assert partial.weight == sum(t.weight for t in mine)
        np.testing.assert_array_equal(partial.total, np.zeros(9, np.float32))
    assert [s.task_id for s in reduced.statistics] == [t.task_id for t in tasks]
    assert all(s.is_finite and math.isnan(s.train_loss) for s in reduced.statistics)


def test_an_environment_gets_the_executor_it_names(spec, records):
    client = ClientTraining(max_records=30, optimizer=ClientOptimizer(learning_rate=0.1))
    assert isinstance(make_executor("local", 1, spec, client, records), LocalExecutor)
    nothing = make_executor("none", 4, spec, client, records)
    examples = [s.num_examples for s in nothing.train(make_tasks(len(RECORDS)))]
    assert examples == [min(count, 30) for count in RECORDS]
