"""Connecting to Postgres, and bringing its tables up to date."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from device_runtime.errors import FlintError

MIGRATIONS = Path(__file__).parent / "migrations"
# Keys of Postgres's advisory locks: arbitrary, and ours alone in this database.
UPGRADE_LOCK = 0x464C494E_54000001
LEADER_LOCK = 0x464C494E_54000002
FEATURES_LOCK = 0x464C494E_54000003

PATIENCE_WITH_DATABASE_S = 20.0
"""How long a server process that starts waits for the database; then its supervisor tries again."""

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 20
_RETRY_S = 0.2


class DatabaseUnreachable(FlintError):
    """The database does not answer, or refuses us."""

    code = "FLN-1202"


class DatabaseTooNew(FlintError):
    """The database was upgraded by a newer FLINT than this one."""

    code = "FLN-1234"


def connect(url: str, patience_s: float = 0.0, *, read_only: bool = False) -> Engine:
    """Connect to Postgres; the engine is safe to use from several threads.

    Args:
        url: SQLAlchemy URL, ``postgresql+psycopg2://...``; ``postgresql://`` and ``postgres://``
            are understood too.
        patience_s: How long to ask a database again that does not answer; one that was killed
            takes a few seconds to come back.
        read_only: Let the database refuse every change, and end a query that takes too long: for
            who only looks.

    Raises:
        DatabaseUnreachable: If it is no Postgres URL, or the database does not answer.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in {"postgresql", "postgres"}:
            raise DatabaseUnreachable(
                f"{parsed.render_as_string()} is not a Postgres database; FLINT keeps its records "
                "in Postgres only, e.g. postgresql+psycopg2://user:password@host/flint"
            )
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg2"),
            pool_pre_ping=True,
            json_serializer=_to_json,
            connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
        )
        if read_only:
            event.listen(engine, "connect", _only_read)
        deadline_s = time.monotonic() + patience_s
        while not _answers(engine, is_last_time=time.monotonic() >= deadline_s):
            time.sleep(_RETRY_S)
    except ArgumentError as error:
        raise DatabaseUnreachable(
            "the database URL cannot be read; it looks like "
            "postgresql+psycopg2://user:password@host/flint (see FLINT_DATABASE_URL)"
        ) from error
    except OperationalError as error:
        engine.dispose()
        detail = " ".join(str(error.orig).split())
        raise DatabaseUnreachable(
            f"the database at {parsed.render_as_string()} does not answer ({detail}); start it "
            "with `flint up`, or mend FLINT_DATABASE_URL"
        ) from error
    return engine


def _only_read(connection: Any, _: object) -> None:  # noqa: ANN401 - psycopg2's
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        cursor.execute("SET statement_timeout = %s", (f"{_READ_TIMEOUT_S}s",))
    connection.commit()  # what is set in a transaction that ends otherwise is not set


def _answers(engine: Engine, *, is_last_time: bool) -> bool:
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except OperationalError:
        if is_last_time:
            raise
        return False
    return True


def upgrade(engine: Engine) -> None:
    """Bring the tables to the newest revision; several processes may do so at once.

    All steps are one transaction: a failed upgrade leaves the database as it was.

    Raises:
        DatabaseTooNew: If the database's revision is not known to this version of FLINT.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise DatabaseTooNew(
                f"the tables in {engine.url.render_as_string()} are of another version of FLINT "
                f"({error}); run the newer FLINT that wrote them, or use another database"
            ) from error


def _to_json(value: object) -> str:
    """JSON for Postgres, which knows no NaN or infinity: they become null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
