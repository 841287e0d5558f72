"""Error feedback on a device: what compressed updates left out, kept for the job's next one.

Each pending update has a file of its own that holds what it left out of its own training; one more
file holds the sum of these over the updates that were counted. An update that is not counted takes
its file with it: the residual is again as if that task had never been, and what a later update had
already sent of it is taken back by the ones after. So, whatever becomes of single updates, all that
was counted and what is still left out add up to all that the counted tasks learned.

A file is the SHA-256 of its values and the values, float32; one that is torn or of another model
counts as 0. Of a job that is over nothing is kept, nor of pending updates beyond `MOST_UNSENT`.
"""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_UNSENT = 4
"""Pending updates that have such a file; a device seldom has more than two."""

_DIGEST_BYTES = 32
_SUFFIX = ".unsent"


class ResidualStore:
    """The residual of one device: a row of its database, and files of a folder."""

    def __init__(self, database: sqlite3.Connection, folder: Path) -> None:
        """Use these; the database has the table ``residual``."""
        self._database = database
        self._folder = folder

    def of(self, job_id: str, size: int, pending: Sequence[Path]) -> NDArray[np.float32] | None:
        """What the job's updates have left out so far, or None if that is nothing.

        Args:
            size: Scalars of the job's model.
            pending: Files of its pending updates' bytes.

        Returns:
            Shape ``(size,)``.
        """
        counted = self._counted_path(job_id)
        paths = [*([counted] if counted else []), *map(_beside, pending)]
        found = [read for read in (_read(path, size) for path in paths) if read is not None]
        if not found:
            return None
        total = found[0].copy()
        with np.errstate(over="ignore", invalid="ignore"):  # asked for below
            for unsent in found[1:]:
                total += unsent
        return total if np.isfinite(total).all() else None

    def keep(self, payload_path: Path, unsent: NDArray[np.float32]) -> None:
        """Keep what one update leaves out, beside its bytes."""
        _write(_beside(payload_path), unsent)

    def keep_few(self, payload_paths: Sequence[Path]) -> None:
        """Let go of what the oldest pending updates leave out.

        Args:
            payload_paths: Files of all pending updates' bytes, oldest first.
        """
        having = [path for path in map(_beside, payload_paths) if path.exists()]
        for path in having[:-MOST_UNSENT]:
            path.unlink(missing_ok=True)

    def forget(self, payload_path: Path) -> None:
        """An update is gone: with it what it left out."""
        _beside(payload_path).unlink(missing_ok=True)

    def count(self, job_id: str, task_id: str, payload_path: Path) -> None:
        """An update is counted: what it left out stays, and it is pending no more.

        Both in one transaction: a device killed at any moment adds it once. Of a job that is not
        the last one nothing stays.
        """
        row = self._row()
        unsent = _read(_beside(payload_path), None)
        counted = self._counted_path(job_id)
        new = None
        if unsent is not None and (row is None or row[0] == job_id):
            before = None if counted is None else _read(counted, unsent.size)
            new = self._folder / f"residual-{os.urandom(8).hex()}"
            _write(new, unsent if before is None else before + unsent)
        self._database.execute("BEGIN IMMEDIATE")
        if new is not None:
            self._keep_row(job_id, new.name)
        self._database.execute("DELETE FROM pending_updates WHERE task_id = ?", (task_id,))
        self._database.execute("COMMIT")
        if new is not None and counted is not None:
            counted.unlink(missing_ok=True)

    def forget_all(self, payload_paths: Sequence[Path]) -> None:
        """Let go of everything, also of what pending updates leave out."""
        row = self._row()
        if row is not None:
            self._keep_row(row[0], "")
            self._delete(row[1])
        for path in payload_paths:
            self.forget(path)

    def begin(self, job_id: str) -> None:
        """This is the last job from now on; let go of what was counted of any other."""
        row = self._row()
        if row is None or row[0] != job_id:
            self._keep_row(job_id, "")
            self._delete("" if row is None else row[1])

    def files(self, payload_paths: Sequence[Path]) -> set[Path]:
        """Files in use, given those of pending updates' bytes."""
        row = self._row()
        counted = [] if row is None else [self._folder / row[1]]
        return {*map(_beside, payload_paths), *counted}

    def _counted_path(self, job_id: str) -> Path | None:
        row = self._row()
        if row is None or row[0] != job_id or not row[1]:
            return None
        return self._folder / row[1]

    def _delete(self, name: str) -> None:
        if name:
            (self._folder / name).unlink(missing_ok=True)

    def _keep_row(self, job_id: str, name: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO residual (one, job_id, file) VALUES (1, ?, ?)", (job_id, name)
        )

    def _row(self) -> tuple[str, str] | None:
        """The last job, and the file of what its counted updates left out; empty if none is."""
        row: tuple[str, str] | None = self._database.execute(
            "SELECT job_id, file FROM residual"
        ).fetchone()
        return row


def _beside(payload_path: Path) -> Path:
    return payload_path.with_name(payload_path.name + _SUFFIX)


def _write(path: Path, values: NDArray[np.float32]) -> None:
    data = np.ascontiguousarray(values, "<f4").tobytes()
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(hashlib.sha256(data).digest())
        file.write(data)
    draft.replace(path)


def _read(path: Path, size: int | None) -> NDArray[np.float32] | None:
    """The values of a file, or None if it is gone, torn or not of this size."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    body = memoryview(data)[_DIGEST_BYTES:]
    if len(body) % 4 or hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
        return None
    values = np.frombuffer(body, "<f4")
    return values if size is None or values.size == size else None
