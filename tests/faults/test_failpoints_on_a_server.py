"""Every failpoint on a real server: the job goes on, and the model holds every update once."""

import pytest

from feature_catalog.failpoints import FAILPOINTS, arm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

BUFFER = 6
PASSES = {"update_folded": 9, "update_accepted": 9, "progress_to_be_sent": 5}


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_process_killed_at_a_failpoint_costs_at_most_one_buffer(run, name):
    strategy = "fedavg" if FAILPOINTS.index(name) % 2 else "fedbuff"
    killed = []

    def disturb(world, job_id):
        role = "gateway" if FAILPOINTS.index(name) > 6 else "coordinator"
        before = world.restarts(role)
        arm(world.server.failpoint_file, name, PASSES.get(name, 3))
        assert world.wait_for(lambda: not world.server.failpoint_file.exists(), 60.0)
        assert world.wait_for(lambda: world.restarts(role) == before + 1, 30.0)
        killed.append(role)

    outcome = run(strategy, 6, disturb)
    outcome.assert_exactly_once()
    if killed == ["coordinator"]:
        assert outcome.fleet.asked_again == 0, "gateways keep what they were sent"
        assert outcome.job.epoch == 2
    # What is held, and what came in while that was released.
    assert outcome.fleet.asked_again <= 2 * BUFFER
