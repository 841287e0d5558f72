"""Encoded records on disk: one Arrow IPC file, a client's rows contiguous, and a client index.

The records file has one batch with the columns ``x`` (a fixed-size list, one row of the model's
input) and ``y`` (float32); so a local file is mapped into memory and a client's records are a view
of it, not a copy. Training clients come first, held-out clients after them. The index has a row
per client: ``client_id``, ``first_row``, ``records``, ``positives``, ``is_heldout``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Rows = tuple[NDArray[Any], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ClientIndex:
    """Which rows belong to which client; all attributes have one entry a client.

    Attributes:
        client_ids: Training clients first, each side in order of id.
        first_row: Where a client's rows begin, shape ``(clients,)``.
        records: How many there are, shape ``(clients,)``.
        positives: How many of them are labelled 1, shape ``(clients,)``.
        is_heldout: Whether the client is held out, shape ``(clients,)``.
    """

    client_ids: tuple[str, ...]
    first_row: NDArray[np.int64]
    records: NDArray[np.int64]
    positives: NDArray[np.int64]
    is_heldout: NDArray[np.bool_]

    @property
    def training_rows(self) -> int:
        """Rows of training clients; the rows after them are held out."""
        return int(self.records[~self.is_heldout].sum())

    def write(self, path: Path) -> None:
        """Write the index as an Arrow IPC file."""
        table = pa.table(
            {
                "client_id": pa.array(self.client_ids, pa.string()),
                "first_row": self.first_row,
                "records": self.records,
                "positives": self.positives,
                "is_heldout": self.is_heldout,
            }
        )
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)

    @classmethod
    def read(cls, data: bytes) -> "ClientIndex":
        """Inverse of `write`, from the file's bytes."""
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
        return cls(
            tuple(table["client_id"].to_pylist()),
            *(
                table[name].to_numpy()
                for name in ("first_row", "records", "positives", "is_heldout")
            ),
        )


def write_records(
    path: Path,
    scratch: Path,
    encoded: Iterator[NDArray[Any]],
    *,
    place: NDArray[np.int64],
    labels: NDArray[np.uint8],
    width: int,
    dtype: type[np.int32] | type[np.float32],
) -> None:
    """Write records in a new order, without holding them in memory.

    Args:
        path: The records file.
        scratch: A file of the same size, removed afterwards.
        encoded: Batches of input rows in the order of the source.
        place: Row in the records file for each row of the source, shape ``(rows,)``.
        labels: 0 or 1 for each row of the source, shape ``(rows,)``.
        width: Entries of one input row.
    """
    rows = len(place)
    x = np.memmap(scratch, dtype=dtype, mode="w+", shape=(rows, width))
    start = 0
    for batch in encoded:
        x[place[start : start + len(batch)]] = batch
        start += len(batch)
    y = np.empty(rows, np.float32)
    y[place] = labels
    # The array is a view of the scratch file: Arrow writes it on without a copy in memory.
    flat = pa.Array.from_buffers(
        pa.from_numpy_dtype(np.dtype(dtype)), rows * width, [None, pa.py_buffer(x)]
    )
    columns = [pa.FixedSizeListArray.from_arrays(flat, width), pa.array(y)]
    batch = pa.record_batch(columns, names=["x", "y"])
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)
    scratch.unlink()


def read_records(source: Path | bytes) -> Rows:
    """Inputs and labels of a records file.

    Args:
        source: A file, mapped into memory and read page by page as it is used; or its bytes.

    Returns:
        ``x``, shape ``(rows, width)``, and ``y``, float32, shape ``(rows, 1)``; both read-only.
    """
    opened = pa.memory_map(str(source)) if isinstance(source, Path) else pa.py_buffer(source)
    batch = pa.ipc.open_file(opened).get_batch(0)
    lists = batch.column("x")
    x = lists.values.to_numpy().reshape(len(lists), lists.type.list_size)
    return x, batch.column("y").to_numpy().reshape(-1, 1)


def order_by_client(
    client_codes: NDArray[np.int32], client_ids: Sequence[str], heldout: frozenset[str]
) -> tuple[NDArray[np.int64], list[int]]:
    """Where each row goes when rows are put in order of client.

    Args:
        client_codes: Position in ``client_ids`` of each row's client, shape ``(rows,)``.

    Returns:
        The new row of each row, shape ``(rows,)`` (a client's rows keep their order); and the
        codes of clients in order: training clients, then held-out ones, each by id.
    """
    codes = sorted(
        range(len(client_ids)), key=lambda code: (client_ids[code] in heldout, client_ids[code])
    )
    rank = np.empty(len(codes), np.int64)
    rank[codes] = np.arange(len(codes))
    order = np.argsort(rank[client_codes], kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place, codes
