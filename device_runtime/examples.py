"""Local training data: what a host app offers, and a per-device SQLite store of it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

Records = NDArray[Any]
FieldForm = tuple[str, tuple[int, ...]]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE form (field TEXT PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL);
CREATE TABLE examples (id INTEGER PRIMARY KEY, x BLOB NOT NULL, y BLOB NOT NULL);
"""


class UnreadableExamples(FlintError):
    """A file that should hold a device's local records does not."""

    code = "FLN-1404"


class ExampleSource(Protocol):
    """Where a host app keeps the records a device may train on."""

    def count(self) -> int:
        """Number of records now."""
        ...

    def load(self, max_records: int) -> tuple[Records, Records]:
        """The newest records, at most ``max_records``, oldest first.

        Returns:
            Inputs, shape ``(records, *input shape)``, and labels ``(records, *label shape)``.
        """
        ...


class SqliteExampleStore:
    """Records of one device in an SQLite file. A file that is not there holds no records."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, x: Records, y: Records) -> None:
        """Replace what the store holds, in one transaction.

        Args:
            x: Inputs, shape ``(records, *input shape)``.
            y: Labels, shape ``(records, *label shape)``.
        """
        with self._write() as database:
            database.execute("DELETE FROM examples")
            database.execute("DELETE FROM form")
            self._insert(database, x, y)

    def append(self, x: Records, y: Records) -> None:
        """Add records of the form the store already holds.

        Raises:
            UnreadableExamples: If the form differs.
        """
        with self._write() as database:
            form = _form_of(x, y)
            held = _read_form(database)
            if held and held != form:
                raise UnreadableExamples(
                    f"{self._path} holds records of the form {held}, not {form}; "
                    "fill the store anew to change their form"
                )
            self._insert(database, x, y)

    def count(self) -> int:
        """Number of records now."""
        if not self._path.exists():
            return 0
        with self._read() as database:
            return int(database.execute("SELECT count(*) FROM examples").fetchone()[0])

    def load(self, max_records: int) -> tuple[Records, Records]:
        """The newest records, at most ``max_records``, oldest first.

        Raises:
            UnreadableExamples: If the file is damaged or was never filled.
        """
        with self._read() as database:
            form = _read_form(database)
            rows = database.execute(
                "SELECT x, y FROM examples ORDER BY id DESC LIMIT ?", (max_records,)
            ).fetchall()
        if not form:
            raise UnreadableExamples(f"{self._path} was never filled; fill it with records first")
        rows.reverse()
        return self._stack(form["x"], [x for x, _ in rows]), self._stack(
            form["y"], [y for _, y in rows]
        )

    def _insert(self, database: sqlite3.Connection, x: Records, y: Records) -> None:
        x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
        database.executemany(
            "INSERT OR REPLACE INTO form VALUES (?, ?, ?)",
            [(field, dtype, json.dumps(shape)) for field, (dtype, shape) in _form_of(x, y).items()],
        )
        database.executemany(
            "INSERT INTO examples (x, y) VALUES (?, ?)",
            ((xi.tobytes(), yi.tobytes()) for xi, yi in zip(x, y, strict=True)),
        )

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
            try:
                self._check_version(database)
                yield database
            finally:
                database.close()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        try:
            database = sqlite3.connect(self._path)
            try:
                with database:
                    if _user_version(database) == 0:
                        database.executescript(_SCHEMA + f"PRAGMA user_version = {_SCHEMA_VERSION}")
                    self._check_version(database)
                    yield database
            finally:
                database.close()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _stack(self, form: FieldForm, blobs: list[bytes]) -> Records:
        dtype, shape = form
        try:
            return np.frombuffer(b"".join(blobs), dtype=dtype).reshape(len(blobs), *shape)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _check_version(self, database: sqlite3.Connection) -> None:
        version = _user_version(database)
        if version != _SCHEMA_VERSION:
            raise UnreadableExamples(
                f"{self._path} has example schema {version}, this runtime reads "
                f"{_SCHEMA_VERSION}; fill the store anew with this runtime"
            )

    def _damaged(self, error: Exception) -> UnreadableExamples:
        return UnreadableExamples(
            f"{self._path} is not a readable example store ({error}); fill it anew"
        )


def _form_of(x: Records, y: Records) -> dict[str, FieldForm]:
    return {"x": (x.dtype.str, x.shape[1:]), "y": (y.dtype.str, y.shape[1:])}


def _read_form(database: sqlite3.Connection) -> dict[str, FieldForm]:
    rows = database.execute("SELECT field, dtype, shape FROM form")
    return {field: (dtype, tuple(json.loads(shape))) for field, dtype, shape in rows}


def _user_version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])
