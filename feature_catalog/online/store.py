"""Reads rows of many keys and views from the online tables in one round trip."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from device_runtime.feature_values import MAX_KEY_BYTES
from feature_catalog.database import DatabaseUnreachable
from feature_catalog.online.errors import TooManyKeys
from feature_catalog.online.moments import microseconds
from feature_catalog.online.online_view import OnlineView
from feature_catalog.online.row_codec import decode_rows
from feature_catalog.online.view_rows import ValueStatus, ViewRows

MAX_KEYS = 10_000
"""Of one read, all views together."""

_MAX_CONNECTIONS = 50
_CONNECT_TIMEOUT_S = 10

# One statement for any number of keys and views: an index look-up for each. The last row says which
# apply of definitions is the newest, so that who keeps definitions in memory knows of new ones.
_READ = text(
    """
    SELECT asked.place, stored.event_us, stored.payload
    FROM unnest(CAST(:value_sets AS bigint[]), CAST(:keys AS bytea[]))
        WITH ORDINALITY AS asked (value_set, key, place)
    JOIN online_values AS stored
        ON stored.value_set = asked.value_set AND stored.key = asked.key
    UNION ALL
    SELECT 0, coalesce((SELECT max(id) FROM feature_applies), 0), NULL
    """
)

ViewKeys = tuple[OnlineView, Sequence[bytes]]


class OnlineStore:
    """The online tables, for reading; safe to use from several threads.

    It has connections of its own, which need neither a transaction nor a question whether they
    still live: a read whose connection was cut is made once more on a new one.

    Args:
        engine: On the database; only its URL is used.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = create_engine(
            engine.url,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
            max_overflow=_MAX_CONNECTIONS,
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
        )

    def read(
        self, view: OnlineView, keys: Sequence[bytes], *, at: dt.datetime | None = None
    ) -> ViewRows:
        """Rows of one view.

        Args:
            keys: As `device_runtime.feature_values.encode_key` writes them; may repeat.
            at: As of when ages are judged, with a time zone; now, if not given.

        Raises:
            TooManyKeys: If they are more than `MAX_KEYS`, or one is longer than `MAX_KEY_BYTES`.
            DatabaseUnreachable: If the database does not answer.
            UnreadableOnlineValue: If a stored row is damaged.
        """
        return self.read_many([(view, keys)], at=at)[0]

    def read_many(
        self, asked: Sequence[ViewKeys], *, at: dt.datetime | None = None
    ) -> tuple[ViewRows, ...]:
        """Rows of several views; see `read`."""
        return self.read_newest(asked, at=at)[0]

    def read_newest(
        self, asked: Sequence[ViewKeys], *, at: dt.datetime | None = None
    ) -> tuple[tuple[ViewRows, ...], int]:
        """Rows of several views, and the number of the newest apply of definitions; see `read`."""
        _check_bounds(asked)
        at_us = microseconds(at if at is not None else dt.datetime.now(dt.UTC))
        rows = self._fetch(asked)
        apply_id = 0
        found: list[tuple[int, Any] | None] = [None] * sum(len(keys) for _, keys in asked)
        for place, number, payload in rows:
            if place:
                found[place - 1] = (number, payload)
            else:
                apply_id = number
        read, start = [], 0
        for view, keys in asked:
            read.append(_view_rows(view, keys, found[start : start + len(keys)], at_us))
            start += len(keys)
        return tuple(read), apply_id

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _fetch(self, asked: Sequence[ViewKeys]) -> Sequence[Any]:
        # What Postgres reads quickest: one text, not a parameter for each key. Views of the same
        # entities are asked for the same keys.
        written = {id(keys): [f'"\\\\x{key.hex()}"' for key in keys] for _, keys in asked}
        values = {
            "value_sets": _array(
                number for view, keys in asked for number in [str(view.value_set)] * len(keys)
            ),
            "keys": _array(key for _, keys in asked for key in written[id(keys)]),
        }
        try:
            try:
                with self._engine.connect() as connection:
                    return _execute(connection, values)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                with self._engine.connect() as connection:
                    return _execute(connection, values)
        except OperationalError as error:
            detail = " ".join(str(error.orig).split())
            raise DatabaseUnreachable(
                f"the database at {self._engine.url.render_as_string()} does not answer "
                f"({detail}); start it with `flint up`, or mend FLINT_DATABASE_URL"
            ) from error


def _execute(connection: Connection, values: dict[str, str]) -> Sequence[Any]:
    return connection.execute(_READ, values).all()


def _array(items: Any) -> str:  # noqa: ANN401
    return "{" + ",".join(items) + "}"


def _check_bounds(asked: Sequence[ViewKeys]) -> None:
    count = sum(len(keys) for _, keys in asked)
    if count > MAX_KEYS:
        raise TooManyKeys(
            f"{count} keys are asked for in one read, and at most {MAX_KEYS} are answered; ask in "
            "several reads"
        )
    for view, keys in asked:
        if any(len(key) > MAX_KEY_BYTES for key in keys):
            raise TooManyKeys(
                f"a key of {view.name} is longer than {MAX_KEY_BYTES} bytes, which none that is "
                "stored is; correct it"
            )


def _view_rows(
    view: OnlineView, keys: Sequence[bytes], found: Sequence[tuple[int, Any] | None], at_us: int
) -> ViewRows:
    oldest_us = None if view.ttl_s is None else at_us - round(view.ttl_s * 1e6)
    statuses: list[ValueStatus] = []
    event_us: list[int | None] = []
    payloads, places = [], []
    for place, each in enumerate(found):
        if each is None or each[0] > at_us:
            statuses.append(ValueStatus.NOT_FOUND)
            event_us.append(None)
            continue
        event_us.append(each[0])
        if oldest_us is not None and each[0] <= oldest_us:
            statuses.append(ValueStatus.OUTSIDE_MAX_AGE)
            continue
        statuses.append(ValueStatus.PRESENT)
        payloads.append(each[1])
        places.append(place)
    decoded = decode_rows(payloads, len(view.fields))
    if len(decoded) == len(found):
        return ViewRows(view, keys, statuses, event_us, decoded)
    rows: list[list[Any] | None] = [None] * len(found)
    for place, row in zip(places, decoded, strict=True):
        rows[place] = row
    return ViewRows(view, keys, statuses, event_us, rows)
