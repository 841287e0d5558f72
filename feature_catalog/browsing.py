"""What is in the catalog, a page at a time, newest first: for who looks through it.

Every query is bounded, however much there is.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session

from feature_catalog.audit_log import AuditAction, AuditEntry
from feature_catalog.datasets import dataset_row
from feature_catalog.jobs import JobRow, job_row
from feature_catalog.model_store import PRIMARY_METRIC, ModelVersion, version_row
from feature_catalog.opened_dataset import DatasetRow
from feature_catalog.schema import (
    AuditRecord,
    DatasetRecord,
    DeviceRecord,
    FeatureContractRecord,
    JobRecord,
    ModelLine,
    ModelVersionRecord,
    SimulationRunRecord,
)
from feature_catalog.simulation_runs import SimulationRunRow, run_row

MAX_POINTS = 2_000
MAX_DEVICE_GROUPS = 200

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of many.

    Attributes:
        offset: Rows before these.
        total: Rows in all.
    """

    rows: tuple[Row, ...]
    offset: int
    total: int


@dataclass(frozen=True, slots=True)
class LineRow:
    """A model's versions in short.

    Attributes:
        newest: Number of the newest version.
        production: Number of the version in production, or None.
        best_metric: Highest primary metric of its versions, or None.
        stored_at: When the newest was stored.
    """

    name: str
    model: str
    versions: int
    newest: int
    production: int | None
    best_metric: float | None
    stored_at: dt.datetime


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """A version's primary metric."""

    number: int
    job_id: str | None
    job_version: int | None
    metric: float


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """Enrolled devices of one model that run one app."""

    device_model: str
    app_id: str
    devices: int


class CatalogBrowser:
    """Pages of a catalog's rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def jobs(self, limit: int, offset: int = 0) -> Page[JobRow]:
        """Jobs, the last submitted first."""
        statement = select(JobRecord).order_by(JobRecord.position.desc())
        return self._page(statement, job_row, limit, offset)

    def simulation_runs(self, limit: int, offset: int = 0) -> Page[SimulationRunRow]:
        """Dry-runs, the last started first."""
        record = SimulationRunRecord
        return self._page(select(record).order_by(record.position.desc()), run_row, limit, offset)

    def datasets(self, limit: int, offset: int = 0) -> Page[DatasetRow]:
        """Data sets, the last added first."""
        statement = select(DatasetRecord).order_by(DatasetRecord.id.desc())
        return self._page(statement, dataset_row, limit, offset)

    def audit_entries(self, limit: int, offset: int = 0) -> Page[AuditEntry]:
        """Entries of the audit log, the last first."""
        statement = select(AuditRecord).order_by(AuditRecord.id.desc())
        return self._page(statement, _entry, limit, offset)

    def versions(self, name: str, limit: int, offset: int = 0) -> Page[ModelVersion]:
        """Versions of one model, the newest first; none where there is no such model."""
        record = ModelVersionRecord
        statement = select(record).where(record.name == name).order_by(record.number.desc())
        return self._page(statement, version_row, limit, offset)

    def lines(self, limit: int, offset: int = 0) -> Page[LineRow]:
        """Models that have versions, the one with the newest version first."""
        record = ModelVersionRecord
        metric = record.metrics[PRIMARY_METRIC].as_float()
        statement = (
            select(
                record.name,
                func.max(record.model),
                func.count(),
                func.max(record.number),
                ModelLine.production_number,
                func.max(metric),
                func.max(record.created_at),
            )
            .join(ModelLine, ModelLine.name == record.name)
            .group_by(record.name, ModelLine.production_number)
            .order_by(func.max(record.id).desc())
        )
        with self._engine.connect() as connection:
            total = connection.execute(select(func.count(record.name.distinct()))).scalar_one()
            found = connection.execute(statement.limit(limit).offset(offset))
            return Page(tuple(LineRow(*row) for row in found), offset, total)

    def metric_points(
        self, name: str | None = None, job_id: str | None = None
    ) -> tuple[MeasuredPoint, ...]:
        """Primary metrics of a model's or a job's newest versions, oldest first.

        Returns:
            At most `MAX_POINTS`.
        """
        record = ModelVersionRecord
        metric = record.metrics[PRIMARY_METRIC].as_float()
        statement = (
            select(record.number, record.job_id, record.job_version, metric)
            .where(metric.is_not(None))
            .order_by(record.id.desc())
            .limit(MAX_POINTS)
        )
        if name is not None:
            statement = statement.where(record.name == name)
        if job_id is not None:
            statement = statement.where(record.job_id == job_id)
        with self._engine.connect() as connection:
            found = [MeasuredPoint(*row) for row in connection.execute(statement)]
        return tuple(found[::-1])

    def promotions(self, name: str, limit: int, offset: int = 0) -> Page[AuditEntry]:
        """Promotions of one model's versions, the last first."""
        record = AuditRecord
        statement = (
            select(record)
            .where(
                record.action == str(AuditAction.MODEL_PROMOTED),
                func.split_part(record.subject, "@", 1) == name,
            )
            .order_by(record.id.desc())
        )
        return self._page(statement, _entry, limit, offset)

    def service_of_contract(self, sha256: bytes) -> str | None:
        """Name of the feature service that froze to a contract; None where none did."""
        record = FeatureContractRecord
        statement = select(record.service).where(record.sha256 == sha256).limit(1)
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar_one_or_none()

    def trained_with(self, service: str) -> int:
        """Number of model versions that were trained with a service, under any contract it had."""
        contract, version = FeatureContractRecord, ModelVersionRecord
        digests = select(contract.sha256).where(contract.service == service)
        statement = select(func.count()).where(version.feature_contract_sha256.in_(digests))
        with self._engine.connect() as connection:
            return connection.execute(statement).scalar_one()

    def trained_under(self, sha256: bytes, limit: int) -> Page[ModelVersion]:
        """Model versions that were trained under a contract, the newest first."""
        record = ModelVersionRecord
        statement = (
            select(record)
            .where(record.feature_contract_sha256 == sha256)
            .order_by(record.id.desc())
        )
        return self._page(statement, version_row, limit, 0)

    def devices(self) -> tuple[DeviceGroup, ...]:
        """Enrolled devices by model and app, the most frequent first; at most 200 groups."""
        record = DeviceRecord
        statement = (
            select(record.device_model, record.app_id, func.count())
            .group_by(record.device_model, record.app_id)
            .order_by(func.count().desc(), record.device_model, record.app_id)
            .limit(MAX_DEVICE_GROUPS)
        )
        with self._engine.connect() as connection:
            return tuple(DeviceGroup(*row) for row in connection.execute(statement))

    def counts(self) -> Mapping[str, int]:
        """How much there is of what."""
        tables: Mapping[str, Any] = {
            "jobs": JobRecord,
            "versions": ModelVersionRecord,
            "runs": SimulationRunRecord,
            "datasets": DatasetRecord,
            "devices": DeviceRecord,
        }
        with self._engine.connect() as connection:
            return {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in tables.items()
            }

    def _page(
        self,
        statement: Select[Any],
        convert: Callable[[Any], Row],
        limit: int,
        offset: int,
    ) -> Page[Row]:
        counted = select(func.count()).select_from(statement.order_by(None).subquery())
        with Session(self._engine) as session:
            total = session.execute(counted).scalar_one()
            found = session.scalars(statement.limit(limit).offset(offset))
            return Page(tuple(convert(record) for record in found), offset, total)


def _entry(record: AuditRecord) -> AuditEntry:
    return AuditEntry(record.at, record.actor, record.action, record.subject, record.detail)
