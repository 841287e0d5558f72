"""Answers given to devices, kept for good: the same task asked about again gets the same answer."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from feature_catalog.schema import TaskOutcomeRecord


@dataclass(frozen=True, slots=True)
class TaskOutcomeRow:
    """How one task ended.

    Attributes:
        base_version: The job's version it trained on.
        outcome: As in `server.coordination.tasks.Outcome`.
        reason_code: Number of the reason, 0 where it has none.
        payload_sha256: Digest of the update that was answered; empty when none came.
        version_number: The job's version that counts it; None when none does.
    """

    job_id: str
    task_id: str
    client_id: str
    base_version: int
    outcome: str
    reason: str
    reason_code: int
    payload_sha256: bytes
    version_number: int | None


def find_outcome(engine: Engine, task_id: str) -> TaskOutcomeRow | None:
    """The recorded outcome of a task, or None."""
    record = TaskOutcomeRecord
    statement = select(
        record.job_id,
        record.task_id,
        record.client_id,
        record.base_version,
        record.outcome,
        record.reason,
        record.reason_code,
        record.payload_sha256,
        record.version_number,
    ).where(record.task_id == task_id)
    with engine.connect() as connection:
        row = connection.execute(statement).one_or_none()
    return None if row is None else TaskOutcomeRow(*row)


def ended_tasks(engine: Engine, job_id: str, limit: int) -> tuple[str, ...]:
    """A job's tasks whose outcome was recorded last, oldest first, at most ``limit``."""
    record = TaskOutcomeRecord
    statement = (
        select(record.task_id)
        .where(record.job_id == job_id)
        .order_by(record.recorded_at.desc(), record.task_id)
        .limit(limit)
    )
    with engine.connect() as connection:
        return tuple(reversed(connection.execute(statement).scalars().all()))


def count_outcomes(engine: Engine, job_id: str) -> Mapping[tuple[str, str], int]:
    """How many of a job's tasks ended how: by outcome and reason."""
    record = TaskOutcomeRecord
    statement = (
        select(record.outcome, record.reason, func.count())
        .where(record.job_id == job_id)
        .group_by(record.outcome, record.reason)
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    return {(outcome, reason): count for outcome, reason, count in rows}


def count_tasks_of(engine: Engine, client_id: str, since: dt.datetime) -> int:
    """How many tasks of a client have ended since then, however they did."""
    record = TaskOutcomeRecord
    statement = select(func.count()).where(
        record.client_id == client_id, record.recorded_at >= since
    )
    with engine.connect() as connection:
        return connection.execute(statement).scalar_one()


def record_outcomes(engine: Engine, rows: Sequence[TaskOutcomeRow]) -> None:
    """Record outcomes in one transaction; a task that has one keeps its first."""
    if rows:
        with engine.begin() as connection:
            insert_outcomes(connection, rows)


def insert_outcomes(connection: Connection, rows: Sequence[TaskOutcomeRow]) -> None:
    """`record_outcomes` as a part of the caller's transaction."""
    # In one order everywhere, so that two writers of the same tasks cannot deadlock. One statement
    # for all rows, not one of all rows: that would be compiled anew each time, at 0.1 ms a row.
    ordered = sorted(rows, key=lambda row: row.task_id)
    values = [
        {
            "job_id": row.job_id,
            "task_id": row.task_id,
            "client_id": row.client_id,
            "base_version": row.base_version,
            "outcome": str(row.outcome),
            "reason": row.reason,
            "reason_code": int(row.reason_code),
            "payload_sha256": row.payload_sha256,
            "version_number": row.version_number,
        }
        for row in ordered
    ]
    if values:
        connection.execute(insert(TaskOutcomeRecord).on_conflict_do_nothing(), values)
