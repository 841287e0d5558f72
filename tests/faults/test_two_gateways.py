"""Two gateways behind one port, one of which is killed: each update counts once."""

import os
import signal

import pytest

from feature_catalog.failpoints import arm
from flint.deployment import Deployment
from tests.faults.conftest import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

AGGREGATIONS = 10


@pytest.fixture(scope="module")
def world(killable):
    with killable.bare_server(gateways=2) as server:
        deployment = Deployment.attach(server.home)
        token = deployment.devices.create_enrolment_token(100_000, 3600)
        yield World(server, deployment, token, killable.wait_for)


@pytest.mark.parametrize(
    ("strategy", "name"), [("fedbuff", "aggregator_frozen"), ("fedavg", "update_accepted")]
)
def test_one_of_two_gateways_killed_at_a_failpoint(run, strategy, name):
    def disturb(world, job_id):
        before = world.restarts("gateway")
        arm(world.server.failpoint_file, name, 5)
        assert world.wait_for(lambda: world.restarts("gateway") == before + 1, 60.0)

    run(strategy, AGGREGATIONS, disturb).assert_exactly_once()


def test_one_gateway_after_the_other_killed_and_the_coordinator_with_the_second(run):
    def disturb(world, job_id):
        assert world.wait_for(lambda: world.version(job_id) >= 2, 60.0)
        first, second = world.server.pids("gateway")
        os.kill(first, signal.SIGKILL)
        assert world.wait_for(lambda: world.version(job_id) >= 4, 60.0)
        os.kill(second, signal.SIGKILL)
        os.kill(world.pid("coordinator"), signal.SIGKILL)

    run("fedbuff", AGGREGATIONS, disturb).assert_exactly_once()
