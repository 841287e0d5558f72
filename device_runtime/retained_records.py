"""Records under a retention policy: never more of them, or for longer, than allowed."""

import hashlib
from dataclasses import dataclass

from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import OnFull, Retention

RECORD_OVERHEAD_BYTES = 192
"""What the file spends on a record besides its body: columns, checksum and three index rows."""
_CHECKSUM_BYTES = 16


@dataclass(frozen=True, slots=True)
class RetainedRecord:
    """One record.

    Attributes:
        number: Rises with each record of the file.
        at_ms: When what it tells happened, by the system's clock, since the epoch.
        age_ms: How long it has been kept.
    """

    number: int
    name: str | None
    at_ms: int
    age_ms: int
    body: bytes


class RetainedRecords:
    """One stream of records. A record whose checksum does not fit is never handed out."""

    def __init__(self, database: FeatureDatabase, stream: str, retention: Retention) -> None:
        self._database = database
        self._stream = stream
        self._retention = retention
        self.expire()

    @property
    def database(self) -> FeatureDatabase:
        """Where they are; one transaction of it may span several streams."""
        return self._database

    def append(self, body: bytes, *, at_ms: int | None = None, name: str | None = None) -> bool:
        """Add a record; what must go for it goes in the same transaction.

        Args:
            body: Its content.
            at_ms: When it happened, by the system's clock; now if None.
            name: What `take` finds it by.

        Returns:
            Whether it is kept: not if there is no room under ``drop_newest``, nor if it is too
            large alone.
        """
        size = record_bytes(body, name)
        with self._database.transaction() as connection:
            self.expire()
            if not self._make_room(size):
                return False
            when_ms = self._database.wall_ms() if at_ms is None else at_ms
            values = (self._stream, name, when_ms, self._database.now_ms(), size)
            connection.execute(
                "INSERT INTO records (stream, name, at_ms, kept_at_ms, bytes, checksum, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*values, _checksum(self._stream, name, when_ms, body), body),
            )
        return True

    def totals(self) -> tuple[int, int]:
        """Number of records and their bytes, those included that are too old but not deleted."""
        return self._database.totals("records", self._stream)

    def count(self) -> int:
        """Number of records that may be handed out now."""
        query = "SELECT count(*) FROM records WHERE stream = ? AND kept_at_ms > ?"
        with self._database.reading() as connection:
            row = connection.execute(query, (self._stream, self._oldest_ms())).fetchone()
        return int(row[0])

    def newest(self, max_records: int) -> list[RetainedRecord]:
        """The newest records, at most ``max_records``, oldest first."""
        query = (
            "SELECT id, name, at_ms, kept_at_ms, checksum, body FROM records "
            "WHERE stream = ? AND kept_at_ms > ? ORDER BY id DESC LIMIT ?"
        )
        with self._database.reading() as connection:
            values = (self._stream, self._oldest_ms(), max_records)
            rows = connection.execute(query, values).fetchall()
        return self._sound(rows[::-1])

    def named(self, name: str) -> list[RetainedRecord]:
        """Records of a name, oldest first."""
        query = (
            "SELECT id, name, at_ms, kept_at_ms, checksum, body FROM records "
            "WHERE stream = ? AND name = ? AND kept_at_ms > ? ORDER BY id"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, (self._stream, name, self._oldest_ms())).fetchall()
        return self._sound(rows)

    def older_than(self, age_s: float, max_records: int) -> list[RetainedRecord]:
        """Records kept for longer than ``age_s``, at most ``max_records``, oldest first."""
        query = (
            "SELECT id, name, at_ms, kept_at_ms, checksum, body FROM records "
            "WHERE stream = ? AND kept_at_ms > ? AND kept_at_ms < ? ORDER BY id LIMIT ?"
        )
        until_ms = self._database.now_ms() - int(age_s * 1000)
        with self._database.reading() as connection:
            values = (self._stream, self._oldest_ms(), until_ms, max_records)
            rows = connection.execute(query, values).fetchall()
        return self._sound(rows)

    def delete(self, numbers: list[int]) -> None:
        """Delete records by number."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM records WHERE id = ? AND stream = ?",
                [(number, self._stream) for number in numbers],
            )

    def clear(self) -> None:
        """Delete all of them, as when a user asks for it."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM records WHERE stream = ?", (self._stream,))

    def expire(self) -> None:
        """Delete what is too old, and what a policy that became stricter does not allow."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM records WHERE stream = ? AND kept_at_ms <= ?",
                (self._stream, self._oldest_ms()),
            )
            self._drop_oldest(0)

    def _make_room(self, size: int) -> bool:
        limits = self._retention
        if limits.max_bytes is not None and size > limits.max_bytes:
            return False
        if limits.on_full is OnFull.DROP_NEWEST:
            rows, held = self.totals()
            return not (
                (limits.max_records is not None and rows + 1 > limits.max_records)
                or (limits.max_bytes is not None and held + size > limits.max_bytes)
            )
        self._drop_oldest(size)
        return True

    def _drop_oldest(self, size: int) -> None:
        """Make room for one record of ``size`` bytes; 0 for none, only to be within limits."""
        limits = self._retention
        rows, held = self.totals()
        rows += size > 0
        held += size
        going: list[tuple[int]] = []
        query = "SELECT id, bytes FROM records WHERE stream = ? ORDER BY id"
        connection = self._database.connection
        for number, its_bytes in connection.execute(query, (self._stream,)):
            fits_rows = limits.max_records is None or rows <= limits.max_records
            if fits_rows and (limits.max_bytes is None or held <= limits.max_bytes):
                break
            going.append((number,))
            rows -= 1
            held -= its_bytes
        connection.executemany("DELETE FROM records WHERE id = ?", going)

    def _oldest_ms(self) -> int:
        """A record kept since then, or before, is too old."""
        if self._retention.max_age_s is None:
            return -(2**62)
        return self._database.now_ms() - int(self._retention.max_age_s * 1000)

    def _sound(
        self, rows: list[tuple[int, str | None, int, int, bytes, bytes]]
    ) -> list[RetainedRecord]:
        now_ms = self._database.now_ms()
        return [
            RetainedRecord(number, name, at_ms, max(0, now_ms - kept_at_ms), body)
            for number, name, at_ms, kept_at_ms, checksum, body in rows
            if checksum == _checksum(self._stream, name, at_ms, body)
        ]


def record_bytes(body: bytes, name: str | None) -> int:
    """Bytes a record counts as: content, columns and index rows, and what pages have left over.

    The file takes 0.7 to 1.4 times what its records count as (measured, bodies of 30 to 1,000
    bytes).
    """
    return len(body) + len(body) // 8 + len((name or "").encode()) + RECORD_OVERHEAD_BYTES


def _checksum(stream: str, name: str | None, at_ms: int, body: bytes) -> bytes:
    digest = hashlib.sha256(repr((stream, name, at_ms)).encode())
    digest.update(body)
    return digest.digest()[:_CHECKSUM_BYTES]
