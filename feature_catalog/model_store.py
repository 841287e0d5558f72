"""The model store: lines of versions, each with its parent, job, metrics and strategy state.

A version's bytes go to the blob store first; then one transaction writes its row and the outcomes
of the tasks it counts. So a version that can be seen is whole, and an outcome says "succeeded"
exactly when the version that holds the update is stored.
"""

import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from device_runtime.manifest import ArtifactManifest
from device_runtime.update_codec import encode_parameters, parameters_from_blob
from feature_catalog.audit_log import AuditAction, append_entry
from feature_catalog.blobs import BlobStore
from feature_catalog.failpoints import failpoint
from feature_catalog.jobs import require_epoch
from feature_catalog.model_files import ModelFormat, read_model_file, write_model_file
from feature_catalog.references import near_matches, split_reference, version_number
from feature_catalog.schema import ArtifactRecord, ModelLine, ModelVersionRecord
from feature_catalog.task_outcomes import (
    TaskOutcomeRow,
    count_outcomes,
    ended_tasks,
    insert_outcomes,
)
from modeling.spec import ModelSpec
from modeling.zoo import get_model

PRIMARY_METRIC = "metric"
ALIASES = ("latest", "best", "production")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class UnknownVersion(FlintError):
    """A reference that names no stored version."""

    code = "FLN-1301"


class InvalidModelName(FlintError):
    """A name that versions cannot be kept under."""

    code = "FLN-1304"


class VersionConflict(FlintError):
    """A job's version is stored already, with other contents."""

    code = "FLN-1305"


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A stored TFLite model and its manifest, by digest."""

    artifact_sha256: bytes
    manifest_sha256: bytes
    model: str
    batch_size: int
    optimizer: str
    proximal: bool


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be stored.

    Attributes:
        name: The line it is appended to.
        model: Registered model name.
        parameters: Serialised ``TensorList``.
        parent_id: Version it was trained from, or None.
        job_id: Job that made it, or None; set together with ``job_version``.
        job_version: Number of aggregations behind it within its job.
        job_epoch: Incarnation of the job's coordinator that stores it; None where none does.
        metrics: By name; ``"metric"`` is the primary one.
        strategy_state: JSON a restarted coordinator goes on from.
        optimizer_state: Serialised server-optimiser slots, or None.
        release_ids: Releases whose sums are in it.
        contract_sha256: Digest of what devices were held to, or None.
        feature_contract_sha256: Of the feature service it was trained with, or None.
    """

    name: str
    model: str
    parameters: bytes
    parent_id: int | None = None
    job_id: str | None = None
    job_version: int | None = None
    job_epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    strategy_state: Mapping[str, Any] = field(default_factory=dict)
    optimizer_state: bytes | None = None
    release_ids: Sequence[str] = ()
    contract_sha256: bytes | None = None
    feature_contract_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A stored version; see `NewVersion`.

    Attributes:
        id: Unique over all lines.
        number: Position in its line, from 1.
    """

    id: int
    name: str
    number: int
    model: str
    parent_id: int | None
    job_id: str | None
    job_version: int | None
    job_epoch: int | None
    parameters_sha256: bytes
    optimizer_state_sha256: bytes | None
    contract_sha256: bytes | None
    feature_contract_sha256: bytes | None
    metrics: Mapping[str, float]
    strategy_state: Mapping[str, Any]
    release_ids: tuple[str, ...]
    created_at: dt.datetime


class ModelStore:
    """Model versions and artefacts: rows in Postgres, bytes in the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def register_artifact(self, model_bytes: bytes, manifest: ArtifactManifest) -> ArtifactRow:
        """Store an artefact; the newest of its model, batch size and optimiser is found first."""
        row = ArtifactRow(
            artifact_sha256=self._blobs.put(model_bytes),
            manifest_sha256=self._blobs.put(manifest.to_json().encode()),
            model=manifest.model,
            batch_size=manifest.batch_size,
            optimizer=manifest.optimizer,
            proximal=manifest.proximal,
        )
        values = {name: getattr(row, name) for name in ArtifactRow.__slots__}
        statement = (
            insert(ArtifactRecord)
            .values(values)
            .on_conflict_do_update("uq_artifacts_kind", set_={"created_at": func.now()})
        )
        with self._engine.begin() as connection:
            connection.execute(statement)
        return row

    def find_artifact(
        self, model: str, batch_size: int, optimizer: str, proximal: bool
    ) -> ArtifactRow | None:
        """The newest artefact of a model, batch size and optimiser, or None."""
        record = ArtifactRecord
        statement = (
            select(record.artifact_sha256, record.manifest_sha256)
            .where(
                record.model == model,
                record.batch_size == batch_size,
                record.optimizer == optimizer,
                record.proximal == proximal,
            )
            .order_by(record.created_at.desc(), record.id.desc())
            .limit(1)
        )
        with self._engine.connect() as connection:
            found = connection.execute(statement).one_or_none()
        return (
            None if found is None else ArtifactRow(*found, model, batch_size, optimizer, proximal)
        )

    def add_version(
        self, version: NewVersion, outcomes: Sequence[TaskOutcomeRow] = ()
    ) -> ModelVersion:
        """Store a version and the outcomes of the tasks it counts.

        Storing a job's n-th version again with the same parameters returns the stored one, so a
        coordinator that never got the answer just repeats itself.

        Raises:
            InvalidModelName: If the name cannot be used in a reference.
            VersionConflict: If the job's n-th version is stored with other parameters.
            JobTakenOver: If the job has a later coordinator than the one that stores it.
        """
        if _NAME.fullmatch(version.name) is None:
            raise InvalidModelName(
                f"models cannot be kept under the name {version.name!r}; use letters, digits, '_', "
                "'.' and '-', at most 63, beginning with a letter or digit"
            )
        parameters_sha256 = self._blobs.put(version.parameters)
        state = version.optimizer_state
        state_sha256 = None if state is None else self._blobs.put(state)
        failpoint("version_blob_written")
        with Session(self._engine) as session, session.begin():
            if version.job_id is not None and version.job_epoch is not None:
                require_epoch(session.connection(), version.job_id, version.job_epoch)
            session.execute(insert(ModelLine).values(name=version.name).on_conflict_do_nothing())
            # The row's lock, held until commit, makes numbers unique and without gaps.
            line = session.get_one(ModelLine, version.name, with_for_update=True)
            record = _stored(session, version, parameters_sha256)
            if record is None:
                record = ModelVersionRecord(
                    name=version.name,
                    number=line.next_number,
                    model=version.model,
                    parent_id=version.parent_id,
                    job_id=version.job_id,
                    job_version=version.job_version,
                    job_epoch=version.job_epoch,
                    parameters_sha256=parameters_sha256,
                    optimizer_state_sha256=state_sha256,
                    contract_sha256=version.contract_sha256,
                    feature_contract_sha256=version.feature_contract_sha256,
                    metrics=dict(version.metrics),
                    strategy_state=dict(version.strategy_state),
                    release_ids=list(version.release_ids),
                )
                line.next_number += 1
                session.add(record)
                session.flush()
            insert_outcomes(session.connection(), outcomes)
            stored = version_row(record)
        failpoint("version_row_committed")
        return stored

    def record_outcomes(self, outcomes: Sequence[TaskOutcomeRow], job_id: str, epoch: int) -> None:
        """Record outcomes of a job's tasks that no version counts.

        Raises:
            JobTakenOver: If the job has a later coordinator than this ``epoch``.
        """
        with self._engine.begin() as connection:
            require_epoch(connection, job_id, epoch)
            insert_outcomes(connection, outcomes)

    def ended_tasks(self, job_id: str, limit: int) -> tuple[str, ...]:
        """See `feature_catalog.task_outcomes.ended_tasks`."""
        return ended_tasks(self._engine, job_id, limit)

    def count_outcomes(self, job_id: str) -> Mapping[tuple[str, str], int]:
        """See `feature_catalog.task_outcomes.count_outcomes`."""
        return count_outcomes(self._engine, job_id)

    def record_metrics(self, version_id: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to a version; those of the same name are replaced.

        Raises:
            UnknownVersion: If there is no such version.
        """
        record = ModelVersionRecord
        statement = (
            update(record)
            .where(record.id == version_id)
            .values(metrics=record.metrics.op("||")(dict(metrics)))
            .returning(record.id)
        )
        with self._engine.begin() as connection:
            if connection.execute(statement).one_or_none() is None:
                raise UnknownVersion(f"there is no model version with id {version_id}")

    def resolve(self, reference: str) -> ModelVersion:
        """Find the version of ``name``, ``name@3``, or ``name@`` and an alias.

        ``latest`` (also the bare name) is the highest number, ``best`` the highest primary metric
        (of equals the oldest), ``production`` what `promote` set.

        Raises:
            UnknownVersion: If there is none; says which there are.
        """
        name, which = split_reference(reference)
        record = ModelVersionRecord
        with Session(self._engine) as session:
            line = session.get(ModelLine, name)
            if line is None:
                raise UnknownVersion(self._no_such_line(session, name))
            statement = select(record).where(record.name == name)
            if which in {None, "latest"}:
                statement = statement.order_by(record.number.desc())
                missing = f"model {name} has no versions"
            elif which == "best":
                metric = record.metrics[PRIMARY_METRIC].as_float()
                statement = statement.where(metric.is_not(None))
                statement = statement.order_by(metric.desc(), record.number)
                missing = f"no version of {name} has been evaluated yet; name one by its number"
            elif which == "production":
                statement = statement.where(record.number == line.production_number)
                missing = f"no version of {name} is in production; promote one first"
            else:
                statement = statement.where(record.number == version_number(which))
                missing = (
                    f"there is no version {name}@{which}; it has 1 to {line.next_number - 1}, and "
                    f"the aliases {', '.join(ALIASES)}"
                )
            found = session.scalars(statement.limit(1)).one_or_none()
            if found is None:
                raise UnknownVersion(missing)
            return version_row(found)

    def newest_of_job(self, job_id: str) -> ModelVersion | None:
        """The version with the highest ``job_version`` of a job, or None."""
        record = ModelVersionRecord
        statement = (
            select(record)
            .where(record.job_id == job_id)
            .order_by(record.job_version.desc())
            .limit(1)
        )
        with Session(self._engine) as session:
            found = session.scalars(statement).one_or_none()
            return None if found is None else version_row(found)

    def releases_of_job(self, job_id: str, after: int) -> tuple[str, ...]:
        """Release ids of a job's versions with a ``job_version`` above ``after``, oldest first."""
        record = ModelVersionRecord
        statement = (
            select(record.release_ids)
            .where(record.job_id == job_id, record.job_version > after)
            .order_by(record.job_version)
        )
        with Session(self._engine) as session:
            return tuple(id_ for ids in session.scalars(statement) for id_ in ids)

    def list_versions(self, name: str | None = None) -> tuple[ModelVersion, ...]:
        """Versions of one line, or of all, by name and number.

        Raises:
            UnknownVersion: If there is no line of that name.
        """
        record = ModelVersionRecord
        statement = select(record).order_by(record.name, record.number)
        with Session(self._engine) as session:
            if name is not None:
                if session.get(ModelLine, name) is None:
                    raise UnknownVersion(self._no_such_line(session, name))
                statement = statement.where(record.name == name)
            return tuple(version_row(found) for found in session.scalars(statement))

    def promote(self, name: str, number: int) -> ModelVersion:
        """Point the alias ``production`` at a version; returns it.

        Raises:
            UnknownVersion: If there is no such version.
        """
        version = self.resolve(f"{name}@{number}")
        with self._engine.begin() as connection:
            before = connection.execute(
                select(ModelLine.production_number).where(ModelLine.name == name).with_for_update()
            ).scalar_one()
            connection.execute(
                update(ModelLine).where(ModelLine.name == name).values(production_number=number)
            )
            append_entry(
                connection,
                AuditAction.MODEL_PROMOTED,
                f"{name}@{number}",
                {"before": before, "parameters_sha256": version.parameters_sha256.hex()},
            )
        return version

    def parameters(self, version: ModelVersion) -> bytes:
        """A version's parameters, a serialised ``TensorList``.

        Raises:
            MissingBlob: If they are not in the blob store.
            CorruptBlob: If they are damaged there.
        """
        return self._blobs.get(version.parameters_sha256)

    def optimizer_state(self, version: ModelVersion) -> bytes | None:
        """A version's server-optimiser state, or None when it has none.

        Raises:
            MissingBlob: If it is not in the blob store.
            CorruptBlob: If it is damaged there.
        """
        digest = version.optimizer_state_sha256
        return None if digest is None else self._blobs.get(digest)

    def import_model(self, name: str, model: ModelSpec, path: Path) -> ModelVersion:
        """Store a model trained elsewhere as a version without parent or job.

        Args:
            path: A torch state dict (``.pt``, ``.pth``), or arrays by parameter name (``.npz``).

        Raises:
            FlintError: If the file is not readable, or not of this model.
        """
        arrays = read_model_file(model, path)
        parameters = encode_parameters(model.parameters, arrays)
        return self.add_version(NewVersion(name, model.name, parameters))

    def export_model(
        self, reference: str, path: Path, form: ModelFormat | None = None
    ) -> ModelVersion:
        """Write a version as a file for other programs; returns the version.

        Args:
            path: Written whole or not at all.
            form: ``"torch"``, ``"npz"`` or ``"tflite"``; None takes it from the path's ending.

        Raises:
            UnknownVersion: If there is no such version.
            FlintError: If the format is not known or needs packages that are not installed, or the
                file cannot be written.
        """
        version = self.resolve(reference)
        model = get_model(version.model)
        arrays = parameters_from_blob(model.parameters, self.parameters(version))
        write_model_file(model, arrays, path, form)
        return version

    def _no_such_line(self, session: Session, name: str) -> str:
        names = session.scalars(select(ModelLine.name).order_by(ModelLine.name)).all()
        first = "train one with `flint submit`, or `flint models import` one"
        return f"there is no model {name!r} in the model store" + near_matches(
            name, names, first=first
        )


def _stored(
    session: Session, version: NewVersion, parameters_sha256: bytes
) -> ModelVersionRecord | None:
    if version.job_id is None:
        return None
    record = ModelVersionRecord
    condition: ColumnElement[bool] = (record.job_id == version.job_id) & (
        record.job_version == version.job_version
    )
    stored = session.scalars(select(record).where(condition)).one_or_none()
    if stored is not None and stored.parameters_sha256 != parameters_sha256:
        raise VersionConflict(
            f"version {version.job_version} of job {version.job_id} is stored already with other "
            "parameters, so two coordinators drive this job; stop one of them"
        )
    return stored


def version_row(record: ModelVersionRecord) -> ModelVersion:
    """A table's row as others know it."""
    return ModelVersion(
        id=record.id,
        name=record.name,
        number=record.number,
        model=record.model,
        parent_id=record.parent_id,
        job_id=record.job_id,
        job_version=record.job_version,
        job_epoch=record.job_epoch,
        parameters_sha256=record.parameters_sha256,
        optimizer_state_sha256=record.optimizer_state_sha256,
        contract_sha256=record.contract_sha256,
        feature_contract_sha256=record.feature_contract_sha256,
        metrics={n: math.nan if v is None else float(v) for n, v in record.metrics.items()},
        strategy_state=record.strategy_state,
        release_ids=tuple(record.release_ids),
        created_at=record.created_at,
    )
