"""What the users of a data set's training clients did, kept for devices that stand in for theirs.

One Parquet file beside the records, its rows in the records' order: ``key/NAME`` columns with join
keys, ``event/VIEW/FIELD`` columns with what the device recorded before any transform, ``at_ms``
(since the epoch) and ``label``. Devices of `flint device fleet` join it with the cloud's features
themselves.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.feature_values import Value
from device_runtime.labelled_events import Key
from device_runtime.user_activity import UserActivity, UserEvent

KEY, EVENT, AT, LABEL = "key/", "event/", "at_ms", "label"
"""Beginnings of column names, and names."""


@dataclass(frozen=True, slots=True)
class UserEvents:
    """Events of training clients, in the order of the data set's records."""

    service: str
    table: pa.Table

    def to_parquet(self) -> bytes:
        """Its file."""
        buffer = io.BytesIO()
        pq.write_table(self.table, buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_parquet(cls, service: str, content: bytes) -> "UserEvents":
        """Inverse of `to_parquet`."""
        return cls(service, pq.read_table(io.BytesIO(content)))

    def activity(self, first_row: int, records: int) -> UserActivity:
        """What one client's user did, by its rows among the records."""
        rows = self.table.slice(first_row, records).to_pylist()
        return UserActivity(self.service, tuple(_events(rows)))


def _events(rows: Sequence[dict[str, Any]]) -> Iterator[UserEvent]:
    for row in rows:
        keys: dict[str, Key] = {}
        events: dict[str, dict[str, Value]] = {}
        for name, value in row.items():
            if name.startswith(KEY):
                keys[name.removeprefix(KEY)] = value
            elif name.startswith(EVENT):
                _, view, field = name.split("/", 2)
                events.setdefault(view, {})[field] = value
        yield UserEvent(keys, events, float(row[LABEL]), int(row[AT]))
