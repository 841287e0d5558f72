"""The two columns every data set has: whose record it is, and its label."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.field_encodings import is_number, is_text_like
from feature_catalog.splits import LabelCounts
from feature_catalog.table_files import TableFile

_MAX_SHOWN = 40


class InvalidLabel(FlintError):
    """A label is neither 0 nor 1."""

    code = "FLN-1104"


class InvalidClient(FlintError):
    """A record names no client."""

    code = "FLN-1111"


@dataclass(frozen=True, slots=True)
class ClientsAndLabels:
    """Client and label of every row of a file.

    Attributes:
        client_ids: Distinct clients, in order of first appearance.
        client_codes: Position of each row's client in ``client_ids``, shape ``(rows,)``.
        labels: 0 or 1, shape ``(rows,)``.
    """

    client_ids: tuple[str, ...]
    client_codes: NDArray[np.int32]
    labels: NDArray[np.uint8]

    @property
    def records(self) -> NDArray[np.int64]:
        """Records of each client, shape ``(clients,)``."""
        return np.bincount(self.client_codes, minlength=len(self.client_ids))

    @property
    def positives(self) -> NDArray[np.int64]:
        """Records labelled 1 of each client, shape ``(clients,)``."""
        labelled = self.client_codes[self.labels == 1]
        return np.bincount(labelled, minlength=len(self.client_ids))

    def counts(self) -> dict[str, LabelCounts]:
        """Label counts by client id."""
        return {
            client: LabelCounts(int(records), int(positives))
            for client, records, positives in zip(
                self.client_ids, self.records, self.positives, strict=True
            )
        }


def read_clients_and_labels(
    table: TableFile, client_field: str, label_field: str
) -> ClientsAndLabels:
    """Read and check both columns.

    Raises:
        InvalidClient: If the column holds no ids, or a row has none; names the row.
        InvalidLabel: If a row's label is missing or not 0 or 1 (or false and true); names it.
    """
    _check_types(table, client_field, label_field)
    code_of: dict[str, int] = {}
    codes: list[NDArray[np.int32]] = []
    labels: list[NDArray[np.uint8]] = []
    start = 0
    for clients, marks in (batch.columns for batch in table.batches([client_field, label_field])):
        if clients.null_count:
            row = start + _first(pc.is_null(clients))
            raise InvalidClient(
                f"{table.path}: row {row} has no {client_field!r}; drop records without a client"
            )
        encoded = clients.cast(pa.large_string()).dictionary_encode()
        batch_codes = [
            code_of.setdefault(client, len(code_of)) for client in encoded.dictionary.to_pylist()
        ]
        codes.append(np.array(batch_codes, np.int32)[encoded.indices.to_numpy()])
        labels.append(_labels(table, label_field, marks, start))
        start += len(marks)
    return ClientsAndLabels(tuple(code_of), np.concatenate(codes), np.concatenate(labels))


def _check_types(table: TableFile, client_field: str, label_field: str) -> None:
    client = table.schema.field(client_field).type
    if not (is_text_like(client) or pa.types.is_integer(client)):
        raise InvalidClient(
            f"{table.path}: the client field {client_field!r} holds {client}; name a column of "
            "whole numbers or strings"
        )
    label = table.schema.field(label_field).type
    if not is_number(label):
        raise InvalidLabel(
            f"{table.path}: the label field {label_field!r} holds {label}; name a column of 0 "
            "and 1, or make one from yours"
        )


def _labels(table: TableFile, label_field: str, marks: pa.Array, start: int) -> NDArray[np.uint8]:
    values = marks.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        found = str(marks[int(wrong[0])].as_py())[:_MAX_SHOWN]
        shown = "no label" if found == "None" else f"the label {found}"
        raise InvalidLabel(
            f"{table.path}: row {start + int(wrong[0])} has {shown} in {label_field!r}; labels "
            "must be 0 or 1 (rows are counted from 0)"
        )
    return np.asarray(values, np.uint8)


def _first(mask: pa.Array) -> int:
    return int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
