"""What no process counts: read from the real database, certificates, disk and /proc."""

import datetime as dt
import json
import os
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from feature_catalog.audit_log import AuditAction, AuditLog
from feature_catalog.jobs import JobQueue
from server.operations.deployment_metrics import DeploymentCollector
from server.operations.home_claim import claim_home
from server.operations.tls import ensure_keys, read_certificates


@pytest.fixture
def registry(settings, database_url):
    settings = replace(settings, database_url=database_url)
    registry = CollectorRegistry()
    registry.register(DeploymentCollector(settings))
    return registry


def test_jobs_by_status_and_the_age_of_the_backup(registry, engine):
    value = registry.get_sample_value
    assert value("flint_jobs", {"status": "queued"}) == 0
    assert value("flint_backup_timestamp_seconds") == 0
    jobs = JobQueue(engine)
    jobs.submit("{}", "ads", None)
    jobs.claim(jobs.submit("{}", "ads", None))
    AuditLog(engine).append(AuditAction.BACKUP_MADE, "/backups")
    assert value("flint_jobs", {"status": "queued"}) == 1
    assert value("flint_jobs", {"status": "running"}) == 1
    assert value("flint_database_reachable") == 1
    made_s = value("flint_backup_timestamp_seconds")
    assert abs(made_s - dt.datetime.now(dt.UTC).timestamp()) < 60


def test_a_database_that_is_away_takes_nothing_else_with_it(settings):
    url = "postgresql+psycopg2://flint@127.0.0.1:1/flint"
    registry = CollectorRegistry()
    registry.register(DeploymentCollector(replace(settings, database_url=url)))
    assert registry.get_sample_value("flint_database_reachable") == 0
    assert registry.get_sample_value("flint_jobs", {"status": "queued"}) is None
    assert registry.get_sample_value("flint_free_bytes", {"of": "home"}) > 0


def test_the_end_of_every_certificate(registry, settings):
    ensure_keys(settings)
    for facts in read_certificates(settings):
        found = registry.get_sample_value(
            "flint_certificate_expiry_timestamp_seconds", {"role": facts.role}
        )
        assert found == facts.valid_until.timestamp()


def test_memory_and_files_of_the_supervised_processes(registry, settings):
    with claim_home(settings.home):
        processes = [
            {"name": "gateway", "state": "ready", "pid": os.getpid(), "restarts": 2},
            {"name": "superlink", "state": "waiting", "pid": None, "restarts": 7},
        ]
        status = {"pid": os.getpid(), "processes": processes}
        (settings.home / "run" / "status.json").write_text(json.dumps(status))

        def of(name, process):
            return registry.get_sample_value(name, {"process": process})

        assert of("flint_process_up", "gateway") == 1
        assert of("flint_process_up", "superlink") == 0
        assert of("flint_process_restarts_total", "superlink") == 7
        assert of("flint_process_resident_bytes", "gateway") > 10 * 2**20
        assert of("flint_process_open_files", "gateway") > 3
        assert of("flint_process_resident_bytes", "superlink") is None


def test_disks_are_measured_before_there_is_any_blob(registry):
    for of in ("home", "blobs"):
        free = registry.get_sample_value("flint_free_bytes", {"of": of})
        assert 0 < free <= registry.get_sample_value("flint_disk_bytes", {"of": of})
