"""Writes rows into the online tables, many at a time; an older row never replaces a newer one."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_EVENT = struct.Struct(">iqiqi")
_KEY = struct.Struct(">hi")
_COLUMNS = 4

_STAGE = text(
    """
    CREATE TEMPORARY TABLE IF NOT EXISTS staged_online_values (
        key bytea NOT NULL,
        event_us bigint NOT NULL,
        created_us bigint NOT NULL,
        payload bytea NOT NULL
    )
    """
)
_COPY = "COPY staged_online_values (key, event_us, created_us, payload) FROM STDIN (FORMAT binary)"
# In the order of the index, so that neighbours land on the same pages, and two writers of one set
# take their row locks in the same order. Equally new rows are written too, if they differ: a source
# that was corrected says so with the same moments.
_MERGE = text(
    """
    INSERT INTO online_values AS stored (value_set, key, event_us, created_us, payload)
    SELECT :value_set, key, event_us, created_us, payload FROM staged_online_values ORDER BY key
    ON CONFLICT (value_set, key) DO UPDATE SET
        event_us = excluded.event_us,
        created_us = excluded.created_us,
        payload = excluded.payload
    WHERE (excluded.event_us, excluded.created_us) > (stored.event_us, stored.created_us)
        OR (excluded.event_us = stored.event_us AND excluded.created_us = stored.created_us
            AND excluded.payload <> stored.payload)
    """
)


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows to write, each key once.

    Attributes:
        keys: As `device_runtime.feature_values.encode_key` writes them.
        created_us: `online_schema.CREATED_UNKNOWN_US` where it is not known.
        payloads: As `row_codec.encode_rows` writes them.
    """

    keys: Sequence[bytes]
    event_us: Sequence[int]
    created_us: Sequence[int]
    payloads: Sequence[bytes]


def write_rows(connection: Connection, value_set: int, rows: EncodedRows) -> int:
    """Write rows as a part of the caller's transaction.

    Returns:
        How many rows are new, or took the place of others; those that came too late are not among
        them.
    """
    connection.execute(_STAGE)
    cursor = connection.connection.cursor()
    try:
        cursor.copy_expert(_COPY, io.BytesIO(_binary(rows)))
    finally:
        cursor.close()
    written = connection.execute(_MERGE, {"value_set": value_set}).rowcount
    connection.execute(text("TRUNCATE staged_online_values"))
    return written


def _binary(rows: EncodedRows) -> bytes:
    """Rows in Postgres's binary form of COPY."""
    pack_key, pack_times = _KEY.pack, _EVENT.pack
    parts = [_HEADER]
    for key, event_us, created_us, payload in zip(
        rows.keys, rows.event_us, rows.created_us, rows.payloads, strict=True
    ):
        parts += (
            pack_key(_COLUMNS, len(key)),
            key,
            pack_times(8, event_us, 8, created_us, len(payload)),
            payload,
        )
    parts.append(_TRAILER)
    return b"".join(parts)
