"""The production profile refuses what is not safe, each thing with its code and mend."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from feature_catalog.audit_log import AuditLog
from feature_catalog.devices import DeviceRegistry, InvalidEnrolmentToken
from server.operations import production
from server.operations.production import (
    EmbeddedDatabase,
    NamelessGateway,
    OpenDataDirectory,
    OpenSuperLink,
    PlainDatabaseTraffic,
    PlainTraffic,
    PlannedServer,
    RootServer,
    SoftwareAttestation,
    TemporaryStorage,
    UnlimitedEnrolment,
    UnsafeForProduction,
    find_unsafe,
    require_limited_token,
    require_limited_tokens,
    require_safe,
    why_temporary,
)
from server.operations.up import ServerOptions, prepare

DATABASE = "postgresql+psycopg2://flint:secret@db.example.com/flint?sslmode=verify-full"
SAFE = PlannedServer(
    home=Path("/var/lib/flint-of-this-test"),
    insecure=False,
    host="0.0.0.0",
    superlink_host="127.0.0.1",
    hostnames=("fl.example.com",),
    database_url=DATABASE,
    blob_url="s3://bucket/flint",
    user_id=1000,
)


@pytest.fixture(autouse=True)
def _on_a_disk(monkeypatch, tmp_path):
    """This machine's own disks are not what is tested."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "23 22 0:5 / /srv/ram\\040disk rw - tmpfs tmpfs rw\n"
        "24 22 0:6 / /srv/layer rw - overlay overlay rw\n"
        "25 24 8:2 / /srv/layer/volume rw - xfs /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(production, "_MOUNTS", mounts)


def refused(**planned: object) -> list[type[UnsafeForProduction]]:
    return [type(problem) for problem in find_unsafe(replace(SAFE, **planned))]


def test_a_safe_deployment_is_let_up():
    require_safe(SAFE)
    assert refused() == []


@pytest.mark.parametrize(
    ("planned", "problem", "mend"),
    [
        ({"attestation": "software_root"}, SoftwareAttestation, "--attestation aws_nitro"),
        ({"insecure": True}, PlainTraffic, "leave --insecure out"),
        ({"database_url": None}, EmbeddedDatabase, "set FLINT_DATABASE_URL"),
        (
            {"database_url": "postgresql://flint@db.example.com/flint"},
            PlainDatabaseTraffic,
            "sslmode=verify-full",
        ),
        (
            {"database_url": f"{DATABASE}".replace("verify-full", "prefer")},
            PlainDatabaseTraffic,
            "sslmode=verify-full",
        ),
        ({"home": Path("/tmp/flint")}, TemporaryStorage, "put it on a disk"),
        ({"blob_url": "file:///dev/shm/blobs"}, TemporaryStorage, "put it on a disk"),
        ({"blob_url": "memory://blobs"}, TemporaryStorage, "set FLINT_BLOB_URL"),
        ({"user_id": 0}, RootServer, "as a user of its own"),
        ({"superlink_host": "0.0.0.0"}, OpenSuperLink, "leave --superlink-host at 127.0.0.1"),
        ({"superlink_host": "10.0.0.5"}, OpenSuperLink, "tunnel"),
        ({"hostnames": ()}, NamelessGateway, "with --hostname"),
    ],
)
def test_each_unsafe_setting_is_refused_with_its_mend(planned, problem, mend):
    assert refused(**planned) == [problem]
    with pytest.raises(problem, match=rf"{mend}.*\[{problem.code}\]") as raised:
        require_safe(replace(SAFE, **planned))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "planned",
    [
        {"database_url": "postgresql://flint@127.0.0.1/flint"},
        {"database_url": "postgresql://flint@localhost/flint"},
        {"database_url": "postgresql://flint@/flint?host=/run/postgresql"},
        {"database_url": "postgresql://flint@db/flint", "database_sslmode": "require"},
        {"host": "127.0.0.1", "hostnames": ()},
        {"host": "::1", "hostnames": ()},
        {"superlink_host": "localhost"},
        {"blob_url": "/var/lib/flint-blobs-of-this-test"},
    ],
)
def test_what_only_looks_unsafe_is_let_up(planned):
    assert refused(**planned) == []


def test_the_first_is_told_and_the_others_named():
    with pytest.raises(PlainTraffic, match=r"then there is also FLN-1221, FLN-1225 \[FLN-1220\]"):
        require_safe(replace(SAFE, insecure=True, database_url=None, user_id=0))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/srv/ram disk/flint", "on tmpfs"),
        ("/srv/layer/flint", "on overlay"),
        ("/srv/layer/volume/flint", ""),
        ("/srv/flint", ""),
    ],
)
def test_memory_and_a_containers_own_layer_do_not_last_and_a_volume_does(place, why, monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    assert why_temporary(Path(place)) == why


@pytest.mark.parametrize(
    ("mode", "owner_is_server", "is_safe"),
    [(0o755, True, True), (0o700, True, True), (0o775, True, False), (0o755, False, False)],
)
def test_a_data_directory_that_others_can_write_to_is_refused(
    tmp_path, monkeypatch, mode, owner_is_server, is_safe
):
    monkeypatch.setattr(production, "why_temporary", lambda place: "")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    user_id = home.stat().st_uid + (0 if owner_is_server else 1)
    assert (OpenDataDirectory not in refused(home=home, user_id=user_id)) is is_safe


def test_flint_up_refuses_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("FLINT_DATABASE_URL", raising=False)
    home = tmp_path / "home"
    with pytest.raises(PlainTraffic, match="FLN-1221"):
        prepare(home, ServerOptions(insecure=True, profile="production"))
    assert not home.exists()


# -- enrolment ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("devices", "days"), [(2_000_000, 1), (10, 31)])
def test_a_token_without_a_sensible_limit_is_neither_made_nor_kept(engine, devices, days):
    with pytest.raises(UnlimitedEnrolment, match="--max-devices"):
        require_limited_token(devices, days * 24)
    registry = DeviceRegistry(engine)
    registry.create_enrolment_token(devices, dt.timedelta(days=days).total_seconds())
    with pytest.raises(UnlimitedEnrolment, match="flint device end-tokens"):
        require_limited_tokens(engine)
    assert registry.end_enrolment_tokens() == 1
    require_limited_tokens(engine)


def test_tokens_with_limits_are_fine_however_long_ago_they_were_made(engine):
    require_limited_token(1_000_000, 30 * 24)
    DeviceRegistry(engine).create_enrolment_token(1_000_000, 30 * 24 * 3600)
    require_limited_tokens(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE enrolment_tokens SET created_at = created_at - interval '29 days'")
        )
        connection.execute(
            text("UPDATE enrolment_tokens SET expires_at = expires_at - interval '29 days'")
        )
    require_limited_tokens(engine)


def test_ended_tokens_let_nobody_in_but_those_who_are_in(engine):
    registry = DeviceRegistry(engine)
    token = registry.create_enrolment_token(10, 3600)
    registry.enrol(token, "d1", b"key 1", "app", "model", "os")
    assert registry.end_enrolment_tokens() == 1
    assert registry.end_enrolment_tokens() == 0
    registry.enrol(token, "d1", b"key 1", "app", "model", "os")
    with pytest.raises(InvalidEnrolmentToken):
        registry.enrol(token, "d2", b"key 2", "app", "model", "os")
    actions = [entry.action for entry in AuditLog(engine).entries()]
    assert actions == ["enrolment_token.made", "enrolment_token.ended"]
