"""The job queue: order, one at a time, incarnations, and the one coordinator."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from sqlalchemy import Engine, text

from feature_catalog.database import connect
from feature_catalog.jobs import (
    AnotherLeader,
    JobNotClaimable,
    JobQueue,
    UnknownJob,
    leader_lock,
)

pytestmark = pytest.mark.integration

JOB_JSON = '{"name":"ads",  "seed": 7}'


@pytest.fixture
def queue(engine: Engine) -> JobQueue:
    return JobQueue(engine)


def test_a_submitted_job_waits_as_it_was_submitted(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", 2**64 - 1)
    row = queue.get(job_id)
    assert (row.status, row.name, row.job_json) == ("queued", "ads", JOB_JSON)
    assert (row.epoch, row.flower_run_id, row.progress) == (0, 2**64 - 1, {})
    assert row.started_at is None
    assert queue.running() is None


def test_jobs_run_one_at_a_time_in_order_of_submission(queue: JobQueue) -> None:
    first, second = (queue.submit(JOB_JSON, name, None) for name in ("a", "b"))
    assert queue.next_queued() == queue.get(first)
    assert queue.claim(first) == 1
    assert queue.running() == queue.get(first)
    with pytest.raises(JobNotClaimable, match="another job is running"):
        queue.claim(second)
    queue.finish(first, "finished", "target reached")
    assert queue.next_queued() == queue.get(second)
    assert queue.claim(second) == 1
    assert [(row.job_id, row.status) for row in queue.list()] == [
        (first, "finished"),
        (second, "running"),
    ]
    assert queue.get(first).detail == "target reached"


def test_every_claim_is_a_new_epoch_and_the_start_stays(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    assert queue.claim(job_id) == 1
    started_at = queue.get(job_id).started_at
    assert queue.claim(job_id) == 2
    assert queue.get(job_id).started_at == started_at


def test_simultaneous_claims_get_different_epochs(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    epochs: list[int] = []
    threads = [
        threading.Thread(target=lambda: epochs.append(queue.claim(job_id))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs) == list(range(1, 9))


def test_of_two_jobs_claimed_at_once_one_runs(queue: JobQueue) -> None:
    job_ids = [queue.submit(JOB_JSON, "ads", None) for _ in range(6)]
    refused: list[str] = []

    def claim(job_id: str) -> None:
        try:
            queue.claim(job_id)
        except JobNotClaimable:
            refused.append(job_id)

    threads = [threading.Thread(target=claim, args=(job_id,)) for job_id in job_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert [row.status for row in queue.list()].count("running") == 1


def test_an_ended_job_stays_ended(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    queue.claim(job_id)
    queue.finish(job_id, "failed", "no artefact")
    queue.finish(job_id, "finished", "late word")
    queue.request_stop(job_id)
    row = queue.get(job_id)
    assert (row.status, row.detail) == ("failed", "no artefact")
    with pytest.raises(JobNotClaimable, match="is failed"):
        queue.claim(job_id)


def test_stopping_a_running_job_is_a_request(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    queue.claim(job_id)
    assert not queue.stop_requested(job_id)
    assert queue.request_stop(job_id).status == "running"
    assert queue.stop_requested(job_id)


def test_stopping_a_waiting_job_ends_it_at_once(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    row = queue.request_stop(job_id)
    assert (row.status, row.detail) == ("stopped", "stopped before it started")
    assert row.finished_at is not None
    assert queue.next_queued() is None


def test_progress_is_replaced_and_numbers_that_are_none_are_null(queue: JobQueue) -> None:
    job_id = queue.submit(JOB_JSON, "ads", None)
    queue.update_progress(job_id, {"version": 1, "metric": 0.25})
    queue.update_progress(
        job_id, {"version": 2, "metric": float("nan"), "outcomes": {"succeeded": 3}}
    )
    assert queue.get(job_id).progress == {
        "version": 2,
        "metric": None,
        "outcomes": {"succeeded": 3},
    }


def test_an_unknown_job_is_said_to_be(queue: JobQueue) -> None:
    for ask in (
        queue.get,
        queue.claim,
        queue.request_stop,
        queue.stop_requested,
        lambda job_id: queue.finish(job_id, "failed", ""),
        lambda job_id: queue.set_flower_run(job_id, 1),
        lambda job_id: queue.update_progress(job_id, {}),
    ):
        with pytest.raises(UnknownJob, match="no job j-0"):
            ask("j-0")


def test_a_second_coordinator_is_refused_and_the_next_one_is_not(database_url: str) -> None:
    first, second = connect(database_url), connect(database_url)
    with leader_lock(first) as lock:
        assert lock.is_held()
        with pytest.raises(AnotherLeader), leader_lock(second, wait_s=0):
            pass
    with leader_lock(second, wait_s=0) as lock:
        assert lock.is_held()
    first.dispose()
    second.dispose()


def test_a_leader_whose_connection_is_cut_knows_it(engine: Engine, database_url: str) -> None:
    other = connect(database_url)
    with leader_lock(engine) as lock:
        with other.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks "
                    "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                )
            )
        assert not lock.is_held()
        with leader_lock(other, wait_s=5):
            assert not lock.is_held()
    other.dispose()


def test_a_killed_coordinator_leaves_the_lock_to_the_next(
    engine: Engine, database_url: str
) -> None:
    script = (
        "import sys\n"
        "from feature_catalog.database import connect\n"
        "from feature_catalog.jobs import leader_lock\n"
        "with leader_lock(connect(sys.argv[1])):\n"
        "    print('leading', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, database_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leading\n"
        with pytest.raises(AnotherLeader), leader_lock(engine, wait_s=0):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with leader_lock(engine, wait_s=10) as lock:
        assert lock.is_held()
