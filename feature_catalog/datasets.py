"""The data set catalog: the user's files, encoded for a model, split by client, and numbered."""

import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Select, select, text
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from device_runtime.hashing import HASH_NAME
from feature_catalog.blobs import BlobStore
from feature_catalog.clients_and_labels import ClientsAndLabels, read_clients_and_labels
from feature_catalog.encoders import build_encoder
from feature_catalog.featurize import FieldRoles, learn_encodings
from feature_catalog.opened_dataset import Dataset, DatasetRow, DatasetSource
from feature_catalog.record_files import ClientIndex, order_by_client, write_records
from feature_catalog.references import near_matches, split_reference, version_number
from feature_catalog.schema import DatasetRecord
from feature_catalog.splits import heldout_clients
from feature_catalog.table_files import TableFile, open_table
from feature_catalog.user_events import UserEvents
from modeling.spec import ModelSpec

__all__ = [
    "Dataset",
    "DatasetCatalog",
    "DatasetRow",
    "DatasetSource",
    "InvalidDatasetName",
    "InvalidHashSeed",
    "UnknownDataset",
]

SERVICE, CONTRACT, USER_EVENTS = (
    "feature_service",
    "feature_contract_sha256",
    "user_events_sha256",
)
"""Keys of a data set's roles where its records are features of a service."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class UnknownDataset(FlintError):
    """A reference that names no data set."""

    code = "FLN-1112"


class InvalidDatasetName(FlintError):
    """A name a data set cannot have."""

    code = "FLN-1113"


class InvalidHashSeed(FlintError):
    """A seed the feature hash does not take."""

    code = "FLN-1114"


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The rows of a file by client: training clients first, each client's rows together.

    Attributes:
        clients: Client and label of every row, in the order of the file.
        index: Which of the ordered rows belong to which client.
        place: Ordered row of each row of the file, shape ``(rows,)``.
    """

    clients: ClientsAndLabels
    index: ClientIndex
    place: NDArray[np.int64]

    @property
    def is_training(self) -> NDArray[np.bool_]:
        """Whether each row of the file belongs to a training client, shape ``(rows,)``."""
        training: NDArray[np.bool_] = self.place < self.index.training_rows
        return training


@dataclass(frozen=True, slots=True)
class EncodedRecords:
    """Records of a file as arrays of a model's input.

    Attributes:
        name: Of the data set.
        roles: What the file's columns were for, as stored.
        encodings: What became of each column or feature, as stored.
        batches: Rows in the order of the file, each ``(rows, places)``.
    """

    name: str
    roles: dict[str, Any]
    encodings: list[dict[str, Any]]
    batches: Iterable[NDArray[Any]]


def read_split(table: TableFile, roles: FieldRoles) -> SplitRows:
    """Read clients and labels of a file, and choose whose records are held out.

    Raises:
        MissingColumn: If a column that the roles name is not there.
        InvalidClient, InvalidLabel: See `read_clients_and_labels`.
        FlintError: If there are too few clients.
    """
    table.require(roles.named())
    found = read_clients_and_labels(table, roles.client_field, roles.label_field)
    heldout = heldout_clients(table.path.stem, found.counts())
    place, codes = order_by_client(found.client_codes, found.client_ids, heldout)
    return SplitRows(found, _client_index(found, codes, heldout), place)


def checked_seed(seed: int) -> int:
    """A seed the feature hash takes.

    Raises:
        InvalidHashSeed: If it is none.
    """
    if not 0 <= seed < 2**32:
        raise InvalidHashSeed(
            f"the feature hash cannot be seeded with {seed}; give a whole number from 0 to "
            f"{2**32 - 1}"
        )
    return seed


class DatasetCatalog:
    """Data sets: rows in Postgres, records and client index in the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs

    def add(
        self,
        path: Path,
        roles: FieldRoles,
        model: ModelSpec,
        name: str | None = None,
        seed: int = 0,
    ) -> DatasetRow:
        """Encode a Parquet or CSV file for a model and store it as a new version.

        Adding the same file in the same way again returns the version there is.

        Args:
            name: Defaults to the file's name without its ending.
            seed: Of the feature hash, 32 bits unsigned.

        Raises:
            FlintError: If the file cannot be read, a column is missing or unfit, a label is not 0
                or 1, or there are too few clients; in one sentence.
        """
        checked_seed(seed)
        table = open_table(path)
        name = _checked_name(name or path.stem)
        split = read_split(table, roles)
        encodings = learn_encodings(table, roles, model, split.is_training)
        encoder = build_encoder(table, encodings, model, seed)
        encoded = EncodedRecords(
            name,
            roles=dataclasses.asdict(roles),
            encodings=[encoding.to_dict() for encoding in encodings],
            batches=(encoder.encode(batch) for batch in table.batches(encoder.columns)),
        )
        return self.store(
            table.path, split, model, seed, encoded, lambda: encoder.truncated_records
        )

    def store(
        self,
        source: Path,
        split: "SplitRows",
        model: ModelSpec,
        seed: int,
        encoded: "EncodedRecords",
        truncated_records: Callable[[], int] = lambda: 0,
    ) -> DatasetRow:
        """Write encoded records and store them as a new version, unless they are the newest.

        Args:
            source: File they come from.
            split: Its clients and labels.
            model: Whose input they are.
            seed: Of the feature hash.
            encoded: Records in the order of the file.
            truncated_records: Asked once they are written.
        """
        with tempfile.TemporaryDirectory(prefix="flint-dataset-") as name:
            folder = Path(name)
            write_records(
                folder / "records.arrow",
                folder / "scratch",
                iter(encoded.batches),
                place=split.place,
                labels=split.clients.labels,
                width=model.input.shape[0],
                dtype=np.int32 if model.input.dtype == "int32" else np.float32,
            )
            split.index.write(folder / "clients.arrow")
            record = DatasetRecord(
                name=_checked_name(encoded.name),
                split_set=source.stem,
                model=model.name,
                source=str(source),
                source_sha256=_file_sha256(source),
                roles=encoded.roles,
                hash_name=HASH_NAME,
                hash_seed=seed,
                encodings=encoded.encodings,
                statistics=_statistics(split.index, truncated_records()),
                records_sha256=self._blobs.put_file(folder / "records.arrow"),
                clients_sha256=self._blobs.put_file(folder / "clients.arrow"),
            )
        return self._store(record)

    def open(self, reference: str) -> Dataset:
        """Open ``name`` (its newest version) or ``name@2``.

        Raises:
            UnknownDataset: If there is none; says which there are.
            MissingBlob: If its records are not in the blob store.
            CorruptBlob: If they are damaged there.
        """
        record = self._find(reference)
        local = self._blobs.local_path(record.records_sha256)
        return DatasetSource(
            row=dataset_row(record),
            records=local or self._blobs.get(record.records_sha256),
            clients=self._blobs.get(record.clients_sha256),
        ).open()

    def get(self, reference: str) -> DatasetRow:
        """What is known of ``name`` or ``name@2``, without its records.

        Raises:
            UnknownDataset: If there is none; says which there are.
        """
        return dataset_row(self._find(reference))

    def user_events(self, dataset: Dataset) -> UserEvents | None:
        """What users did, of a data set of a feature service; None of any other.

        Raises:
            MissingBlob, CorruptBlob: If it is not in the blob store as it was stored.
        """
        row = dataset.row
        roles = self._find(f"{row.name}@{row.version}").roles
        if row.feature_service is None:
            return None
        content = self._blobs.get(bytes.fromhex(roles[USER_EVENTS]))
        return UserEvents.from_parquet(row.feature_service, content)

    def list(self) -> tuple[DatasetRow, ...]:
        """All versions by name and number."""
        statement = select(DatasetRecord).order_by(DatasetRecord.name, DatasetRecord.version)
        with Session(self._engine) as session:
            return tuple(dataset_row(record) for record in session.scalars(statement))

    def _store(self, record: DatasetRecord) -> DatasetRow:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            # One writer of a name at a time, so versions are 1, 2, 3, ...
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended('dataset ' || :name, 0))")
            session.execute(lock, {"name": record.name})
            newest = session.scalars(_newest(record.name)).one_or_none()
            if newest is not None and _is_same(newest, record):
                return dataset_row(newest)
            record.version = 1 if newest is None else newest.version + 1
            session.add(record)
            session.flush()
            session.refresh(record)
            return dataset_row(record)

    def _find(self, reference: str) -> DatasetRecord:
        name, which = split_reference(reference)
        statement = _newest(name)
        if which is not None:
            statement = statement.where(DatasetRecord.version == version_number(which))
        with Session(self._engine) as session:
            record = session.scalars(statement).one_or_none()
            if record is not None:
                return record
            newest = session.scalars(_newest(name)).one_or_none()
            if newest is not None:
                raise UnknownDataset(
                    f"there is no data set {reference}; the versions of {name} are 1 to "
                    f"{newest.version}"
                )
            names = session.scalars(
                select(DatasetRecord.name).distinct().order_by(DatasetRecord.name)
            ).all()
        first = "add one with `flint dataset add FILE`"
        raise UnknownDataset(
            f"there is no data set {name!r}{near_matches(name, names, first=first)}"
        )


def _newest(name: str) -> Select[DatasetRecord]:
    return (
        select(DatasetRecord)
        .where(DatasetRecord.name == name)
        .order_by(DatasetRecord.version.desc())
        .limit(1)
    )


def _checked_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidDatasetName(
            f"a data set cannot be called {name!r}; give it a name of letters, digits, '_', '.' "
            "and '-', at most 63, beginning with a letter or digit"
        )
    return name


def _client_index(
    found: ClientsAndLabels, codes: list[int], heldout: frozenset[str]
) -> ClientIndex:
    records = found.records[codes]
    client_ids = tuple(found.client_ids[code] for code in codes)
    return ClientIndex(
        client_ids=client_ids,
        first_row=np.cumsum(records) - records,
        records=records,
        positives=found.positives[codes],
        is_heldout=np.array([client in heldout for client in client_ids]),
    )


def _statistics(index: ClientIndex, truncated_records: int) -> dict[str, float]:
    """Fields of `DatasetRow` that describe the records."""
    records = int(index.records.sum())
    heldout = int(index.is_heldout.sum())
    clients = len(index.client_ids)
    return {
        "clients": clients,
        "train_clients": clients - heldout,
        "heldout_clients": heldout,
        "records": records,
        "train_records": index.training_rows,
        "heldout_records": records - index.training_rows,
        "max_records": int(index.records.max()),
        "mean_records": float(index.records.mean()),
        "std_records": float(index.records.std()),
        "label_ratio": float(index.positives.sum() / records),
        "truncated_records": truncated_records,
    }


def _is_same(stored: DatasetRecord, new: DatasetRecord) -> bool:
    """Whether two versions hold the same records, made for the same model in the same way."""
    return (
        stored.records_sha256 == new.records_sha256
        and stored.clients_sha256 == new.clients_sha256
        and stored.model == new.model
        and stored.hash_seed == new.hash_seed
        and stored.encodings == new.encodings
        and stored.roles.get(CONTRACT) == new.roles.get(CONTRACT)
        and stored.roles.get(USER_EVENTS) == new.roles.get(USER_EVENTS)
    )


def dataset_row(record: DatasetRecord) -> DatasetRow:
    """A table's row as others know it."""
    return DatasetRow(
        name=record.name,
        version=record.version,
        model=record.model,
        **record.statistics,
        source=record.source,
        split_set=record.split_set,
        hash_name=record.hash_name,
        hash_seed=record.hash_seed,
        left_out={
            encoding["field"]: encoding["reason"]
            for encoding in record.encodings
            if encoding["treatment"] == "left_out"
        },
        created_at=record.created_at,
        feature_service=record.roles.get(SERVICE),
        feature_contract_sha256=record.roles.get(CONTRACT),
    )


def _file_sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
