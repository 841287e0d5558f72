import datetime as dt
import json

import pytest
import typer

from feature_catalog.audit_log import AuditAction, AuditLog
from feature_catalog.jobs import JobQueue
from flint.cli.audit_command import audit, parse_moment

NOW = dt.datetime(2026, 5, 8, 12, 0, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("90m", NOW - dt.timedelta(minutes=90)),
        ("12h", NOW - dt.timedelta(hours=12)),
        ("7d", NOW - dt.timedelta(days=7)),
        ("2026-05-01", dt.datetime(2026, 5, 1, tzinfo=NOW.tzinfo)),
        ("2026-05-01T08:00", dt.datetime(2026, 5, 1, 8, tzinfo=NOW.tzinfo)),
        ("2026-05-01T08:00+00:00", dt.datetime(2026, 5, 1, 8, tzinfo=dt.UTC)),
    ],
)
def test_a_moment_is_a_date_a_time_or_an_age(given, moment):
    assert parse_moment(given, NOW) == moment


def test_anything_else_is_a_mistake_with_examples():
    with pytest.raises(typer.BadParameter, match=r"'yesterday' is no moment.*7d"):
        parse_moment("yesterday", NOW)


def test_it_lists_who_changed_what_and_reads_as_json(
    engine, database_url, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FLINT_DATABASE_URL", database_url)
    job_id = JobQueue(engine).submit("{}", "ads", None)
    AuditLog(engine).append(AuditAction.KEY_MADE, "token key")
    audit(home=tmp_path)
    shown = capsys.readouterr().out
    assert job_id in shown
    assert "token key" in shown
    audit(since="1h", home=tmp_path, as_json=True)
    entries = json.loads(capsys.readouterr().out)
    assert [e["action"] for e in entries] == ["job.submitted", "key.made"]
    assert entries[0]["detail"]["name"] == "ads"
    audit(since="2999-01-01", home=tmp_path)
    assert capsys.readouterr().out == "nothing was changed since 2999-01-01\n"
