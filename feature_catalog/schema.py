"""Every table of the catalog. Migrations must lead to exactly this; a test compares them.

Blobs are named by their SHA-256 (32 bytes) and lie in the blob store, written before the row that
points at them. Jobs are not referred to by foreign keys: versions and outcomes outlive the queue's
history.
"""

import datetime as dt
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from feature_catalog import online_schema  # noqa: F401 - its tables are the catalog's too
from feature_catalog.schema_base import Base


class ModelLine(Base):
    """A name under which versions of a model are kept.

    Attributes:
        next_number: Number of the next version; its row lock makes numbers unique and gapless.
        production_number: Version the alias ``production`` points at.
    """

    __tablename__ = "model_lines"

    name: Mapped[str] = mapped_column(primary_key=True)
    next_number: Mapped[int] = mapped_column(server_default="1")
    production_number: Mapped[int | None]


class ModelVersionRecord(Base):
    """One stored version of a model: immutable but for its metrics.

    Attributes:
        job_epoch: `JobIncarnationRecord.epoch` of the coordinator that stored it; null where none
            did, and of versions older than the column.
        feature_contract_sha256: `FeatureContractRecord.sha256` of what it was trained with.
    """

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("name", "number"),
        # Two coordinators can never both store a job's n-th version.
        UniqueConstraint("job_id", "job_version"),
        CheckConstraint("(job_id IS NULL) = (job_version IS NULL)", name="job_and_version"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(ForeignKey(ModelLine.name))
    number: Mapped[int]
    model: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    job_id: Mapped[str | None]
    job_version: Mapped[int | None]
    job_epoch: Mapped[int | None]
    parameters_sha256: Mapped[bytes]
    optimizer_state_sha256: Mapped[bytes | None]
    contract_sha256: Mapped[bytes | None]
    feature_contract_sha256: Mapped[bytes | None] = mapped_column(index=True)
    metrics: Mapped[dict[str, Any]]
    strategy_state: Mapped[dict[str, Any]]
    release_ids: Mapped[list[Any]]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class ArtifactRecord(Base):
    """A TFLite model and its manifest, as devices fetch them; the newest of a kind is used."""

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint(
            "model",
            "batch_size",
            "optimizer",
            "proximal",
            "manifest_sha256",
            name="uq_artifacts_kind",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model: Mapped[str]
    batch_size: Mapped[int]
    optimizer: Mapped[str]
    proximal: Mapped[bool]
    artifact_sha256: Mapped[bytes]
    manifest_sha256: Mapped[bytes]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class TaskOutcomeRecord(Base):
    """How a task ended: written once, with the version that counts it."""

    __tablename__ = "task_outcomes"
    __table_args__ = (Index("outcomes_of_client", "client_id", "recorded_at"),)

    task_id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(index=True)
    client_id: Mapped[str]
    base_version: Mapped[int]
    outcome: Mapped[str]
    reason: Mapped[str]
    reason_code: Mapped[int]
    payload_sha256: Mapped[bytes]
    version_number: Mapped[int | None]
    recorded_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class JobRecord(Base):
    """One submitted job.

    Attributes:
        position: Order of submission.
        job_json: The checked job file, byte for byte as gateways are sent it.
        epoch: Incarnations of the coordinator that have driven it.
        flower_run_id: Unsigned 64-bit number of Flower's, hence numeric.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'running', 'finished', 'stopped', 'failed')", name="status"
        ),
        Index(
            "one_running_job", text("(true)"), unique=True, postgresql_where="status = 'running'"
        ),
        Index("queued_jobs", "position", postgresql_where="status = 'queued'"),
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    name: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="queued")
    job_json: Mapped[str]
    epoch: Mapped[int] = mapped_column(server_default="0")
    flower_run_id: Mapped[Decimal | None] = mapped_column(Numeric(20, 0))
    stop_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    progress: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    detail: Mapped[str] = mapped_column(server_default="")
    submitted_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class JobIncarnationRecord(Base):
    """One time that a coordinator took a job up, and the code it did so with.

    Attributes:
        versions: Of the packages that compute, by name.
    """

    __tablename__ = "job_incarnations"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code_version: Mapped[str]
    versions: Mapped[dict[str, Any]]
    claimed_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class EnrolmentTokenRecord(Base):
    """A token devices enrol with, kept as its SHA-256 only."""

    __tablename__ = "enrolment_tokens"
    __table_args__ = (CheckConstraint("enrolled <= max_devices", name="within_limit"),)

    token_sha256: Mapped[bytes] = mapped_column(primary_key=True)
    max_devices: Mapped[int]
    enrolled: Mapped[int] = mapped_column(server_default="0")
    expires_at: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class DeviceRecord(Base):
    """An enrolled device and its public key."""

    __tablename__ = "devices"

    device_id: Mapped[str] = mapped_column(primary_key=True)
    public_key_der: Mapped[bytes]
    app_id: Mapped[str]
    device_model: Mapped[str]
    os_release: Mapped[str]
    enrolled_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class DatasetRecord(Base):
    """One version of a data set, ready for training.

    Attributes:
        split_set: Name the held-out rule was applied with (the file's, without its ending).
        encodings: What became of each column (`field_encodings.FieldEncoding`).
        records_sha256: Arrow IPC file of records, those of a client contiguous.
        clients_sha256: Arrow IPC file of clients: their rows and side of the split.
    """

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    model: Mapped[str]
    source: Mapped[str]
    source_sha256: Mapped[bytes]
    split_set: Mapped[str]
    roles: Mapped[dict[str, Any]]
    hash_name: Mapped[str]
    hash_seed: Mapped[int] = mapped_column(BigInteger)
    encodings: Mapped[list[Any]]
    statistics: Mapped[dict[str, Any]]
    records_sha256: Mapped[bytes]
    clients_sha256: Mapped[bytes]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class SimulationRunRecord(Base):
    """One dry-run on the virtual clock, of all its trials.

    Attributes:
        position: Order of creation.
        job_json: The checked job file; of a Flower app, how it was started.
        environment_json: The checked environment file.
        inputs: By key of the environment: reference, version and digest of what was read.
        versions: Of the packages that compute, by name.
        summary: What became of each trial; empty until the run has finished.
        files: SHA-256 of each file of the run, hexadecimal, by name.
        checkpoint_sha256: Where a run that has not finished goes on from, or null.
        detail: Why it failed, in a sentence.
    """

    __tablename__ = "simulation_runs"
    __table_args__ = (
        CheckConstraint("kind IN ('job', 'flower_app')", name="kind"),
        CheckConstraint("status IN ('running', 'finished', 'failed')", name="status"),
    )

    run_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    name: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="running")
    job_json: Mapped[str]
    environment_json: Mapped[str]
    inputs: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    trials: Mapped[int]
    executors: Mapped[int]
    code_version: Mapped[str]
    versions: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    files: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    checkpoint_sha256: Mapped[bytes | None]
    detail: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[dt.datetime | None]


class EnvironmentInputRecord(Base):
    """One version of a file that an environment may name: a trace, profiles, shares or links.

    Attributes:
        source: File it was added from.
        sha256: The file's bytes, as they were.
        suffix: Ending that says the file's format, e.g. ``.parquet``.
        statistics: What its reader found in it.
    """

    __tablename__ = "environment_inputs"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        CheckConstraint(
            "kind IN ('availability', 'device_profiles', 'device_population', 'bandwidth')",
            name="kind",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    kind: Mapped[str]
    source: Mapped[str]
    sha256: Mapped[bytes]
    suffix: Mapped[str]
    statistics: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class AuditRecord(Base):
    """One change: who, when, what. Triggers refuse to update or delete it.

    Attributes:
        actor: ``user@host``, or ``coordinator``.
    """

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(server_default=func.now(), index=True)
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class ReleaseBudgetRecord(Base):
    """What one enclave of a job has released: advanced by compare-and-set, never set back.

    Attributes:
        slot: Which of the deployment's enclaves, by its gateway's number.
        version: Newest model version an aggregate was released for.
        state: SHA-256 over all releases so far, as the enclave reckons it.
        release_id: The newest release.
    """

    __tablename__ = "release_budgets"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]
    state: Mapped[bytes]
    release_id: Mapped[str]
    advanced_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class MeasurementRecord(Base):
    """One benchmark of a model on a device; columns as in `measurements.Measurement`.

    Attributes:
        raw_sha256: The worker's result file.
    """

    __tablename__ = "measurements"
    __table_args__ = (
        CheckConstraint("task IN ('train', 'infer')", name="task"),
        CheckConstraint("NOT ok OR pass_s_mean IS NOT NULL", name="ok_has_figures"),
        Index("measurements_of_model", "model", "task", "device_model"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    raw_sha256: Mapped[bytes] = mapped_column(unique=True)
    model: Mapped[str]
    model_sha256: Mapped[bytes]
    task: Mapped[str]
    device_id: Mapped[str]
    device_model: Mapped[str]
    backend: Mapped[str]
    emulated: Mapped[bool]
    timing_valid: Mapped[bool]
    ok: Mapped[bool]
    reasons: Mapped[list[Any]]
    records: Mapped[int]
    batch_size: Mapped[int]
    repeats: Mapped[int]
    os_version: Mapped[str]
    os_release: Mapped[str | None]
    cores: Mapped[int]
    device_memory_mb: Mapped[float]
    pass_s: Mapped[list[Any]]
    pass_s_mean: Mapped[float | None]
    pass_s_stdev: Mapped[float | None]
    memory_mb: Mapped[float | None]
    cpu_percent: Mapped[float | None]
    storage_mb: Mapped[float | None]
    network_mb: Mapped[float | None]
    latency_p50_ms: Mapped[float | None]
    latency_p95_ms: Mapped[float | None]
    created_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class FeatureApplyRecord(Base):
    """One change of the feature definitions, of one definition or many. Triggers keep it as it is.

    Attributes:
        registry_sha256: Digest of all definitions after it (`feature_registry.RegistryState`).
        changes: Action, kind, name and version of each.
    """

    __tablename__ = "feature_applies"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    actor: Mapped[str]
    registry_sha256: Mapped[bytes]
    changes: Mapped[list[Any]]
    applied_at: Mapped[dt.datetime] = mapped_column(server_default=func.now())


class FeatureDefinitionRecord(Base):
    """One version of a feature definition. Triggers keep it as it is.

    Attributes:
        version: From 1, without gaps, also over deletions.
        definition_json: Canonical JSON (`definitions.plain`); null: deleted with this version.
        sha256: Of that text.
    """

    __tablename__ = "feature_definitions"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('entity', 'asset', 'feature_view', 'feature_service')", name="kind"
        ),
        CheckConstraint("version >= 1", name="version"),
        CheckConstraint("(definition_json IS NULL) = (sha256 IS NULL)", name="text_and_digest"),
    )

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    definition_json: Mapped[str | None]
    sha256: Mapped[bytes | None]
    apply_id: Mapped[int] = mapped_column(ForeignKey(FeatureApplyRecord.id))


class FeatureContractRecord(Base):
    """What a feature service came to with an apply that changed it. Triggers keep it as it is.

    Attributes:
        service_version: Version of the service's own definition then.
        content_json: Canonical JSON of every member (`definitions.contracts`).
        sha256: Of that text: the contract's digest.
    """

    __tablename__ = "feature_contracts"
    __table_args__ = (UniqueConstraint("service", "apply_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    service: Mapped[str]
    service_version: Mapped[int]
    sha256: Mapped[bytes] = mapped_column(index=True)
    content_json: Mapped[str]
    apply_id: Mapped[int] = mapped_column(ForeignKey(FeatureApplyRecord.id))
