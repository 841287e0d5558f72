"""Simulation runs: what was dry-run, in what world, where it stands and what came of it.

A run's files go to the blob store first; then one transaction names them and ends the run. So a
finished run is whole, and one that broke off still has its checkpoint.
"""

import contextlib
import datetime as dt
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from feature_catalog.blobs import BlobStore, CorruptBlob
from feature_catalog.references import near_matches
from feature_catalog.schema import SimulationRunRecord

RunKind = Literal["job", "flower_app"]
RunStatus = Literal["running", "finished", "failed"]
_DRIVING_MARK = "simulation run "
_ID_PREFIX = re.compile(r"s-[0-9a-f]{0,12}")


class UnknownSimulationRun(FlintError):
    """A reference that names no simulation run, or more than one."""

    code = "FLN-1310"


class SimulationRunEnded(FlintError):
    """A run that has ended cannot go on."""

    code = "FLN-1311"


class SimulationRunDriven(FlintError):
    """Another process drives the run."""

    code = "FLN-1312"


class UnknownRunFile(FlintError):
    """A run has no file of this name."""

    code = "FLN-1313"


@dataclass(frozen=True, slots=True)
class RunInput:
    """One input of a run, so that it can be found again.

    Attributes:
        reference: What the environment says.
        version: In the catalog; None for a file named by its path.
        sha256: Digest of its bytes, hexadecimal.
    """

    reference: str
    version: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class NewSimulationRun:
    """A run that begins.

    Attributes:
        name: The job's, or the Flower app's.
        job_json: The checked job file; of a Flower app, how it was started.
        environment_json: The checked environment file.
        inputs: By key of the environment, e.g. ``"availability"``.
        seed: Of its random streams.
        executors: Processes that train; 0 if nothing is trained.
        code_version: FLINT's.
        versions: Of the packages that compute, by name.
    """

    name: str
    kind: RunKind
    job_json: str
    environment_json: str
    inputs: Mapping[str, RunInput]
    seed: int
    trials: int
    executors: int
    code_version: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SimulationRunRow:
    """A run as the catalog knows it; see `NewSimulationRun`.

    Attributes:
        run_id: ``s-`` and twelve hexadecimal digits.
        status: ``"running"`` also of a run whose process was killed.
        summary: What became of each trial; empty until the run has finished.
        files: SHA-256 of each file, hexadecimal, by name; empty until the run has finished.
        checkpoint_sha256: Where it can go on from, or None.
        detail: Why it failed, in a sentence.
    """

    run_id: str
    name: str
    kind: RunKind
    status: RunStatus
    job_json: str
    environment_json: str
    inputs: Mapping[str, RunInput]
    seed: int
    trials: int
    executors: int
    code_version: str
    versions: Mapping[str, str]
    summary: Mapping[str, Any]
    files: Mapping[str, str]
    checkpoint_sha256: bytes | None
    detail: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class SimulationRuns:
    """Runs: rows in Postgres, checkpoints and files in the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def create(self, run: NewSimulationRun) -> SimulationRunRow:
        """Record a run that begins, under a new id."""
        run_id = f"s-{secrets.token_hex(6)}"
        values = {name: getattr(run, name) for name in NewSimulationRun.__slots__}
        values["inputs"] = {key: asdict(found) for key, found in run.inputs.items()}
        values["versions"] = dict(run.versions)
        with self._engine.begin() as connection:
            connection.execute(insert(SimulationRunRecord).values(run_id=run_id, **values))
        return self.get(run_id)

    def get(self, reference: str) -> SimulationRunRow:
        """The run of an id, of the beginning of one, or the newest of a job's name.

        Raises:
            UnknownSimulationRun: If there is none, or the beginning is that of several.
        """
        record = SimulationRunRecord
        newest = select(record).order_by(record.position.desc())
        with Session(self._engine) as session:
            if _ID_PREFIX.fullmatch(reference):
                begins = record.run_id.startswith(reference)
                found = session.scalars(newest.where(begins).limit(2)).all()
                if len(found) == 1:
                    return run_row(found[0])
                if found:
                    raise UnknownSimulationRun(
                        f"{reference} begins the ids of several runs, {found[0].run_id} and "
                        f"{found[1].run_id} among them; give more of the id"
                    )
            named = session.scalars(newest.where(record.name == reference).limit(1)).one_or_none()
            if named is not None:
                return run_row(named)
            known = list(session.scalars(select(record.name).distinct().order_by(record.name)))
            if reference.startswith("s-"):
                ids = select(record.run_id).order_by(record.position.desc())
                known = [*session.scalars(ids), *known]
        first = "start one with `flint simulate`"
        raise UnknownSimulationRun(
            f"there is no simulation run {reference!r}{near_matches(reference, known, first=first)}"
        )

    def list(self) -> tuple[SimulationRunRow, ...]:
        """All runs, oldest first."""
        statement = select(SimulationRunRecord).order_by(SimulationRunRecord.position)
        with Session(self._engine) as session:
            return tuple(run_row(record) for record in session.scalars(statement))

    def driven(self) -> frozenset[str]:
        """Ids of the runs that processes are at work on; see `driving`."""
        # Postgres shows the 64 bits of an advisory lock in two halves.
        statement = text(
            "SELECT run_id FROM simulation_runs JOIN pg_locks "
            "ON (classid::bigint << 32 | objid::bigint) = hashtextextended(:mark || run_id, 0) "
            "WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        with self._engine.connect() as connection:
            return frozenset(connection.execute(statement, {"mark": _DRIVING_MARK}).scalars())

    @contextlib.contextmanager
    def driving(self, run_id: str) -> Iterator[None]:
        """Be the one process that drives a run; a failed run is running again.

        The claim goes with the process: one that was killed never blocks who resumes its run.

        Raises:
            UnknownSimulationRun: If there is no such run.
            SimulationRunDriven: If another process drives it.
            SimulationRunEnded: If it has finished.
        """
        take = text("SELECT pg_try_advisory_lock(hashtextextended(:mark || :id, 0))")
        give_back = text("SELECT pg_advisory_unlock(hashtextextended(:mark || :id, 0))")
        key = {"mark": _DRIVING_MARK, "id": run_id}
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.execute(take, key).scalar_one():
                raise SimulationRunDriven(
                    f"run {run_id} is being driven by another process; wait for it, or stop it"
                )
            try:
                with Session(self._engine) as session, session.begin():
                    record = _locked(session, run_id)
                    if record.status == "finished":
                        raise _ended(record)
                    record.status = "running"
                    record.detail = ""
                    record.finished_at = None
                yield
            finally:
                with contextlib.suppress(DBAPIError):  # a connection that broke has let go of it
                    connection.execute(give_back, key)
                connection.invalidate()  # never back to the pool with a lock that might live on

    def save_checkpoint(self, run_id: str, data: bytes) -> None:
        """Replace the state a run goes on from; a kill at any time leaves the old or the new one.

        Raises:
            UnknownSimulationRun: If there is no such run.
            SimulationRunEnded: If it has ended.
            BlobStoreUnreachable: If the state cannot be written.
        """
        # The id before the data makes the blob this run's alone, so that it may be deleted.
        digest = self._blobs.put(_checkpoint_mark(run_id) + data)
        with Session(self._engine) as session, session.begin():
            record = _running(session, run_id)
            previous = record.checkpoint_sha256
            record.checkpoint_sha256 = digest
        if previous is not None and previous != digest:
            self._blobs.delete(previous)

    def load_checkpoint(self, row: SimulationRunRow) -> bytes | None:
        """The state a run goes on from, or None where it begins anew.

        Raises:
            MissingBlob: If it is not in the blob store.
            CorruptBlob: If it is damaged there.
        """
        if row.checkpoint_sha256 is None:
            return None
        data = self._blobs.get(row.checkpoint_sha256)
        mark = _checkpoint_mark(row.run_id)
        if not data.startswith(mark):
            raise CorruptBlob(
                f"the checkpoint of run {row.run_id} is another run's; start the run anew"
            )
        return data[len(mark) :]

    def finish(
        self, run_id: str, summary: Mapping[str, Any], files: Mapping[str, Path | bytes]
    ) -> SimulationRunRow:
        """End a run with its results; its checkpoint is removed. Returns the finished run.

        Args:
            summary: JSON; numbers that are not finite become null.
            files: Contents by name; all are stored before the run says that it has finished.

        Raises:
            UnknownSimulationRun: If there is no such run.
            SimulationRunEnded: If it has ended already.
            BlobStoreUnreachable: If a file cannot be written.
        """
        digests = {name: self._store(content).hex() for name, content in files.items()}
        with Session(self._engine) as session, session.begin():
            record = _running(session, run_id)
            checkpoint = record.checkpoint_sha256
            record.status = "finished"
            record.summary = dict(summary)
            record.files = digests
            record.checkpoint_sha256 = None
            record.finished_at = session.execute(select(func.now())).scalar_one()
        if checkpoint is not None:
            self._blobs.delete(checkpoint)
        return self.get(run_id)

    def fail(self, run_id: str, detail: str) -> None:
        """End a run that cannot go on; it keeps its checkpoint, and `driving` it runs it again.

        Args:
            detail: Why, in a sentence.

        Raises:
            UnknownSimulationRun: If there is no such run.
            SimulationRunEnded: If it has ended already.
        """
        with Session(self._engine) as session, session.begin():
            record = _running(session, run_id)
            record.status = "failed"
            record.detail = detail
            record.finished_at = session.execute(select(func.now())).scalar_one()

    def file(self, row: SimulationRunRow, name: str) -> bytes:
        """Contents of one of a run's files, e.g. ``"trajectory"``.

        Raises:
            UnknownRunFile: If the run has no file of this name.
            MissingBlob: If it is not in the blob store.
            CorruptBlob: If it is damaged there.
        """
        if name not in row.files:
            has = f"it has {', '.join(sorted(row.files))}" if row.files else f"it is {row.status}"
            raise UnknownRunFile(f"run {row.run_id} has no file {name!r}; {has}")
        return self._blobs.get(bytes.fromhex(row.files[name]))

    def _store(self, content: Path | bytes) -> bytes:
        put_file, put = self._blobs.put_file, self._blobs.put
        return put_file(content) if isinstance(content, Path) else put(content)


def _checkpoint_mark(run_id: str) -> bytes:
    return f"checkpoint of {run_id}\n".encode()


def _locked(session: Session, run_id: str) -> SimulationRunRecord:
    record = session.get(SimulationRunRecord, run_id, with_for_update=True)
    if record is None:
        raise UnknownSimulationRun(
            f"there is no simulation run {run_id}; `flint runs` lists those there are"
        )
    return record


def _running(session: Session, run_id: str) -> SimulationRunRecord:
    record = _locked(session, run_id)
    if record.status != "running":
        raise _ended(record)
    return record


def _ended(record: SimulationRunRecord) -> SimulationRunEnded:
    return SimulationRunEnded(
        f"run {record.run_id} is {record.status} and does not go on; start another one"
    )


def run_row(record: SimulationRunRecord) -> SimulationRunRow:
    """A table's row as others know it."""
    return SimulationRunRow(
        run_id=record.run_id,
        name=record.name,
        kind=cast(RunKind, record.kind),  # the table's checks allow no other
        status=cast(RunStatus, record.status),
        job_json=record.job_json,
        environment_json=record.environment_json,
        inputs={key: RunInput(**found) for key, found in record.inputs.items()},
        seed=record.seed,
        trials=record.trials,
        executors=record.executors,
        code_version=record.code_version,
        versions=record.versions,
        summary=record.summary,
        files=record.files,
        checkpoint_sha256=record.checkpoint_sha256,
        detail=record.detail,
        created_at=record.created_at,
        finished_at=record.finished_at,
    )
