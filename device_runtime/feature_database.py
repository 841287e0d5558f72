"""One SQLite file for what a device holds of features: records under retention, cached values.

Every change is one transaction, and a limit is enforced in the transaction that could break it, so
whatever moment a process is killed at, what is on disk is within its limits. Totals are kept by
triggers: no statement can forget them. Deleted content is overwritten. A write is safe from a
killed process when its method returns; a power cut may take the last of them, and tear none.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from device_runtime.age_clock import Anchor, ReadTime, TimeReading, read_time
from device_runtime.errors import FlintError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE clock (
    one INTEGER PRIMARY KEY CHECK (one = 1), age_ms INTEGER NOT NULL,
    boot_id TEXT NOT NULL, since_boot_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL);
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, name TEXT,
    at_ms INTEGER NOT NULL, kept_at_ms INTEGER NOT NULL,
    bytes INTEGER NOT NULL, checksum BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX records_in_order ON records (stream, id);
CREATE INDEX records_by_age ON records (stream, kept_at_ms);
CREATE INDEX records_by_name ON records (stream, name) WHERE name IS NOT NULL;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY, app TEXT NOT NULL, view TEXT NOT NULL, version INTEGER NOT NULL,
    key BLOB NOT NULL, transform BLOB NOT NULL, assets BLOB NOT NULL,
    kept_at_ms INTEGER NOT NULL, used INTEGER NOT NULL,
    bytes INTEGER NOT NULL, checksum BLOB NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX entries_by_key ON entries (view, version, key, transform, assets, app);
CREATE INDEX entries_by_use ON entries (used);
CREATE INDEX entries_of_view_by_use ON entries (app, view, used);
CREATE INDEX entries_by_age ON entries (app, view, kept_at_ms);
CREATE TABLE audiences (
    app TEXT NOT NULL, view TEXT NOT NULL, reader TEXT NOT NULL,
    PRIMARY KEY (app, view, reader)) WITHOUT ROWID;
CREATE TABLE reads_across_apps (
    app TEXT NOT NULL, view TEXT NOT NULL, reader TEXT NOT NULL, reads INTEGER NOT NULL,
    PRIMARY KEY (app, view, reader)) WITHOUT ROWID;
CREATE TABLE totals (
    part TEXT NOT NULL, name TEXT NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (part, name)) WITHOUT ROWID;
"""
_TRIGGERS = """
CREATE TRIGGER {part}_in AFTER INSERT ON {part} BEGIN
    INSERT INTO totals VALUES ('{part}', {new}, 1, new.bytes)
    ON CONFLICT (part, name) DO UPDATE SET rows = rows + 1, bytes = bytes + new.bytes;
END;
CREATE TRIGGER {part}_out AFTER DELETE ON {part} BEGIN
    UPDATE totals SET rows = rows - 1, bytes = bytes - old.bytes
    WHERE part = '{part}' AND name = {old};
END;
CREATE TRIGGER {part}_stay BEFORE UPDATE OF {columns}, bytes ON {part} BEGIN
    SELECT RAISE (ABORT, 'a row keeps its size; delete it and insert another');
END;
"""
_COUNTED = {"records": ("stream",), "entries": ("app", "view")}
_ANCHOR_EVERY_MS = 60_000
_BUSY_S = 30.0
_OUTERMOST = ("BEGIN IMMEDIATE", ("ROLLBACK",), "COMMIT")
_ENCLOSED = ("SAVEPOINT inner", ("ROLLBACK TO inner", "RELEASE inner"), "RELEASE inner")


class UnreadableFeatureDatabase(FlintError):
    """A device's feature file that cannot be opened, or is damaged."""

    code = "FLN-2854"


class FeatureDatabase:
    """Opens the file, gives transactions and ages. Threads and processes may share it."""

    def __init__(self, path: Path, *, read_time: ReadTime = read_time) -> None:
        """Open a file, or make it.

        Raises:
            UnreadableFeatureDatabase: If it is something else, or damaged, or nothing may be
                written.
        """
        self.path = path
        self._read_time = read_time
        self._lock = threading.RLock()
        self._depth = 0
        with self._named_errors(OSError, sqlite3.Error):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.connection = _open(path)
            self._anchor = self._load_anchor()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self.connection.close()

    def now_ms(self) -> int:
        """The age clock, which ages are measured by; see `age_clock`."""
        return self._anchor.age_at(self._read_time(), same_boot=True)

    def wall_ms(self) -> int:
        """The system's clock, since the epoch."""
        return self._read_time().wall_ms

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block, or nothing of it; also of a block inside another.

        Raises:
            UnreadableFeatureDatabase: If the file turns out damaged, or there is no room for it.
        """
        with self._lock, self._named_errors(sqlite3.Error):
            begin, undo, end = _ENCLOSED if self._depth else _OUTERMOST
            self.connection.execute(begin)
            self._depth += 1
            try:
                if self._depth == 1:
                    self._move_anchor()
                yield self.connection
                self.connection.execute(end)
            except BaseException:
                if self.connection.in_transaction:  # not after SQLite undid it all by itself
                    for statement in undo:
                        self.connection.execute(statement)
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Statements that change nothing.

        Raises:
            UnreadableFeatureDatabase: If the file turns out damaged.
        """
        with self._lock, self._named_errors(sqlite3.Error):
            yield self.connection

    def totals(self, part: str, *names: str) -> tuple[int, int]:
        """Rows and bytes of ``records`` or ``entries``.

        Args:
            part: Which of both.
            names: A stream, or an app and its view; none for all.
        """
        query, values = "SELECT sum(rows), sum(bytes) FROM totals WHERE part = ?", [part]
        if names:
            query, values = f"{query} AND name = ?", [part, "\x1f".join(names)]
        with self.reading() as connection:
            rows, total_bytes = connection.execute(query, values).fetchone()
        return rows or 0, total_bytes or 0

    @contextmanager
    def _named_errors(self, *errors: type[Exception]) -> Iterator[None]:
        try:
            yield
        except errors as error:
            raise UnreadableFeatureDatabase(
                f"{self.path} is not a feature file this process can use ({error}); free space "
                "or give a writable folder if that is what it says, else delete the file to begin "
                "an empty one"
            ) from error

    def _load_anchor(self) -> Anchor:
        with self.transaction() as connection:
            now = self._read_time()
            row = connection.execute(
                "SELECT age_ms, boot_id, since_boot_ms, wall_ms FROM clock"
            ).fetchone()
            saved = Anchor(row[0], TimeReading(*row[1:])) if row else Anchor(0, now)
            if saved.is_uncertain_at(now):
                # How old cached values are is not known any more, and they can be fetched again.
                connection.execute("DELETE FROM entries")
            anchor = Anchor(saved.age_at(now), now)
            self._store_anchor(anchor)
        return anchor

    def _move_anchor(self) -> None:
        """Keep the anchor near, so that little is lost when the clock is set before a boot."""
        if not hasattr(self, "_anchor"):
            return
        now = self._read_time()
        age_ms = self._anchor.age_at(now, same_boot=True)
        if age_ms - self._anchor.age_ms >= _ANCHOR_EVERY_MS:
            self._anchor = Anchor(age_ms, now)
            self._store_anchor(self._anchor)

    def _store_anchor(self, anchor: Anchor) -> None:
        reading = anchor.reading
        self.connection.execute(
            "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)",
            (anchor.age_ms, reading.boot_id, reading.since_boot_ms, reading.wall_ms),
        )


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA secure_delete = ON")
    database.execute("PRAGMA cache_size = -256")
    database.execute("PRAGMA wal_autocheckpoint = 256")
    database.execute("PRAGMA journal_size_limit = 1048576")
    database.execute("BEGIN IMMEDIATE")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"feature schema {version}, this runtime has {_SCHEMA_VERSION}")
    if version == 0:
        made = _SCHEMA + "".join(_triggers(part, names) for part, names in _COUNTED.items())
        for statement in _statements(made):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    database.execute("COMMIT")
    return database


def _triggers(part: str, columns: tuple[str, ...]) -> str:
    new, old = (" || char(31) || ".join(f"{row}.{c}" for c in columns) for row in ("new", "old"))
    return _TRIGGERS.format(part=part, new=new, old=old, columns=", ".join(columns))


def _statements(script: str) -> Iterator[str]:
    """Statements one by one: ``executescript`` would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
