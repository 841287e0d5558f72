"""What `flint up` changes is in the audit log, without secrets, and needs no database to happen."""

from dataclasses import replace

import pytest

from feature_catalog.audit_log import AuditLog, current_actor
from server.operations import told_changes
from server.operations.tls import ROLES, ensure_keys
from server.operations.told_changes import (
    renew_and_tell,
    settings_before,
    tell_keys,
    tell_settings,
)


@pytest.fixture
def audit(engine):
    return AuditLog(engine)


def test_the_first_start_is_told_with_all_settings_and_no_password(audit, settings):
    url = "postgresql+psycopg2://flint:hunter2@db/flint?sslpassword=hunter3"
    tell_settings(audit, None, replace(settings, database_url=url))
    (entry,) = audit.entries()
    assert entry.subject == "first start"
    assert entry.detail["gateway_address"] == settings.gateway_address
    assert entry.detail["database_url"] == "postgresql+psycopg2://flint:***@db/flint?***"
    assert "hunter" not in str(entry)


def test_each_setting_that_changed_is_told_and_no_other(audit, settings):
    settings.save()
    before = settings_before(settings.home)
    assert before == settings
    tell_settings(audit, before, settings)
    assert audit.entries() == ()
    tell_settings(audit, before, replace(settings, insecure=True, check_ins_per_s=7.0))
    assert [(e.actor, e.subject, e.detail) for e in audit.entries()] == [
        (current_actor(), "check_ins_per_s", {"before": 200.0, "after": 7.0}),
        (current_actor(), "insecure", {"before": False, "after": True}),
    ]


def test_without_an_earlier_server_there_is_nothing_before(tmp_path):
    assert settings_before(tmp_path) is None


def test_keys_and_certificates_made_are_told_by_what_they_are_for(audit, settings):
    tell_keys(audit, ensure_keys(settings))
    assert [(e.action, e.subject) for e in audit.entries()] == [
        ("key.made", "token key"),
        *(("certificate.issued", role) for role in ("ca", *ROLES)),
    ]


def test_a_renewal_by_the_server_itself_is_told_as_its_own(audit, settings, database_url):
    settings = replace(settings, database_url=database_url)
    ensure_keys(settings)
    assert renew_and_tell(settings) == ()
    assert renew_and_tell(settings, ["gateway"]) == ("gateway",)
    assert [(e.actor, e.subject) for e in audit.entries()] == [("supervisor", "gateway")]


def test_a_database_that_is_away_keeps_no_certificate_from_being_renewed(
    settings, monkeypatch, caplog
):
    ensure_keys(settings)
    before = settings.certificate("gateway").read_bytes()
    unreachable = replace(settings, database_url="postgresql+psycopg2://flint@127.0.0.1:1/flint")
    assert renew_and_tell(unreachable, ["gateway"]) == ("gateway",)
    assert settings.certificate("gateway").read_bytes() != before
    assert "renewed gateway, which the audit log lacks" in caplog.text
    assert told_changes.log.name in caplog.text
