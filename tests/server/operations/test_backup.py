"""A backup brought back is the deployment it was made of: rows, blobs, keys, audit log."""

import hashlib
import stat
import subprocess
import uuid
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url

from device_runtime.update_codec import encode_parameters
from feature_catalog.audit_log import AuditAction, AuditLog
from feature_catalog.blobs import BlobStore, CorruptBlob
from feature_catalog.database import connect, upgrade
from feature_catalog.devices import DeviceRegistry
from feature_catalog.jobs import JobQueue
from feature_catalog.model_store import ModelStore, NewVersion
from modeling.zoo import get_model
from server.operations import backup as backup_module
from server.operations.backup import (
    BackupFailed,
    NoBackup,
    NotEmpty,
    back_up,
    find_backup,
    remove_old,
    restore,
)
from server.operations.tls import ensure_keys

MODEL = get_model("tiny_mlp")


@pytest.fixture
def deployment(engine, blobs, settings):
    """A job with two versions, a token, keys."""
    ensure_keys(settings)
    jobs, models = JobQueue(engine), ModelStore(engine, blobs)
    job_id = jobs.submit("{}", "ads", 2**63 + 1)
    for number in range(2):
        arrays = MODEL.initial_parameters(seed=number)
        parameters = encode_parameters(MODEL.parameters, arrays)
        models.add_version(
            NewVersion("ads", "tiny_mlp", parameters, job_id=job_id, job_version=number)
        )
    models.promote("ads", 2)
    DeviceRegistry(engine).create_enrolment_token(10, 3600)
    return settings


@pytest.fixture
def empty_engine(postgres_server):
    """An engine on a database without a table."""
    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = connect(postgres_server.url(name))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def rows(engine) -> dict[str, list[tuple]]:
    """Every row of every table."""
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).scalars()
        return {
            table: sorted(connection.execute(text(f"SELECT t::text FROM {table} t")).scalars())
            for table in tables
        }


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_what_was_backed_up_comes_back_whole(deployment, engine, blobs, empty_engine, tmp_path):
    before = rows(engine)
    back_up(deployment.home, engine, blobs, tmp_path / "backups")
    backup = find_backup(tmp_path / "backups")
    target = BlobStore(str(tmp_path / "new-blobs"))
    restore(backup, tmp_path / "new-home", empty_engine, target)

    after = rows(empty_engine)
    # The dump is older than its own entry; the restored one adds that it was restored.
    assert after["audit_log"][: len(before["audit_log"])] == before["audit_log"]
    assert AuditLog(empty_engine).entries()[-1].action == AuditAction.BACKUP_RESTORED
    assert {t: r for t, r in after.items() if t != "audit_log"} == {
        t: r for t, r in before.items() if t != "audit_log"
    }
    assert set(target.digests()) == set(blobs.digests())
    for name in ("secrets", "tls"):
        assert files(tmp_path / "new-home" / name) == files(deployment.home / name)
    version = ModelStore(empty_engine, target).resolve("ads@production")
    np.testing.assert_array_equal(
        np.frombuffer(ModelStore(empty_engine, target).parameters(version), np.uint8),
        np.frombuffer(blobs.get(version.parameters_sha256), np.uint8),
    )


def test_a_restored_catalog_goes_on(deployment, engine, blobs, empty_engine, tmp_path):
    back_up(deployment.home, engine, blobs, tmp_path / "backups")
    target = BlobStore(str(tmp_path / "new-blobs"))
    restore(find_backup(tmp_path / "backups"), tmp_path / "new", empty_engine, target)
    upgrade(empty_engine)
    jobs = JobQueue(empty_engine)
    (row,) = jobs.list()
    assert jobs.claim(row.job_id) == 1
    parameters = encode_parameters(MODEL.parameters, MODEL.initial_parameters(seed=9))
    added = ModelStore(empty_engine, target).add_version(
        NewVersion("ads", "tiny_mlp", parameters, job_id=row.job_id, job_version=2)
    )
    assert added.number == 3
    with pytest.raises(Exception, match="additions only"), empty_engine.begin() as connection:
        connection.execute(text("DELETE FROM audit_log"))


def test_a_backup_is_for_its_owner_only(deployment, engine, blobs, tmp_path):
    backup = back_up(deployment.home, engine, blobs, tmp_path / "backups")
    assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700
    secret = [backup.path / "database.dump", *(backup.path / "keys" / "secrets").iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


def test_a_second_backup_copies_new_blobs_only(deployment, engine, blobs, tmp_path, monkeypatch):
    folder = tmp_path / "backups"
    first = back_up(deployment.home, engine, blobs, folder)
    assert (first.blobs, first.new_bytes) == (2, sum(blobs.size(d) for d in blobs.digests()))
    blobs.put(b"new")
    monkeypatch.setattr("server.operations.backup._NAME", "29990101T000000Z")
    second = back_up(deployment.home, engine, blobs, folder)
    assert (second.blobs, second.new_bytes) == (3, 3)
    assert find_backup(folder).path == second.path
    assert find_backup(first.path) == first
    assert remove_old(folder, 1) == (first.path,)
    assert find_backup(folder).path == second.path


def test_the_audit_log_knows_of_the_backup(deployment, engine, blobs, tmp_path):
    backup = back_up(deployment.home, engine, blobs, tmp_path / "backups")
    entry = AuditLog(engine).entries()[-1]
    assert (entry.action, entry.subject) == (AuditAction.BACKUP_MADE, str(backup.path))


def test_one_that_broke_off_or_is_damaged_is_not_restored(deployment, engine, blobs, tmp_path):
    folder = tmp_path / "backups"
    with pytest.raises(NoBackup, match="holds no complete backup"):
        find_backup(folder)
    (folder / "29990101T000000Z").mkdir(parents=True)
    backup = back_up(deployment.home, engine, blobs, folder)
    assert find_backup(folder) == backup
    with (backup.path / "database.dump").open("r+b") as dump:
        dump.write(b"X")
    with pytest.raises(NoBackup, match="is damaged"):
        find_backup(folder)


def test_it_is_restored_into_something_empty_only(
    deployment, engine, blobs, empty_engine, tmp_path
):
    backup = back_up(deployment.home, engine, blobs, tmp_path / "backups")
    target = BlobStore(str(tmp_path / "new-blobs"))
    with pytest.raises(NotEmpty, match="has tables already"):
        restore(backup, tmp_path / "new", engine, target)
    other = tmp_path / "other"
    (other / "secrets").mkdir(parents=True)
    (other / "secrets" / "token.key").write_bytes(b"another")
    with pytest.raises(NotEmpty, match="another key than the backup's"):
        restore(backup, other, empty_engine, target)
    assert rows(empty_engine) == {}


def test_a_missing_or_damaged_blob_is_told_before_the_database_is_touched(
    deployment, engine, blobs, empty_engine, tmp_path
):
    backup = back_up(deployment.home, engine, blobs, tmp_path / "backups")
    one, other = [p for p in (tmp_path / "backups" / "blobs").rglob("*") if p.is_file()]
    one.write_bytes(b"damaged")
    other.unlink()
    target = BlobStore(str(tmp_path / "new-blobs"))
    with pytest.raises(NoBackup, match="1 are missing and 1 damaged"):
        restore(backup, tmp_path / "new", empty_engine, target)
    assert rows(empty_engine) == {}
    assert set(target.digests()) == set()


def test_a_damaged_blob_in_the_store_keeps_nothing_else_from_being_backed_up(
    deployment, engine, blobs, tmp_path
):
    damaged = blobs.put(b"good")
    path = Path(blobs._path(damaged))
    path.write_bytes(b"bad!")
    with pytest.raises(CorruptBlob, match=damaged.hex()[:16]):
        back_up(deployment.home, engine, blobs, tmp_path / "backups")
    kept = BlobStore(str(tmp_path / "backups" / "blobs"))
    assert set(kept.digests()) == set(blobs.digests()) - {damaged}
    assert find_backup(tmp_path / "backups").blobs == 2


def test_a_folder_that_cannot_be_written_is_one_sentence(deployment, engine, blobs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BackupFailed, match="make room or give a folder"):
        back_up(deployment.home, engine, blobs, tmp_path / "file" / "backups")


def test_blobs_of_an_object_store_are_listed_and_copied(tmp_path):
    source = BlobStore(f"memory://{uuid.uuid4().hex}")
    assert list(source.digests()) == []
    digest = source.put(b"in memory")
    assert list(source.digests()) == [digest] == [hashlib.sha256(b"in memory").digest()]
    target = BlobStore(f"memory://{uuid.uuid4().hex}")
    with source.open(digest) as stream:
        assert target.put_stream(stream) == digest
    assert target.get(digest) == b"in memory"


def test_a_password_goes_to_the_tool_by_its_environment_only(monkeypatch):
    ran = {}

    def run(command, env, **options):
        ran.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(backup_module.subprocess, "run", run)
    url = make_url("postgresql+psycopg2://flint:hunter2@db:5433/flint?sslmode=verify-full")
    backup_module._run_tool(url, "pg_dump", "--format=custom")
    assert ran["command"][1:] == [
        "--dbname=postgresql://flint@db:5433/flint?sslmode=verify-full",
        "--format=custom",
    ]
    assert ran["env"]["PGPASSWORD"] == "hunter2"
