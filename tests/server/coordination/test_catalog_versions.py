"""A job's versions and totals in the catalog, as a coordinator that was killed leaves them."""

import dataclasses

import pytest

from feature_catalog.blobs import BlobStoreUnreachable
from feature_catalog.jobs import JobQueue, JobTakenOver
from feature_catalog.model_store import ModelStore
from modeling.zoo import get_model
from server.coordination.catalog_versions import CatalogVersions
from server.coordination.tasks import Outcome, TaskResult
from server.coordination.versions import JobTotals
from server.operations import memory

pytestmark = pytest.mark.integration

TINY = get_model("tiny_mlp")


@pytest.fixture
def job_id(engine):
    return JobQueue(engine).submit("{}", "ads", None)


@pytest.fixture
def coordinator(engine, blobs, job_id):
    """Makes the versions of the job's next coordinator, with what it was told is stored."""

    def start():
        stored = []
        models, jobs = ModelStore(engine, blobs), JobQueue(engine)
        versions = CatalogVersions(
            models,
            job_id,
            jobs.claim(job_id),
            "ads",
            TINY,
            b"c" * 32,
            on_stored=lambda: stored.append(True),
        )
        versions.begin(TINY.initial_parameters(0), None)
        return versions, stored

    return start


def ended(task_id, outcome=Outcome.FAILED, reason="engine"):
    return TaskResult(task_id, "d-1", 0, outcome, reason)


def next_version(versions, outcomes):
    newest = versions.newest()
    totals = JobTotals(10.0, 1, outcomes, {"engine": 1, "bad_signature": 2})
    return dataclasses.replace(newest, number=newest.number + 1, totals=totals)


def test_totals_of_a_restart_hold_what_ended_after_the_newest_version(coordinator):
    versions, _ = coordinator()
    counted = ended("t-1", Outcome.SUCCEEDED, "aggregated")
    version = next_version(versions, {"succeeded": 1, "failed": 1, "refused": 2})
    versions.store(version, [counted, ended("t-2")])
    versions.store_results([ended("t-3"), ended("t-4", Outcome.STALE, "base_version")])
    again, _ = coordinator()
    totals = again.newest().totals
    assert totals.outcomes == {"succeeded": 1, "failed": 2, "stale": 1, "refused": 2}
    assert totals.reasons == {"engine": 2, "base_version": 1, "bad_signature": 2}
    assert sorted(again.ended_tasks()) == ["t-1", "t-2", "t-3", "t-4"]


def test_freed_memory_is_given_back_after_a_version_and_not_after_the_next(
    coordinator, monkeypatch
):
    given_back = []
    monkeypatch.setattr(memory, "give_back_memory", lambda: given_back.append(1))
    versions, _ = coordinator()
    for _ in range(3):
        versions.store(next_version(versions, {}), [])
    assert given_back == [1]


def test_it_says_when_all_is_stored_and_not_before(coordinator, monkeypatch):
    versions, stored = coordinator()
    versions.store_results([ended("t-1")])
    assert stored == [True]

    def fails(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(versions._models, "add_version", fails)
    with pytest.raises(OSError, match="no space"):
        versions.store(next_version(versions, {}), [])
    assert stored == [True]


def test_a_coordinator_that_another_has_replaced_stores_nothing(coordinator):
    deposed, told = coordinator()
    leader, _ = coordinator()
    with pytest.raises(JobTakenOver):
        deposed.store(next_version(deposed, {}), [ended("t-1")])
    with pytest.raises(JobTakenOver):
        deposed.store_results([ended("t-1")])
    assert told == []
    assert leader.newest().number == 0
    assert leader.ended_tasks() == ()


def test_a_version_waits_for_a_blob_store_that_is_full_and_is_stored_once(
    coordinator, blobs, monkeypatch, caplog
):
    versions, stored = coordinator()
    room, put = iter([False, False, True]), blobs.put

    def full(data):
        raise BlobStoreUnreachable("the blob store cannot be used (no space left on device)")

    def try_again():
        if next(room):
            monkeypatch.setattr(blobs, "put", put)
        return True

    monkeypatch.setattr(blobs, "put", full)
    monkeypatch.setattr(versions, "_try_again", try_again)
    versions.store(next_version(versions, {}), [ended("t-1")])
    assert stored == [True]
    assert versions.newest().number == 1
    said = [r.message for r in caplog.records if "waits: the blob store" in r.message]
    assert len(said) == 3

    monkeypatch.setattr(blobs, "put", full)
    monkeypatch.setattr(versions, "_try_again", lambda: False)
    with pytest.raises(BlobStoreUnreachable):
        versions.store(next_version(versions, {}), [])
    assert versions.newest().number == 1
