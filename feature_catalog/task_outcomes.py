"""Answers given to devices, kept for good: the same task asked about again gets the same answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from feature_catalog.schema import TaskOutcomeRecord

_ROWS_PER_STATEMENT = 1000


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


def record_outcomes(engine: Engine, rows: Sequence[TaskOutcomeRow]) -> None:
    """Record outcomes in one transaction; a task that has one keeps its first."""
    if rows:
        with engine.begin() as connection:
            insert_outcomes(connection, rows)


def insert_outcomes(connection: Connection, rows: Sequence[TaskOutcomeRow]) -> None:
    """`record_outcomes` as a part of the caller's transaction."""
    # In one order everywhere, so that two writers of the same tasks cannot deadlock.
    ordered = sorted(rows, key=lambda row: row.task_id)
    for start in range(0, len(ordered), _ROWS_PER_STATEMENT):
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
            for row in ordered[start : start + _ROWS_PER_STATEMENT]
        ]
        connection.execute(insert(TaskOutcomeRecord).values(values).on_conflict_do_nothing())
