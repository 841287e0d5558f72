"""Backups: database, keys and blobs of a deployment in a folder, and back again.

::

    FOLDER/blobs/ab/abcdef...          every blob, once, for all backups in the folder
    FOLDER/20260501T080000Z/           one backup; complete when it has its manifest
        database.dump                  pg_dump's custom format
        keys/                          the data directory's secrets/ and tls/; mode 0700
        blobs.txt                      digests of the blobs that belong to it
        manifest.json                  written last

A server may run meanwhile. The database is dumped first and blobs are copied after it: a row
points only at blobs that were written before it, so the copy holds all that the dump needs.
"""

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import URL

from device_runtime.errors import FlintError
from feature_catalog.audit_log import AuditAction, AuditLog
from feature_catalog.blobs import BlobStore, CorruptBlob, MissingBlob
from feature_catalog.embedded import postgres_binaries

_MANIFEST = "manifest.json"
_DUMP = "database.dump"
_BLOBS = "blobs.txt"
_KEY_FOLDERS = ("secrets", "tls")
_NAME = "%Y%m%dT%H%M%SZ"
_SHOWN_CORRUPT = 3


class BackupFailed(FlintError):
    """A backup or its restoring broke off."""

    code = "FLN-1206"


class NoBackup(FlintError):
    """A folder holds no complete backup, or none that is intact."""

    code = "FLN-1207"


class NotEmpty(FlintError):
    """A backup is restored into an empty database and data directory only."""

    code = "FLN-1208"


@dataclass(frozen=True, slots=True)
class Backup:
    """A complete backup.

    Attributes:
        path: Its folder.
        made_at: When its database was dumped, ISO 8601, UTC.
        revision: Of the tables, as Alembic names it.
        blobs: How many belong to it.
        new_bytes: Of the blobs that were copied for it.
    """

    path: Path
    made_at: str
    flint_version: str
    revision: str
    dump_sha256: str
    blobs: int
    new_bytes: int


def back_up(home: Path, engine: Engine, blobs: BlobStore, folder: Path) -> Backup:
    """Make a backup of the deployment in ``home``; a server may run there.

    Args:
        home: Data directory, for its keys.
        engine: On its database.
        blobs: Its blob store.
        folder: Where backups are kept; made where there is none, for this user only.

    Raises:
        BackupFailed: If the folder cannot be written or the database not be dumped.
        CorruptBlob: If blobs are damaged in the store; everything else is backed up then.
    """
    began = dt.datetime.now(dt.UTC)
    path = folder / began.strftime(_NAME)
    try:
        path.mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        dump = path / _DUMP
        _run_tool(engine.url, "pg_dump", "--format=custom", "--no-owner", f"--file={dump}")
        dump.chmod(0o600)
        for name in _KEY_FOLDERS:
            if (home / name).is_dir():
                _copy_private(home / name, path / "keys" / name)
        copied = _copy_blobs(blobs, BlobStore(str(folder / "blobs")), blobs.digests())
        (path / _BLOBS).write_text("".join(f"{d.hex()}\n" for d in sorted(copied.digests)))
        with engine.connect() as connection:
            revision = connection.execute(text("SELECT version_num FROM alembic_version"))
            backup = Backup(
                path,
                began.isoformat(timespec="seconds"),
                version("flint-on-flower"),
                revision.scalar_one(),
                _sha256(dump),
                len(copied.digests),
                copied.new_bytes,
            )
        _write_manifest(backup)
    except OSError as error:
        raise BackupFailed(
            f"the backup in {path} broke off ({error.strerror or error}); make room or give a "
            "folder that can be written"
        ) from error
    detail = {"blobs": backup.blobs, "new_bytes": backup.new_bytes}
    AuditLog(engine).append(AuditAction.BACKUP_MADE, str(path.absolute()), detail)
    if copied.corrupt:
        raise CorruptBlob(_told_corrupt(copied.corrupt))
    return backup


def find_backup(folder: Path) -> Backup:
    """A backup, given its folder or that of all backups, of which it is the newest complete one.

    Raises:
        NoBackup: If there is none, or its dump is damaged.
    """
    candidates = [folder, *sorted(folder.glob("*Z"), reverse=True)]
    manifest = next((c / _MANIFEST for c in candidates if (c / _MANIFEST).is_file()), None)
    if manifest is None:
        raise NoBackup(
            f"{folder} holds no complete backup; give the folder that `flint backup` wrote to"
        )
    try:
        backup = Backup(path=manifest.parent, **json.loads(manifest.read_text()))
        is_intact = _sha256(backup.path / _DUMP) == backup.dump_sha256
    except (OSError, ValueError, TypeError) as error:
        raise NoBackup(f"{manifest} cannot be read ({error}); restore another backup") from error
    if not is_intact:
        raise NoBackup(f"{backup.path / _DUMP} is damaged; restore another backup")
    return backup


def restore(backup: Backup, home: Path, engine: Engine, blobs: BlobStore) -> None:
    """Bring a backup back: into an empty database, and a data directory without other keys.

    Blobs and keys first, then the database in one transaction: one broken off is simply repeated.

    Args:
        backup: As `find_backup` gives it.
        home: Data directory in which no server runs.
        engine: On an empty database.
        blobs: Store that may hold anything.

    Raises:
        NotEmpty: If there are tables or other keys already.
        NoBackup: If blobs of the backup are missing or damaged.
        BackupFailed: If writing fails.
    """
    if inspect(engine).get_table_names():
        raise NotEmpty(
            f"the database {engine.url.render_as_string()} has tables already; restore into an "
            "empty one, or into a new data directory (--home)"
        )
    _refuse_other_keys(backup, home)
    try:
        stored = BlobStore(str(backup.path.parent / "blobs"))
        wanted = map(bytes.fromhex, (backup.path / _BLOBS).read_text().split())
        copied = _copy_blobs(stored, blobs, wanted)
        if copied.corrupt or copied.missing:
            raise NoBackup(
                f"of the blobs of {backup.path}, {len(copied.missing)} are missing and "
                f"{len(copied.corrupt)} damaged; restore another backup"
            )
        for name in _KEY_FOLDERS:
            if (backup.path / "keys" / name).is_dir():
                _copy_private(backup.path / "keys" / name, home / name)
    except OSError as error:
        raise BackupFailed(
            f"restoring into {home} broke off ({error.strerror or error}); mend that and repeat it"
        ) from error
    _run_tool(
        engine.url,
        "pg_restore",
        *("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"),
        str(backup.path / _DUMP),
    )
    detail = {"made_at": backup.made_at, "revision": backup.revision}
    AuditLog(engine).append(AuditAction.BACKUP_RESTORED, str(backup.path.absolute()), detail)


@dataclass(slots=True)
class _Copied:
    """What came of blobs: those the target has now, those damaged and those not to be found."""

    digests: list[bytes] = field(default_factory=list)
    corrupt: list[bytes] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)
    new_bytes: int = 0


def _copy_blobs(source: BlobStore, target: BlobStore, digests: Iterable[bytes]) -> _Copied:
    """Copy what the target lacks; blobs are checked on the way, and damaged ones left out."""
    copied = _Copied()
    for digest in digests:
        if not target.exists(digest):
            try:
                with source.open(digest) as stream:
                    stored = target.put_stream(stream)
            except MissingBlob:
                copied.missing.append(digest)
                continue
            if stored != digest:
                target.delete(stored)
                copied.corrupt.append(digest)
                continue
            copied.new_bytes += target.size(digest)
        copied.digests.append(digest)
    return copied


def _copy_private(source: Path, target: Path) -> None:
    """Copy a folder of small files, readable by this user only but for certificates."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    target.parent.chmod(target.parent.stat().st_mode & ~0o022)
    for file in _files(source):
        draft = target / f"{file.name}.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            copy.write(file.read_bytes())
        if file.suffix == ".crt":
            draft.chmod(0o644)
        draft.replace(target / file.name)
    if target.name == "tls":
        target.chmod(0o755)


def _refuse_other_keys(backup: Backup, home: Path) -> None:
    for name in _KEY_FOLDERS:
        kept = backup.path / "keys" / name
        for file in _files(home / name):
            if not (kept / file.name).is_file() or _sha256(kept / file.name) != _sha256(file):
                raise NotEmpty(
                    f"{file} is another key than the backup's; restore into a new data directory "
                    "(--home)"
                )


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(file for file in folder.iterdir() if file.is_file())


def _run_tool(url: URL, tool: str, *arguments: str) -> None:
    """Run one of Postgres's tools on a database; the password goes by its environment."""
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "10"}
    if url.password is not None:
        environment["PGPASSWORD"] = url.password
    # `URL.set` keeps a password that is set to None.
    target = URL.create(
        "postgresql", url.username, None, url.host, url.port, url.database, url.query
    ).render_as_string()
    command = [str(postgres_binaries() / tool), f"--dbname={target}", *arguments]
    done = subprocess.run(  # noqa: S603 - our own words
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        why = said[0] if said else f"exit code {done.returncode}"
        raise BackupFailed(
            f"{tool} failed ({why}); a server newer than it, or a user without rights on the "
            "tables, is the usual reason"
        )


def _write_manifest(backup: Backup) -> None:
    told = asdict(backup)
    del told["path"]
    draft = backup.path / f"{_MANIFEST}.new"
    draft.write_text(json.dumps(told, indent=2) + "\n")
    draft.replace(backup.path / _MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told_corrupt(corrupt: Sequence[bytes]) -> str:
    shown = ", ".join(digest.hex()[:16] for digest in corrupt[:_SHOWN_CORRUPT])
    return (
        f"{len(corrupt)} blob(s) of the store are damaged ({shown} ...) and not in the backup, "
        "which holds all else; put them back from an earlier backup's blobs/"
    )


def remove_old(folder: Path, keep: int) -> tuple[Path, ...]:
    """Delete what is older than the newest ``keep`` complete backups; blobs stay.

    Returns:
        What went, oldest first.
    """
    made = sorted(path for path in folder.glob("*Z") if path.is_dir())
    kept = [path for path in made if (path / _MANIFEST).is_file()][-keep:]
    old = tuple(path for path in made if kept and path < kept[0])
    for path in old:
        shutil.rmtree(path)
    return old
