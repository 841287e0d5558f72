"""What identifies one device, and what it must not forget: one folder, one SQLite file.

``device.sqlite`` holds key, credential, the user's settings, participation history and the list of
pending updates, readable by its owner only. An update's bytes lie beside it in ``updates/``: to
write 0.75 MB there and read it back costs 0.4 ms, as an SQLite blob 3.9 ms, and the write-ahead log
then needs a checkpoint, with its fsyncs, every few tasks. A file torn by a power cut does not match
its digest and is not used. What compressed updates leave out lies there too (`ResidualStore`).
"""

import fcntl
import hashlib
import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.identity import DeviceKey
from device_runtime.participation import UserSettings
from device_runtime.residual import ResidualStore

_SCHEMA_VERSION = 3
_RESIDUAL = """
CREATE TABLE residual (
    one INTEGER PRIMARY KEY CHECK (one = 1), job_id TEXT NOT NULL, file TEXT NOT NULL);
"""
_SEALING = """
ALTER TABLE pending_updates ADD COLUMN sealed_for BLOB NOT NULL DEFAULT x'';
ALTER TABLE pending_updates ADD COLUMN secure_aggregation BLOB NOT NULL DEFAULT x'';
"""
_SCHEMA = """
CREATE TABLE identity (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    private_key BLOB NOT NULL, device_id TEXT, credential BLOB);
CREATE TABLE settings (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    opted_out INTEGER NOT NULL, allowed_hours TEXT, min_battery REAL);
CREATE TABLE gateway (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    clock_offset_ms INTEGER NOT NULL DEFAULT 0, policy_json TEXT);
CREATE TABLE participations (
    task_id TEXT PRIMARY KEY, job_id TEXT NOT NULL,
    finished_at_s REAL NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX participations_by_time ON participations (finished_at_s);
CREATE TABLE pending_updates (
    task_id TEXT PRIMARY KEY, job_id TEXT NOT NULL, payload_sha256 BLOB NOT NULL,
    task_token BLOB NOT NULL, contract_sha256 BLOB NOT NULL, answered INTEGER NOT NULL,
    train_s REAL NOT NULL, cpu_s REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL, bytes_down INTEGER NOT NULL);
INSERT INTO settings (one, opted_out) VALUES (1, 0);
INSERT INTO gateway (one) VALUES (1);
"""
_UPGRADES = {1: _RESIDUAL + _SEALING, 2: _SEALING}
_HISTORY_LIMIT = 1000


class UnreadableDevice(FlintError):
    """A device folder that cannot be opened."""

    code = "FLN-1406"


class DeviceInUse(FlintError):
    """A device folder that another process runs at this moment."""

    code = "FLN-1407"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a gateway gave this device when it enrolled."""

    device_id: str
    credential: bytes


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """An update the device keeps until it is told what became of it.

    Attributes:
        answered: A gateway has answered its upload; false again on ``UPLOAD_AGAIN``.
        train_s: Cost of the task, as are the three after it.
        sealed_for: Serialised ``SealedFor`` of a payload that is sealed; empty for a plain one.
        secure_aggregation: What was demanded of the enclave it is sealed to, serialised.
    """

    task_id: str
    job_id: str
    payload_sha256: bytes
    task_token: bytes
    contract_sha256: bytes
    answered: bool
    train_s: float
    cpu_s: float
    peak_memory_bytes: int
    bytes_down: int
    sealed_for: bytes = b""
    secure_aggregation: bytes = b""


class DeviceStore:
    """The durable side of one device. Every change is on disk when its method returns."""

    def __init__(self, folder: Path) -> None:
        """Open a device's folder, or make it with a new key.

        Raises:
            UnreadableDevice: If there is something else, or nothing may be written.
        """
        self._folder = folder
        self._updates = folder / "updates"
        try:
            self._updates.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._database = _open(folder / "device.sqlite")
        except (OSError, sqlite3.DatabaseError) as error:
            raise UnreadableDevice(
                f"{folder} is not a device folder this process can use ({error}); "
                "give a writable folder, or delete this one to enrol as a new device"
            ) from error
        self._residual = ResidualStore(self._database, self._updates)
        self._key = self._load_key()
        self._lock: int | None = None

    @property
    def key(self) -> DeviceKey:
        """The device's private key, made when the folder was."""
        return self._key

    def take(self) -> None:
        """Become the one process that runs this device; needed before anything but settings.

        Raises:
            DeviceInUse: If another process runs it.
        """
        lock = os.open(self._folder / "device.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise DeviceInUse(
                f"the device in {self._folder} is run by another process; "
                "stop that one, or give this one another folder"
            ) from error
        self._lock = lock
        self._remove_orphans()

    def close(self) -> None:
        """Let go of the folder."""
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def enrolment(self) -> Enrolment | None:
        """What the gateway gave, or None before enrolment."""
        row = self._row("SELECT device_id, credential FROM identity")
        return None if row[0] is None else Enrolment(row[0], row[1])

    def save_enrolment(self, enrolment: Enrolment) -> None:
        """Keep what the gateway gave."""
        self._database.execute(
            "UPDATE identity SET device_id = ?, credential = ?",
            (enrolment.device_id, enrolment.credential),
        )

    def settings(self) -> UserSettings:
        """The user's own settings; another process of the app may change them at any time."""
        opted_out, allowed_hours, min_battery = self._row(
            "SELECT opted_out, allowed_hours, min_battery FROM settings"
        )
        return UserSettings(bool(opted_out), allowed_hours, min_battery)

    def save_settings(self, settings: UserSettings) -> None:
        """Keep the user's own settings."""
        self._database.execute(
            "UPDATE settings SET opted_out = ?, allowed_hours = ?, min_battery = ?",
            (settings.opted_out, settings.allowed_hours, settings.min_battery),
        )

    def clock_offset_ms(self) -> int:
        """Server clock minus device clock, as last seen."""
        return int(self._row("SELECT clock_offset_ms FROM gateway")[0])

    def save_clock_offset_ms(self, offset_ms: int) -> None:
        """Keep the clocks' difference."""
        self._database.execute("UPDATE gateway SET clock_offset_ms = ?", (offset_ms,))

    def policy_json(self) -> str | None:
        """The participation policy last told, or None."""
        policy_json: str | None = self._row("SELECT policy_json FROM gateway")[0]
        return policy_json

    def save_policy_json(self, policy_json: str) -> None:
        """Keep the participation policy."""
        self._database.execute("UPDATE gateway SET policy_json = ?", (policy_json,))

    def last_participation(self) -> datetime | None:
        """When a task last finished on this device, UTC."""
        finished_at_s = self._row("SELECT max(finished_at_s) FROM participations")[0]
        return None if finished_at_s is None else datetime.fromtimestamp(finished_at_s, UTC)

    def record_participation(
        self, task_id: str, job_id: str, outcome: str, finished_at_s: float
    ) -> None:
        """Note how a task finished; the time of the first word on it stays. 1,000 are kept."""
        self._database.execute(
            "INSERT INTO participations VALUES (?, ?, ?, ?) "
            "ON CONFLICT (task_id) DO UPDATE SET outcome = excluded.outcome",
            (task_id, job_id, finished_at_s, outcome),
        )
        self._database.execute(
            "DELETE FROM participations WHERE task_id IN (SELECT task_id FROM participations "
            "ORDER BY finished_at_s DESC LIMIT -1 OFFSET ?)",
            (_HISTORY_LIMIT,),
        )

    def participations(self) -> list[tuple[str, str, str]]:
        """Task id, job id and outcome of what finished here, latest first."""
        return self._database.execute(
            "SELECT task_id, job_id, outcome FROM participations ORDER BY finished_at_s DESC"
        ).fetchall()

    def keep(
        self,
        update: PendingUpdate,
        payload: bytes,
        unsent: NDArray[np.float32] | None = None,
        *,
        plain: bytes | None = None,
    ) -> None:
        """Keep an update: bytes first, then the row that names them.

        Args:
            unsent: What it leaves out of its own training, with error feedback; ``(parameters,)``.
            plain: What a sealed payload holds: another enclave may be there when it is asked for.
        """
        path = self._payload_path(update.task_id)
        _write(path, payload)
        if plain is not None:
            _write(_plain_path(path), plain)
        if unsent is not None:
            self._residual.keep(path, unsent)
        self._database.execute(
            "INSERT OR REPLACE INTO pending_updates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                update.task_id,
                update.job_id,
                update.payload_sha256,
                update.task_token,
                update.contract_sha256,
                update.answered,
                update.train_s,
                update.cpu_s,
                update.peak_memory_bytes,
                update.bytes_down,
                update.sealed_for,
                update.secure_aggregation,
            ),
        )
        if unsent is not None:
            self._residual.keep_few([self._payload_path(u.task_id) for u in self.pending()])

    def pending(self) -> list[PendingUpdate]:
        """Updates kept, oldest first."""
        cursor = self._database.cursor()
        cursor.row_factory = sqlite3.Row
        rows = cursor.execute("SELECT * FROM pending_updates ORDER BY rowid")
        return [PendingUpdate(**{**row, "answered": bool(row["answered"])}) for row in rows]

    def payload(self, update: PendingUpdate) -> bytes | None:
        """Bytes of a kept update, or None when the file was torn or is gone."""
        try:
            payload = self._payload_path(update.task_id).read_bytes()
        except FileNotFoundError:
            return None
        return payload if hashlib.sha256(payload).digest() == update.payload_sha256 else None

    def plain(self, update: PendingUpdate) -> bytes | None:
        """What a kept update's sealed payload holds, or None when the file is gone."""
        try:
            return _plain_path(self._payload_path(update.task_id)).read_bytes()
        except FileNotFoundError:
            return None

    def mark_answered(self, task_id: str, *, answered: bool) -> None:
        """Note whether the update's upload is answered."""
        self._database.execute(
            "UPDATE pending_updates SET answered = ? WHERE task_id = ?", (answered, task_id)
        )

    def forget(self, task_id: str) -> None:
        """Delete a kept update that was not counted, and with it what it left out.

        Row first, then its bytes. Unknown tasks are ignored.
        """
        self._database.execute("DELETE FROM pending_updates WHERE task_id = ?", (task_id,))
        self._delete_files(task_id)

    def settle(self, update: PendingUpdate, *, counted: bool) -> None:
        """Delete a kept update; if it was counted, what it left out goes on to the next one."""
        if not counted:
            self.forget(update.task_id)
            return
        path = self._payload_path(update.task_id)
        self._residual.count(update.job_id, update.task_id, path)
        self._delete_files(update.task_id)

    def residual(self, job_id: str, size: int) -> NDArray[np.float32] | None:
        """What the job's updates have left out so far, shape ``(size,)``; None if nothing."""
        pending = [self._payload_path(u.task_id) for u in self.pending() if u.job_id == job_id]
        return self._residual.of(job_id, size, pending)

    def keep_residual_of(self, job_id: str) -> None:
        """This is the last job from now on; let go of what updates of any other left out."""
        self._residual.begin(job_id)

    def forget_residual(self) -> None:
        """Let go of all that any update left out."""
        self._residual.forget_all([self._payload_path(u.task_id) for u in self.pending()])

    def _row(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._database.execute(query).fetchone()
        return row

    def _delete_files(self, task_id: str) -> None:
        path = self._payload_path(task_id)
        path.unlink(missing_ok=True)
        _plain_path(path).unlink(missing_ok=True)
        self._residual.forget(path)

    def _payload_path(self, task_id: str) -> Path:
        # Task ids come from outside: their digest is a safe file name.
        return self._updates / hashlib.sha256(task_id.encode()).hexdigest()

    def _load_key(self) -> DeviceKey:
        row = self._database.execute("SELECT private_key FROM identity").fetchone()
        if row is not None:
            return DeviceKey.from_pkcs8(row[0])
        key = DeviceKey.generate()
        self._database.execute(
            "INSERT INTO identity (one, private_key) VALUES (1, ?)", (key.to_pkcs8(),)
        )
        return key

    def _remove_orphans(self) -> None:
        """Delete bytes whose row was never written, or is gone: the process died in between."""
        payloads = [self._payload_path(update.task_id) for update in self.pending()]
        kept = {*payloads, *map(_plain_path, payloads), *self._residual.files(payloads)}
        for path in self._updates.iterdir():
            if path not in kept:
                path.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)


def _plain_path(payload_path: Path) -> Path:
    return payload_path.with_name(f"{payload_path.name}-plain")


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA cache_size = -64")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        made = _SCHEMA + _RESIDUAL + _SEALING
        database.executescript(f"BEGIN; {made} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT")
    elif version in _UPGRADES:
        database.executescript(
            f"BEGIN; {_UPGRADES[version]} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT"
        )
    elif version != _SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"device schema {version}, this runtime has {_SCHEMA_VERSION}")
    return database
