"""Faults on a real server in the middle of a job: it goes on, and every update counts once."""

import os
import signal
import time

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STRATEGIES = pytest.mark.parametrize("strategy", ["fedbuff", "fedavg"])
AGGREGATIONS = 8


def in_the_middle(world, job_id):
    assert world.wait_for(lambda: world.version(job_id) >= 2, 60.0), world.state(job_id)


def killing(role):
    def disturb(world, job_id):
        in_the_middle(world, job_id)
        os.kill(world.pid(role), signal.SIGKILL)

    return disturb


def test_superlink_killed(world, run):
    before = world.restarts("superlink")
    outcome = run("fedbuff", AGGREGATIONS, killing("superlink"))
    outcome.assert_exactly_once()
    assert world.restarts("superlink") == before + 1
    assert outcome.job.epoch == 1, "the coordinator did not mind"


def test_superlink_killed_and_its_memory_lost_the_job_gets_another_run(world, run):
    runs = []

    def disturb(world, job_id):
        in_the_middle(world, job_id)
        runs.append(world.deployment.jobs.get(job_id).flower_run_id)
        # The job is not to finish without the run.
        world.fleet.at_rest.set()
        os.kill(world.pid("superlink"), signal.SIGKILL)
        for path in world.server.home.glob("superlink.sqlite*"):
            path.unlink()
        assert world.wait_for(
            lambda: world.deployment.jobs.get(job_id).flower_run_id != runs[0], 60.0
        ), world.state(job_id)
        world.fleet.at_rest.clear()

    outcome = run("fedbuff", AGGREGATIONS, disturb)
    outcome.assert_exactly_once()


@STRATEGIES
def test_postgres_killed(world, run, strategy):
    outcome = run(strategy, AGGREGATIONS, killing("postgres"))
    outcome.assert_exactly_once()
    assert outcome.job.epoch == 2, "the coordinator was started again with it"


def test_postgres_away_for_ten_seconds(world, run):
    def disturb(world, job_id):
        in_the_middle(world, job_id)
        postmaster = psutil.Process(world.pid("postgres"))
        stopped = [postmaster, *postmaster.children()]
        for process in stopped:
            process.suspend()
        time.sleep(10.0)  # the fault itself, not a wait
        for process in stopped:
            process.resume()

    outcome = run("fedbuff", AGGREGATIONS, disturb)
    outcome.assert_exactly_once()


@STRATEGIES
def test_everything_killed_at_once_and_started_again(world, run, strategy):
    def disturb(world, job_id):
        in_the_middle(world, job_id)
        world.server.kill_everything()
        world.server.collect()
        assert world.wait_for(lambda: world.server.processes() == [], 20.0)
        world.server.start()

    outcome = run(strategy, AGGREGATIONS, disturb)
    outcome.assert_exactly_once()
    assert outcome.job.epoch == 2


def test_the_supervisor_killed_nothing_outlives_it_and_flint_up_goes_on(world, run):
    def disturb(world, job_id):
        in_the_middle(world, job_id)
        os.kill(world.pid("supervisor"), signal.SIGKILL)
        world.server.collect()
        assert world.wait_for(lambda: world.server.processes() == [], 20.0), [
            process.cmdline() for process in world.server.processes()
        ]
        world.server.start()

    outcome = run("fedbuff", AGGREGATIONS, disturb)
    outcome.assert_exactly_once()


def test_gateway_and_coordinator_killed_together(world, run):
    def disturb(world, job_id):
        in_the_middle(world, job_id)
        for role in ("gateway", "coordinator"):
            os.kill(world.pid(role), signal.SIGKILL)

    run("fedavg", AGGREGATIONS, disturb).assert_exactly_once()


def test_a_blob_store_that_is_full_holds_the_job_up_until_there_is_space(world, run):
    """A limit on the size of files is to the coordinator what a full disk is."""
    log = world.server.home / "logs" / "coordinator.log"

    def disturb(world, job_id):
        in_the_middle(world, job_id)
        os.truncate(log, 0)  # its log is to have room
        coordinator = psutil.Process(world.pid("coordinator"))
        limit = coordinator.rlimit(psutil.RLIMIT_FSIZE)
        coordinator.rlimit(psutil.RLIMIT_FSIZE, (5_000, limit[1]))  # a version has 6 KB
        assert world.wait_for(lambda: "waits: the blob store" in log.read_text(), 30.0)
        version = world.version(job_id)
        drafts = list((world.server.home / "blobs").glob(".new-*"))
        coordinator.rlimit(psutil.RLIMIT_FSIZE, limit)
        assert drafts == [], "nothing half written"
        assert world.wait_for(lambda: world.version(job_id) > version, 30.0)

    outcome = run("fedbuff", AGGREGATIONS, disturb)
    outcome.assert_exactly_once()
    assert outcome.job.epoch == 1, "it waited in place"
    assert outcome.fleet.asked_again == 0
    assert "FLN-1237" in log.read_text()
