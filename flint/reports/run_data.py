"""A dry-run as plain data: what the report is made from."""

import datetime as dt
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.errors import FlintError

if TYPE_CHECKING:
    from feature_catalog.simulation_runs import SimulationRuns

_WHOLE, _REAL, _TEXT = pa.int64(), pa.float64(), pa.string()
_OUTCOME_COUNTS = ("succeeded", "interrupted", "stale", "over_committed", "failed", "rejected")

# What the report reads of each file of a run. A column that is absent reads as null throughout, so
# that a run that cannot know something (a Flower app's staleness) need not make it up.
COLUMNS: Mapping[str, pa.Schema] = {
    "trajectory": pa.schema(
        [
            ("trial", _WHOLE),
            ("version", _WHOLE),
            ("virtual_s", _REAL),
            ("metric", _REAL),
            ("loss", _REAL),
            ("train_loss", _REAL),
            ("updates", _WHOLE),
            ("tasks_started", _WHOLE),
            *((outcome, _WHOLE) for outcome in _OUTCOME_COUNTS),
            ("device_s", _REAL),
            ("wasted_device_s", _REAL),
            ("bytes_down", _WHOLE),
            ("bytes_up", _WHOLE),
        ]
    ),
    "tasks": pa.schema(
        [
            ("trial", _WHOLE),
            ("client", _WHOLE),
            ("base_version", _WHOLE),
            ("version", _WHOLE),
            ("started_s", _REAL),
            ("ended_s", _REAL),
            ("download_s", _REAL),
            ("train_s", _REAL),
            ("upload_s", _REAL),
            ("device_s", _REAL),
            ("outcome", _TEXT),
            ("bytes_down", _WHOLE),
            ("bytes_up", _WHOLE),
        ]
    ),
    "population": pa.schema(
        [("client", _WHOLE), ("device_model", _TEXT), ("records", _WHOLE), ("tier", _TEXT)]
    ),
    "availability": pa.schema([("virtual_s", _REAL), ("available", _WHOLE)]),
}
_INDISPENSABLE = {
    "trajectory": ("trial", "version", "virtual_s"),
    "tasks": ("trial", "started_s", "ended_s"),
    "population": ("client",),
    "availability": ("virtual_s", "available"),
}


class RunWithoutResults(FlintError):
    """A run that has nothing to report on: it is running, or failed before it wrote anything."""

    code = "FLN-1740"


class UnreadableRunFile(FlintError):
    """A file of a run that is not the table it should be."""

    code = "FLN-1741"


@dataclass(frozen=True, slots=True)
class InputUsed:
    """One input of the environment.

    Attributes:
        reference: What the environment file says.
        version: In the catalog; None for a file named by its path.
        sha256: Digest of its bytes, hexadecimal.
    """

    reference: str
    version: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class RunData:
    """One run: its record and its tables (virtual seconds since the run began).

    Attributes:
        kind: ``"job"`` or ``"flower_app"``.
        status: ``"running"``, ``"finished"`` or ``"failed"``.
        detail: Why it failed, else empty.
        inputs: By key of the environment.
        versions: Of packages, by name.
        summary: ``{"trials": [...], "metric_name": ...}``; see docs/run-record.md.
        files: SHA-256 of each file of the run, hexadecimal, by name.
        trajectory: One row a trial and stored version, in order.
        tasks: One row a task started.
        population: One row a client; empty where there is none.
        availability: Clients available over the run; empty where unknown.
    """

    run_id: str
    name: str
    kind: str
    status: str
    job_json: str
    environment_json: str
    seed: int
    executors: int
    code_version: str
    created_at: dt.datetime
    summary: Mapping[str, Any]
    trajectory: pa.Table
    tasks: pa.Table
    population: pa.Table
    availability: pa.Table
    detail: str = ""
    finished_at: dt.datetime | None = None
    inputs: Mapping[str, InputUsed] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric_name(self) -> str | None:
        """Name of the metric versions are measured by; None where none is."""
        name = self.summary.get("metric_name")
        return str(name) if name else None


def conform(name: str, table: pa.Table, *, where: str) -> pa.Table:
    """The columns of a run's table that the report reads, in their types; others are left out.

    Args:
        name: Of the table, a key of `COLUMNS`.
        where: For messages, e.g. ``"run s-0123456789ab"``.

    Raises:
        UnreadableRunFile: If a column without which nothing can be told is missing, or one is of
            another type.
    """
    missing = [column for column in _INDISPENSABLE[name] if column not in table.column_names]
    if missing:
        raise _unreadable(name, where, f"it has no column {missing[0]}")
    arrays = []
    for column in COLUMNS[name]:
        if column.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, column.type))
            continue
        try:
            arrays.append(table[column.name].cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            problem = f"its column {column.name} is {table[column.name].type}"
            raise _unreadable(name, where, problem) from error
    return pa.table(arrays, schema=COLUMNS[name])


def load_run(runs: "SimulationRuns", reference: str) -> RunData:
    """Fetch a run's record and tables from the catalog.

    Args:
        reference: The run's id, the beginning of it, or a job's name for its newest run.

    Raises:
        UnknownSimulationRun: If there is no such run.
        RunWithoutResults: If it has no trajectory: it is running, or failed.
        UnreadableRunFile: If a file of it is not the table it should be.
        MissingBlob: If a file of it is not in the blob store.
        CorruptBlob: If one is damaged there.
    """
    row = runs.get(reference)
    where = f"run {row.run_id}"
    if "trajectory" not in row.files:
        state = {
            "running": "it is still running (or was killed); wait for it, or resume it with "
            f"`flint simulate JOB -e ENV --resume {row.run_id}`",
            "failed": f"it failed: {row.detail or 'no reason was recorded'}; start it again",
        }.get(row.status, "its record names no trajectory; start it again")
        raise RunWithoutResults(f"{where} has no results to report on: {state}")
    tables = {}
    for name, schema in COLUMNS.items():
        if name not in row.files:
            tables[name] = schema.empty_table()
            continue
        try:
            table = pq.read_table(io.BytesIO(runs.file(row, name)))
        except pa.ArrowInvalid as error:
            raise _unreadable(name, where, "it is no Parquet file") from error
        tables[name] = conform(name, table, where=where)
    return RunData(
        run_id=row.run_id,
        name=row.name,
        kind=row.kind,
        status=row.status,
        job_json=row.job_json,
        environment_json=row.environment_json,
        seed=row.seed,
        executors=row.executors,
        code_version=row.code_version,
        created_at=row.created_at,
        summary=row.summary,
        detail=row.detail,
        finished_at=row.finished_at,
        inputs={
            key: InputUsed(used.reference, used.version, used.sha256)
            for key, used in row.inputs.items()
        },
        versions=row.versions,
        files=row.files,
        **tables,
    )


def _unreadable(name: str, where: str, problem: str) -> UnreadableRunFile:
    return UnreadableRunFile(
        f"{where}: the file {name} is not what a report is made from ({problem}); start the run "
        "again with this version of flint"
    )
