"""What models were measured to cost on devices: a row a device and benchmark, raw result beside.

The catalog takes plain values; `android_bench` makes them from raw runs.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, cast

from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from feature_catalog.blobs import BlobStore
from feature_catalog.schema import MeasurementRecord

MeasuredTask = Literal["train", "infer"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One benchmark of one model on one device.

    Attributes:
        model: Its name.
        model_sha256: Of the model file, 32 bytes.
        device_id: The very device.
        device_model: The product it is one of.
        backend: What ran it, e.g. ``"host"``, ``"adb"``.
        emulated: Whether speed was imitated on another machine.
        timing_valid: Whether times mean anything.
        ok: Whether there are figures at all; if not, ``reasons`` says why and they are None.
        records: Of one pass.
        repeats: Runs measured.
        os_release: Month the device's system was released, ``"2019-09"``, if known.
        device_memory_mb: The device's own memory.
        pass_s: Seconds of a pass over the records, of each run.
        pass_s_mean: Their mean.
        pass_s_stdev: Their sample standard deviation; None of a single run.
        memory_mb: Growth of the peak resident size beyond imports.
        cpu_percent: 100 is one core.
        storage_mb: Model file and manifest.
        network_mb: Parameters down and update up, of a task.
        latency_p50_ms: Of a call of inference; None for training.
        latency_p95_ms: The same.
    """

    model: str
    model_sha256: bytes
    task: MeasuredTask
    device_id: str
    device_model: str
    backend: str
    emulated: bool
    timing_valid: bool
    ok: bool
    reasons: tuple[str, ...]
    records: int
    batch_size: int
    repeats: int
    os_version: str
    os_release: str | None
    cores: int
    device_memory_mb: float
    pass_s: tuple[float, ...] = ()
    pass_s_mean: float | None = None
    pass_s_stdev: float | None = None
    memory_mb: float | None = None
    cpu_percent: float | None = None
    storage_mb: float | None = None
    network_mb: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None

    @property
    def per_example_s(self) -> float | None:
        """Mean seconds a record, its share of the batch's cost included; None if not measured."""
        return None if self.pass_s_mean is None else self.pass_s_mean / self.records

    @property
    def per_example_samples_s(self) -> tuple[float, ...]:
        """Seconds a record of each run."""
        return tuple(seconds / self.records for seconds in self.pass_s)


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """A stored measurement.

    Attributes:
        raw_sha256: Of the worker's result file, in the blob store.
    """

    id: int
    measurement: Measurement
    raw_sha256: bytes
    created_at: dt.datetime


class Measurements:
    """Measurements: rows in Postgres, raw results in the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def add(self, measurement: Measurement, raw: bytes) -> MeasurementRow:
        """Store a measurement with the result it was drawn from.

        The same raw bytes again are the row there is.

        Raises:
            BlobStoreUnreachable: If the raw result cannot be stored.
        """
        raw_sha256 = self._blobs.put(raw)
        values = {field.name: getattr(measurement, field.name) for field in fields(Measurement)}
        values |= {"reasons": list(measurement.reasons), "pass_s": list(measurement.pass_s)}
        with Session(self._engine) as session, session.begin():
            session.execute(
                insert(MeasurementRecord)
                .values(raw_sha256=raw_sha256, **values)
                .on_conflict_do_nothing(index_elements=["raw_sha256"])
            )
            found = select(MeasurementRecord).where(MeasurementRecord.raw_sha256 == raw_sha256)
            return _row(session.scalars(found).one())

    def list(
        self, *, model: str | None = None, task: MeasuredTask | None = None
    ) -> tuple[MeasurementRow, ...]:
        """Measurements in the order they were added.

        Args:
            model: Only of this one.
            task: Only of this one.
        """
        statement = select(MeasurementRecord).order_by(MeasurementRecord.id)
        if model is not None:
            statement = statement.where(MeasurementRecord.model == model)
        if task is not None:
            statement = statement.where(MeasurementRecord.task == task)
        with Session(self._engine) as session:
            return tuple(_row(record) for record in session.scalars(statement))

    def latest_by_device_model(
        self,
        model: str,
        task: MeasuredTask = "train",
        *,
        model_sha256: bytes | None = None,
        emulated: bool | None = None,
    ) -> Mapping[str, MeasurementRow]:
        """The newest measurement of each device model that is ok and whose times are valid.

        Real devices go before emulated ones: an emulated row is returned for a device model only
        where no real one is.

        Args:
            model_sha256: Only of this model file.
            emulated: Only emulated (True) or only real ones (False).

        Returns:
            By device model, ascending.
        """
        record = MeasurementRecord
        newest = func.row_number().over(
            partition_by=record.device_model, order_by=(record.emulated, record.id.desc())
        )
        chosen = select(record.id, newest.label("place")).where(
            record.model == model, record.task == task, record.ok, record.timing_valid
        )
        if model_sha256 is not None:
            chosen = chosen.where(record.model_sha256 == model_sha256)
        if emulated is not None:
            chosen = chosen.where(record.emulated == emulated)
        ranked = chosen.subquery()
        statement = (
            select(record)
            .join(ranked, ranked.c.id == record.id)
            .where(ranked.c.place == 1)
            .order_by(record.device_model)
        )
        with Session(self._engine) as session:
            rows = [_row(found) for found in session.scalars(statement)]
        return {row.measurement.device_model: row for row in rows}

    def raw(self, row: MeasurementRow) -> bytes:
        """The worker's result file.

        Raises:
            MissingBlob: If it is not in the blob store.
            CorruptBlob: If it is damaged there.
        """
        return self._blobs.get(row.raw_sha256)


def _row(record: MeasurementRecord) -> MeasurementRow:
    values = {field.name: getattr(record, field.name) for field in fields(Measurement)}
    values |= {
        "task": cast(MeasuredTask, record.task),  # the table's check allows no other
        "reasons": tuple(record.reasons),
        "pass_s": tuple(record.pass_s),
    }
    return MeasurementRow(record.id, Measurement(**values), record.raw_sha256, record.created_at)
