"""An opened data set: its records by client, in this process or in others."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.record_files import ClientIndex, Rows, read_records
from modeling.spec import ModelSpec


class ForeignDataset(FlintError):
    """A data set without the model's columns."""

    code = "FLN-1720"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One version of a data set, and what FLINT's Table 2 lists of it.

    Counts and ratios are over training and held-out clients together where not said otherwise.

    Attributes:
        max_records: Most records of one client.
        mean_records: Records per client.
        std_records: Of records per client (divided by the number of clients).
        label_ratio: Share of records labelled 1.
        truncated_records: Records with more tokens than the model's input has places.
        source: File it was made from.
        split_set: Name the held-out rule was applied with: the file's, without its ending.
        hash_seed: Seed of the feature hash named ``hash_name``.
        left_out: Columns that are not learnt from though not excluded, and why.
        feature_service: Whose features its records are; None: the file's columns.
        feature_contract_sha256: Of that service's contract, hexadecimal.
    """

    name: str
    version: int
    model: str
    clients: int
    train_clients: int
    heldout_clients: int
    records: int
    train_records: int
    heldout_records: int
    max_records: int
    mean_records: float
    std_records: float
    label_ratio: float
    truncated_records: int
    source: str
    split_set: str
    hash_name: str
    hash_seed: int
    left_out: dict[str, str]
    created_at: dt.datetime
    feature_service: str | None = None
    feature_contract_sha256: str | None = None


class Dataset:
    """Records of one data set version, by client; local ones are mapped into memory.

    Attributes:
        row: What the catalog knows of it.
        source: How another process opens the same records.
    """

    def __init__(self, source: "DatasetSource", index: ClientIndex, rows: Rows) -> None:
        self.source = source
        self.row = source.row
        self._index = index
        self._x, self._y = rows
        self._code_of = {client: code for code, client in enumerate(index.client_ids)}

    def clients(self) -> list[str]:
        """Training clients, in order of id."""
        return list(self._index.client_ids[: self.row.train_clients])

    @property
    def train_record_counts(self) -> NDArray[np.int64]:
        """Records of each training client, in the order of `clients`, shape ``(clients,)``."""
        return self._index.records[: self.row.train_clients]

    @property
    def train_first_rows(self) -> NDArray[np.int64]:
        """Where each training client's records begin in `train`, shape ``(clients,)``."""
        return self._index.first_row[: self.row.train_clients]

    def heldout_clients(self) -> list[str]:
        """Held-out clients, in order of id."""
        return list(self._index.client_ids[self.row.train_clients :])

    def records(self, client_id: str) -> Rows:
        """Records of one client, training or held out, in the file's order; see `train`.

        Raises:
            KeyError: If there is no such client.
        """
        code = self._code_of[client_id]
        start = int(self._index.first_row[code])
        end = start + int(self._index.records[code])
        return self._x[start:end], self._y[start:end]

    def train(self) -> Rows:
        """Records of all training clients, read-only.

        Returns:
            ``x``, int32 or float32 as the model takes it, shape ``(records, width)``; and ``y``,
            float32, shape ``(records, 1)``.
        """
        rows = self._index.training_rows
        return self._x[:rows], self._y[:rows]

    def heldout(self) -> Rows:
        """Records of all held-out clients, read-only; shapes as in `train`."""
        rows = self._index.training_rows
        return self._x[rows:], self._y[rows:]


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Where a data set's records are, to be sent to another process and opened there.

    Local records travel as a path, so that processes of one machine share one copy in memory;
    those of an object store travel whole.

    Attributes:
        records: Arrow IPC file of records, checked when the catalog was asked for it; or its bytes.
        clients: Bytes of the Arrow IPC file of clients.
    """

    row: DatasetRow
    records: Path | bytes
    clients: bytes

    def open(self) -> Dataset:
        """Open the records; needs neither catalog nor database."""
        return Dataset(self, ClientIndex.read(self.clients), read_records(self.records))


def check_dataset(dataset: Dataset, model: ModelSpec) -> None:
    """Refuse a data set whose records are not what a model takes.

    Raises:
        ForeignDataset: Naming both.
    """
    row = dataset.row
    x, y = dataset.train()
    found = (row.model, str(x.dtype), x.shape[1:], y.shape[1:])
    wanted = (model.name, model.input.dtype, model.input.shape, model.label_shape)
    if found != wanted:
        raise ForeignDataset(
            f"data set {row.name}@{row.version} does not have the columns of {model.name}: it "
            f"holds {_form(*found)}, the model takes {_form(*wanted)}; add its file for this "
            f"model: flint dataset add FILE --model {model.name}"
        )


def _form(model: str, dtype: str, width: tuple[int, ...], label: tuple[int, ...]) -> str:
    columns = " x ".join(map(str, width))
    return f"{columns} {dtype} columns and {label[0]} label made for {model}"
