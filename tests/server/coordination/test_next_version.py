"""The step from sums to the next version: what is no number any more ends the job."""

import numpy as np
import pytest

from server.aggregation.aggregator import PartialSum
from server.coordination.next_version import ModelDiverged, next_version, with_optimizer_state
from server.coordination.versions import StoredVersion
from server.job import FedAvgSettings, ServerAdaptive
from server.strategies import make_strategy
from server.strategies.server_optimizer import ServerOptimizer

FEDAVG = make_strategy(FedAvgSettings(name="fedavg", cohort_size=1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["adam", "adagrad", "yogi"])
def test_a_second_moment_that_overflows_is_said_before_the_model_stands_still(name):
    """Its square root divides every later step of the parameter: 0 for ever, and all is finite."""
    optimizer = ServerOptimizer(ServerAdaptive(name=name, learning_rate=0.1))
    start = StoredVersion(0, np.zeros(2, np.float32), {})
    newest = with_optimizer_state(start, optimizer)
    large = PartialSum(0, np.array([1e30, 1.0], np.float32), 1.0, ("t1",))
    with pytest.raises(ModelDiverged, match=r"version 1 of job ads is not finite.*\[FLN-1006\]"):
        next_version(newest, [large], FEDAVG, optimizer, job_name="ads")
