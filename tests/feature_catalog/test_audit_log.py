"""Who changed what: written with the change, never changed afterwards, without secrets."""

import datetime as dt
import json

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from feature_catalog.audit_log import (
    COORDINATOR,
    AuditAction,
    AuditLog,
    current_actor,
    without_password,
)
from feature_catalog.devices import DeviceRegistry
from feature_catalog.jobs import JobQueue, UnknownJob
from feature_catalog.model_store import ModelStore, NewVersion, UnknownVersion


@pytest.fixture
def log(engine):
    return AuditLog(engine)


def facts(log):
    return [(e.actor, e.action, e.subject) for e in log.entries()]


def test_a_jobs_life_is_told_with_who_did_what(engine, log):
    jobs, me = JobQueue(engine), current_actor()
    first, second = jobs.submit("{}", "ads", None), jobs.submit("{}", "ads", None)
    jobs.claim(first)
    jobs.request_stop(first)
    jobs.request_stop(first)  # asked twice, told once
    jobs.finish(first, "stopped", "stopped with `flint stop`")
    jobs.finish(first, "failed", "too late")
    jobs.request_stop(second)
    jobs.request_stop(second)
    assert facts(log) == [
        (me, "job.submitted", first),
        (me, "job.submitted", second),
        (me, "job.stop_requested", first),
        (COORDINATOR, "job.ended", first),
        (me, "job.stop_requested", second),
        (me, "job.ended", second),
    ]
    assert log.entries()[3].detail == {"status": "stopped", "detail": "stopped with `flint stop`"}


def test_what_was_refused_is_not_told(engine, log, blobs):
    with pytest.raises(UnknownJob):
        JobQueue(engine).request_stop("j-none")
    with pytest.raises(UnknownVersion):
        ModelStore(engine, blobs).promote("ads", 3)
    assert log.entries() == ()


def test_a_promotion_says_what_was_in_production_before(engine, log, blobs):
    models = ModelStore(engine, blobs)
    versions = [models.add_version(NewVersion("ads", "tiny_mlp", bytes([n]))) for n in (1, 2)]
    models.promote("ads", 1)
    models.promote("ads", 2)
    assert [(e.subject, e.detail["before"]) for e in log.entries()] == [
        ("ads@1", None),
        ("ads@2", 1),
    ]
    assert log.entries()[1].detail["parameters_sha256"] == versions[1].parameters_sha256.hex()


def test_an_enrolment_token_is_told_without_the_token(engine, log):
    token = DeviceRegistry(engine).create_enrolment_token(50, 3600)
    (entry,) = log.entries()
    assert entry.detail == {"max_devices": 50, "valid_for_s": 3600}
    told = json.dumps([entry.subject, dict(entry.detail), entry.actor])
    assert not any(token[i : i + 8] in told for i in range(len(token) - 8))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET actor = 'somebody else'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ],
)
def test_entries_cannot_be_changed(engine, log, change):
    log.append(AuditAction.SETTINGS_CHANGED, "insecure", {"before": False, "after": True})
    before = log.entries()
    with pytest.raises(DBAPIError, match="additions only"), engine.begin() as connection:
        connection.execute(text(change))
    assert log.entries() == before


def test_entries_from_a_moment_on_and_the_newest_of_a_kind(engine, log):
    log.append(AuditAction.BACKUP_MADE, "first")
    between = log.entries()[0].at + dt.timedelta(microseconds=1)
    log.append(AuditAction.BACKUP_MADE, "second")
    assert [e.subject for e in log.entries(between)] == ["second"]
    assert log.newest(AuditAction.BACKUP_MADE) == log.entries()[1].at
    assert log.newest(AuditAction.KEY_MADE) is None


def test_behind_sudo_both_users_are_named(monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("SUDO_USER", "alice")
    assert current_actor().startswith("root (sudo alice)@")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql+psycopg2://flint:pa@ss@db:5432/flint",
            "postgresql+psycopg2://flint:***@db:5432/flint",
        ),
        ("postgresql://flint@/flint?host=/tmp/x", "postgresql://flint@/flint?***"),
        ("s3://key:secret@bucket/path", "s3://key:***@bucket/path"),
        ("file:///var/lib/flint/blobs", "file:///var/lib/flint/blobs"),
    ],
)
def test_urls_are_shown_without_what_lets_in(url, shown):
    assert without_password(url) == shown
