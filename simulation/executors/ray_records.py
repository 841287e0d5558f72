"""How the records of an executor's clients reach the node that it runs on.

``shared``: the records file lies at the same path on every node (shared storage, or a copy); it is
mapped there, and pages of an executor's own clients only are ever read. ``sent``: the rows of an
executor's clients are cut out and travel through Ray once, one partition after the other, so that
the run's own machine never holds more than a few.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.record_files import read_records
from simulation.executors.records import ClientRecords


class RecordsMissingOnNode(FlintError):
    """The records file is not on a node, or another one is."""

    code = "FLN-3063"


@dataclass(frozen=True, slots=True)
class SharedRecords:
    """All clients' records, in a file that every node has.

    Attributes:
        path: The same on every node.
        size_bytes: Of the file.
        first_row: See `ClientRecords`, shape ``(clients,)``.
        records: Shape ``(clients,)``.
    """

    path: Path
    size_bytes: int
    first_row: NDArray[np.int64]
    records: NDArray[np.int64]

    @classmethod
    def of(cls, records: ClientRecords, path: Path) -> "SharedRecords":
        """Of the records file at ``path``."""
        return cls(path, records.file_bytes, records.first_row, records.records)

    def open(self, node: str) -> ClientRecords:
        """Map the file on a node.

        Args:
            node: For messages.

        Raises:
            RecordsMissingOnNode: If there is no such file, or not this one.
        """
        mend = (
            "put the data set on storage that all nodes have at this path, or set "
            "executors.records: sent"
        )
        try:
            found_bytes = self.path.stat().st_size
        except OSError as error:
            raise RecordsMissingOnNode(
                f"node {node} has no records file {self.path} ({error.strerror}); {mend}"
            ) from error
        if found_bytes != self.size_bytes:
            raise RecordsMissingOnNode(
                f"node {node} has another records file {self.path}: {found_bytes} bytes, here "
                f"{self.size_bytes}; {mend}"
            )
        x, y = read_records(self.path)
        first_row, records = self.first_row.copy(), self.records.copy()
        return ClientRecords(x, y, first_row, records, self.path, self.size_bytes)


@dataclass(frozen=True, slots=True)
class SentRecords:
    """The records of one executor's clients.

    Attributes:
        x: Rows of these clients only.
        y: The same.
        first_row: Where each client's rows begin among these, shape ``(clients,)``.
        records: How many rows each client has, shape ``(clients,)``; 0 for clients of others.
    """

    x: NDArray[Any]
    y: NDArray[np.float32]
    first_row: NDArray[np.int64]
    records: NDArray[np.int64]

    @classmethod
    def of(cls, records: ClientRecords, is_held: NDArray[np.bool_]) -> "SentRecords":
        """Cut the rows of some clients out.

        Args:
            is_held: Which clients are the executor's, shape ``(clients,)``.
        """
        counts = np.where(is_held, records.records, 0)
        begins = np.cumsum(counts) - counts
        rows = np.arange(int(counts.sum()))
        rows += np.repeat(records.first_row - begins, counts)
        return cls(records.x[rows], records.y[rows], begins, counts)

    def open(self, node: str) -> ClientRecords:  # noqa: ARG002 - nothing of the node is needed
        """Copy them from the node's object store, which then lets go of them."""
        return ClientRecords(
            self.x.copy(), self.y.copy(), self.first_row.copy(), self.records.copy()
        )
