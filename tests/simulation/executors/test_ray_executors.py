"""Executors on a real one-node Ray cluster: the results of one process, deaths, mistakes."""

import pytest

pytest.importorskip("ray")

from modeling.zoo import get_model
from simulation.executors.ray_cluster import ClusterConnection
from simulation.executors.ray_executors import RayExecutors
from tests.simulation.executors.conftest import PLAN
from tests.simulation.executors.contract import ExecutorContract

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session", params=["tiny_mlp"])
def spec(request):
    """One model: actors load torch for seconds."""
    return get_model(request.param)


@pytest.fixture(scope="module")
def cluster():
    """One node with three cores, for the whole file."""
    connection = ClusterConnection("local", 3)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def shared(cluster, spec, records):
    started = RayExecutors(2, spec, PLAN, records)
    yield started
    started.close()


@pytest.fixture
def executor(shared) -> RayExecutors:
    return shared


class TestRayExecutors(ExecutorContract):
    """Two actors."""
