"""The job queue: one job runs, the others wait in order of submission."""

import contextlib
import datetime as dt
import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from feature_catalog.audit_log import COORDINATOR, AuditAction, append_entry
from feature_catalog.code_version import code_version, package_versions
from feature_catalog.database import LEADER_LOCK
from feature_catalog.schema import JobIncarnationRecord, JobRecord

JobStatus = Literal["queued", "running", "finished", "stopped", "failed"]
_OPEN = frozenset({"queued", "running"})
_LEADER_POLL_S = 0.2
_COMPUTES = ("numpy", "flwr")


class UnknownJob(FlintError):
    """A job id that no job has."""

    code = "FLN-1204"


class JobNotClaimable(FlintError):
    """A job cannot be driven: it has ended, or another one is running."""

    code = "FLN-1238"


class AnotherLeader(FlintError):
    """Another coordinator drives this deployment's jobs."""

    code = "FLN-1239"


class JobTakenOver(FlintError):
    """A later incarnation of the coordinator drives a job that this one still works on."""

    code = "FLN-1290"


@dataclass(frozen=True, slots=True)
class JobRow:
    """One job as the queue knows it.

    Attributes:
        job_json: The checked job file, as submitted.
        epoch: Incarnations of the coordinator that have driven it; 0 before the first.
        flower_run_id: Its run on Flower's SuperLink, or None.
        progress: As last reported: version, metric, updates and so on.
        detail: Why it ended, in a sentence.
    """

    job_id: str
    name: str
    status: JobStatus
    job_json: str
    epoch: int
    flower_run_id: int | None
    progress: Mapping[str, Any]
    detail: str
    submitted_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None


class JobQueue:
    """Jobs in Postgres; safe for any number of processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, job_json: str, name: str, flower_run_id: int | None) -> str:
        """Append a job to the queue; returns its id, ``j-`` and twelve hex digits."""
        job_id = f"j-{secrets.token_hex(6)}"
        with self._engine.begin() as connection:
            connection.execute(
                insert(JobRecord).values(
                    job_id=job_id, name=name, job_json=job_json, flower_run_id=flower_run_id
                )
            )
            digest = hashlib.sha256(job_json.encode()).hexdigest()
            told = {"name": name, "job_sha256": digest}
            append_entry(connection, AuditAction.JOB_SUBMITTED, job_id, told)
        return job_id

    def set_flower_run(self, job_id: str, run_id: int) -> None:
        """Record which run on the SuperLink is this job's.

        Raises:
            UnknownJob: If there is no such job.
        """
        self._update(job_id, flower_run_id=run_id)

    def next_queued(self) -> JobRow | None:
        """The job that has waited longest, or None."""
        return self._first(JobRecord.status == "queued")

    def running(self) -> JobRow | None:
        """The one job that is running, or None."""
        return self._first(JobRecord.status == "running")

    def claim(self, job_id: str) -> int:
        """Become the one that drives a job, for the first time or again; returns its new epoch.

        The code of this process is recorded with the epoch.

        Raises:
            UnknownJob: If there is no such job.
            JobNotClaimable: If it has ended, or another job is running.
        """
        code, versions = code_version(), package_versions(_COMPUTES)
        try:
            with Session(self._engine) as session, session.begin():
                job = self._locked(session, job_id)
                if job.status not in _OPEN:
                    raise JobNotClaimable(
                        f"job {job_id} is {job.status} and does not run again; submit it anew"
                    )
                if job.started_at is None:
                    job.started_at = session.execute(select(func.now())).scalar_one()
                job.status = "running"
                job.epoch += 1
                session.add(
                    JobIncarnationRecord(
                        job_id=job_id, epoch=job.epoch, code_version=code, versions=versions
                    )
                )
                session.flush()
                return job.epoch
        except IntegrityError as error:
            raise JobNotClaimable(
                f"job {job_id} cannot start while another job is running; it waits in the queue"
            ) from error

    def finish(
        self, job_id: str, status: Literal["finished", "stopped", "failed"], detail: str
    ) -> None:
        """End a job. One that has ended already stays as it is.

        Raises:
            UnknownJob: If there is no such job.
        """
        with Session(self._engine) as session, session.begin():
            _end(session, self._locked(session, job_id), status, detail, actor=COORDINATOR)

    def request_stop(self, job_id: str) -> JobRow:
        """Ask for a job's end; returns the job as it is then.

        A waiting job is stopped at once, a running one when its coordinator notices, and one that
        has ended stays as it is.

        Raises:
            UnknownJob: If there is no such job.
        """
        with Session(self._engine) as session, session.begin():
            job = self._locked(session, job_id)
            if job.status in _OPEN and not job.stop_requested:
                connection = session.connection()
                append_entry(connection, AuditAction.JOB_STOP_REQUESTED, job_id)
            job.stop_requested = True
            if job.status == "queued":
                _end(session, job, "stopped", "stopped before it started", actor=None)
        return self.get(job_id)

    def stop_requested(self, job_id: str) -> bool:
        """Whether `request_stop` was called for a job.

        Raises:
            UnknownJob: If there is no such job.
        """
        statement = select(JobRecord.stop_requested).where(JobRecord.job_id == job_id)
        with self._engine.connect() as connection:
            requested = connection.execute(statement).scalar_one_or_none()
        if requested is None:
            raise _unknown(job_id)
        return requested

    def update_progress(self, job_id: str, progress: Mapping[str, Any]) -> None:
        """Replace a job's progress (JSON; numbers that are not finite become null).

        Raises:
            UnknownJob: If there is no such job.
        """
        self._update(job_id, progress=dict(progress))

    def get(self, job_id: str) -> JobRow:
        """One job.

        Raises:
            UnknownJob: If there is no such job.
        """
        row = self._first(JobRecord.job_id == job_id)
        if row is None:
            raise _unknown(job_id)
        return row

    def list(self) -> tuple[JobRow, ...]:
        """All jobs in order of submission."""
        with Session(self._engine) as session:
            records = session.scalars(select(JobRecord).order_by(JobRecord.position))
            return tuple(job_row(record) for record in records)

    def _first(self, condition: ColumnElement[bool]) -> JobRow | None:
        statement = select(JobRecord).where(condition).order_by(JobRecord.position).limit(1)
        with Session(self._engine) as session:
            record = session.scalars(statement).one_or_none()
            return None if record is None else job_row(record)

    def _update(self, job_id: str, **values: object) -> None:
        statement = (
            update(JobRecord)
            .where(JobRecord.job_id == job_id)
            .values(**values)
            .returning(JobRecord.job_id)
        )
        with self._engine.begin() as connection:
            if connection.execute(statement).one_or_none() is None:
                raise _unknown(job_id)

    def _locked(self, session: Session, job_id: str) -> JobRecord:
        record = session.get(JobRecord, job_id, with_for_update=True)
        if record is None:
            raise _unknown(job_id)
        return record


class LeaderLock:
    """Held by the one coordinator of a deployment, until its connection ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_lost = False

    def is_held(self) -> bool:
        """Whether the connection that holds the lock still stands."""
        if not self._is_lost:
            try:
                self._connection.execute(text("SELECT 1"))
            except DBAPIError:
                self._is_lost = True
        return not self._is_lost


@contextlib.contextmanager
def leader_lock(engine: Engine, wait_s: float = 30.0) -> Iterator[LeaderLock]:
    """Be the one coordinator. The lock goes with the process: one killed never blocks the next.

    Args:
        wait_s: How long to wait for a coordinator that is just ending.

    Raises:
        AnotherLeader: If another process holds the lock all that time.
    """
    deadline_s = time.monotonic() + wait_s
    take = text("SELECT pg_try_advisory_lock(:key)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(take, {"key": LEADER_LOCK}).scalar_one():
            if time.monotonic() >= deadline_s:
                raise AnotherLeader(
                    "another coordinator drives the jobs of this database; stop it first, or wait "
                    "until it has ended"
                )
            time.sleep(_LEADER_POLL_S)
        try:
            yield LeaderLock(connection)
        finally:
            # Not handed back to the pool, where the lock would live on; this ends it.
            connection.invalidate()


def require_epoch(connection: Connection, job_id: str, epoch: int) -> None:
    """Let only the newest incarnation of a job's coordinator write; part of its transaction.

    Whoever claims the job waits for that transaction's end, so what an incarnation finds when it
    takes a job up is all that earlier ones will ever have written.

    Raises:
        JobTakenOver: If a later incarnation has claimed the job.
    """
    record = JobRecord
    statement = select(record.epoch).where(record.job_id == job_id).with_for_update(read=True)
    newest = connection.execute(statement).scalar_one_or_none()
    if newest is not None and newest != epoch:
        raise JobTakenOver(
            f"job {job_id} is driven by another coordinator (incarnation {newest}; this one was "
            f"{epoch}), which goes on with it; this one ends and has changed nothing"
        )


def _end(
    session: Session, job: JobRecord, status: JobStatus, detail: str, *, actor: str | None
) -> None:
    if job.status in _OPEN:
        told = {"status": status, "detail": detail}
        connection = session.connection()
        append_entry(connection, AuditAction.JOB_ENDED, job.job_id, told, actor=actor)
        job.status = status
        job.detail = detail
        job.finished_at = session.execute(select(func.now())).scalar_one()


def job_row(record: JobRecord) -> JobRow:
    """A table's row as others know it."""
    run_id = record.flower_run_id
    return JobRow(
        job_id=record.job_id,
        name=record.name,
        status=cast(JobStatus, record.status),  # the table's check allows no other
        job_json=record.job_json,
        epoch=record.epoch,
        flower_run_id=None if run_id is None else int(run_id),
        progress=record.progress,
        detail=record.detail,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
    )


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(f"there is no job {job_id}; `flint jobs` lists those there are")
