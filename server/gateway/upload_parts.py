"""Large updates on their way in lie on disk: links are slow, memory is for what is worked on."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from device_runtime.protocol import device_pb2 as pb


class WrongParts(Exception):
    """The parts of a payload do not come to what the first message says."""


class UploadFolder:
    """Where parts are gathered, in files without a name: nothing is left of a process that ends.

    The folder has to be on a disk. A ``tmpfs`` would be memory again.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        self._path = path

    @contextmanager
    def gather(
        self, first: pb.UploadRequest, others: Iterator[pb.UploadRequest]
    ) -> Iterator[IO[bytes]]:
        """A file of the whole payload, read from its start; gone at the end of the block.

        Args:
            first: Says how long the payload is, and carries its first part.
            others: Carry the rest.

        Raises:
            WrongParts: If they carry more or less than that.
            OSError: If the disk does not take it.
        """
        with tempfile.TemporaryFile(dir=self._path) as file:
            missing = first.payload_bytes
            part = first.payload
            while len(part) <= missing:
                file.write(part)
                missing -= len(part)
                message = next(others, None)
                if message is None:
                    break
                part = message.payload
                if not part:
                    raise WrongParts("a part of the payload is empty")
            else:
                raise WrongParts(f"the payload has more than {first.payload_bytes} bytes")
            if missing:
                raise WrongParts(f"{missing} of {first.payload_bytes} bytes of the payload miss")
            file.seek(0)
            yield file


class MemoryBudget:
    """Bytes of large updates that are in memory at once; the others wait, on disk.

    One that is larger than the whole budget goes alone. Safe for several threads.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, update_bytes: int) -> Iterator[None]:
        """Wait for room, and take it."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._held_bytes or self._held_bytes + update_bytes <= self._most_bytes
            )
            self._held_bytes += update_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held_bytes -= update_bytes
                self._changed.notify_all()
