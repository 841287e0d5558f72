"""Records of a data set by client, for executors in this process and in others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.record_files import Rows, read_records
from simulation.executors.whole_files import require_bytes


class ClientWithoutRecords(FlintError):
    """A task of a client that has nothing to train on."""

    code = "FLN-3052"

    @classmethod
    def of(cls, client: int) -> "ClientWithoutRecords":
        """Of a data client, by its position."""
        return cls(
            f"client {client} of the data set (counted from 0) has no records to train on; leave "
            "it out of the data set, or give no tasks to clients without records"
        )


@dataclass(frozen=True)
class ClientRecords:
    """Records of the training clients of a data set; a client's are a view, never a copy.

    Pickled for another process, only the index and the path of the file travel and the file is
    mapped there again; records that are in no local file travel themselves.

    Attributes:
        x: Inputs of all clients, shape ``(records, *input shape)``.
        y: Labels, float32, shape ``(records, *label shape)``.
        first_row: Where each client's rows begin, shape ``(clients,)``.
        records: How many rows each client has, shape ``(clients,)``.
        path: The records file that ``x`` and ``y`` are mapped from, if they are.
        file_bytes: Its size when it was opened; what it still has to have.
    """

    x: NDArray[Any]
    y: NDArray[np.float32]
    first_row: NDArray[np.int64]
    records: NDArray[np.int64]
    path: Path | None = None
    file_bytes: int = 0

    def __post_init__(self) -> None:
        """Note how large the file is."""
        if self.path is not None and self.file_bytes == 0:
            object.__setattr__(self, "file_bytes", self.path.stat().st_size)

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.records)

    def of(self, client: int, newest: int | None = None) -> Rows:
        """Inputs and labels of one client, oldest first.

        Args:
            client: Position among the data set's training clients.
            newest: At most this many, the last ones; None: all.
        """
        count = int(self.records[client])
        end = int(self.first_row[client]) + count
        start = end - (count if newest is None else min(count, newest))
        return self.x[start:end], self.y[start:end]

    def require_whole(self) -> None:
        """Refuse a file that has become shorter since it was opened.

        Raises:
            UnusableRecords: Naming it, and how much of it there is.
        """
        if self.path is not None:
            require_bytes(self.path, self.file_bytes)

    def __reduce__(self) -> tuple[Callable[..., "ClientRecords"], tuple[Any, ...]]:
        if self.path is None:
            return ClientRecords, (self.x, self.y, self.first_row, self.records)
        return _reopened, (self.path, self.first_row, self.records, self.file_bytes)


def _reopened(
    path: Path, first_row: NDArray[np.int64], records: NDArray[np.int64], file_bytes: int
) -> ClientRecords:
    require_bytes(path, file_bytes)
    return ClientRecords(*read_records(path), first_row, records, path, file_bytes)
