"""Who changed what and when: entries are added and never changed, together with what they tell of.

An entry is written in the transaction of the change itself, so there is none without the other.
The table refuses updates and deletions; whoever owns the database can still switch that off, so
ship the log elsewhere where that matters. Entries hold no secrets: tokens and keys are told by what
they are for, never by what they are.
"""

import datetime as dt
import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import Connection, Engine, func, insert, select
from sqlalchemy.orm import Session

from feature_catalog.schema import AuditRecord

COORDINATOR = "coordinator"
SUPERVISOR = "supervisor"
"""Actors of what the server does by itself."""


class AuditAction(StrEnum):
    """What is told of."""

    JOB_SUBMITTED = "job.submitted"
    JOB_STOP_REQUESTED = "job.stop_requested"
    JOB_ENDED = "job.ended"
    MODEL_PROMOTED = "model.promoted"
    ENROLMENT_TOKEN_MADE = "enrolment_token.made"  # noqa: S105 - a name, not a token
    ENROLMENT_TOKEN_ENDED = "enrolment_token.ended"  # noqa: S105
    KEY_MADE = "key.made"
    CERTIFICATE_ISSUED = "certificate.issued"
    SETTINGS_CHANGED = "settings.changed"
    BACKUP_MADE = "backup.made"
    BACKUP_RESTORED = "backup.restored"
    FEATURES_APPLIED = "features.applied"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change.

    Attributes:
        actor: ``user@host`` of who ran the command, or `COORDINATOR` or `SUPERVISOR`.
        subject: What was changed: a job's id, a version, a key's or setting's name.
        detail: More of it, as JSON.
    """

    at: dt.datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def current_actor() -> str:
    """``user@host`` of this process; behind sudo also who called it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.geteuid()}"
    caller = os.environ.get("SUDO_USER")
    if caller and caller != user:
        user = f"{user} (sudo {caller})"
    return f"{user}@{socket.gethostname()}"


def append_entry(
    connection: Connection,
    action: AuditAction,
    subject: str,
    detail: Mapping[str, Any] | None = None,
    *,
    actor: str | None = None,
) -> None:
    """Add an entry as a part of the caller's transaction.

    Args:
        actor: `current_actor` if not given.
    """
    connection.execute(
        insert(AuditRecord).values(
            actor=actor or current_actor(),
            action=str(action),
            subject=subject,
            detail=dict(detail or {}),
        )
    )


class AuditLog:
    """The log in Postgres."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(
        self,
        action: AuditAction,
        subject: str,
        detail: Mapping[str, Any] | None = None,
        *,
        actor: str | None = None,
    ) -> None:
        """Add an entry about something that is no database change itself."""
        with self._engine.begin() as connection:
            append_entry(connection, action, subject, detail, actor=actor)

    def entries(self, since: dt.datetime | None = None) -> tuple[AuditEntry, ...]:
        """Entries from ``since`` on, or all, oldest first."""
        statement = select(AuditRecord).order_by(AuditRecord.id)
        if since is not None:
            statement = statement.where(AuditRecord.at >= since)
        with Session(self._engine) as session:
            return tuple(
                AuditEntry(r.at, r.actor, r.action, r.subject, r.detail)
                for r in session.scalars(statement)
            )

    def newest(self, action: AuditAction) -> dt.datetime | None:
        """When something was last done, or None."""
        statement = select(func.max(AuditRecord.at)).where(AuditRecord.action == str(action))
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar_one()


def without_password(url: str) -> str:
    """A URL as it may be shown: no password, no query that could hold one.

    >>> without_password("postgresql://flint:hunter2@db/flint?sslmode=require&password=hunter2")
    'postgresql://flint:***@db/flint?***'
    """
    parts = urlsplit(url)
    place = parts.netloc
    if parts.password is not None or ("@" in place and parts.username is None):
        user, _, host = place.rpartition("@")
        place = f"{user.partition(':')[0]}:***@{host}"
    return urlunsplit((parts.scheme, place, parts.path, "***" if parts.query else "", ""))
