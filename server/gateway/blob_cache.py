"""The blobs that devices fetch now, in memory: a version is read from the store once."""

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Protocol

CACHE_BYTES = 32 * 2**20
"""Four blobs of the largest that are held in memory. Devices ask for the newest version and the
model file; one that goes on with an older version costs a read of a file. With room for hundreds of
versions a gateway would grow by one at each, for hours."""


class BlobReader(Protocol):
    """The half of a blob store that gives bytes back."""

    def get(self, digest: bytes) -> bytes:
        """Fetch a blob, checked against its digest."""
        ...


class BlobCache:
    """Least recently used blobs are forgotten beyond ``max_bytes``.

    Many devices ask for a new version at once; one of them reads it and the others wait.
    """

    def __init__(self, store: BlobReader, max_bytes: int = CACHE_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._blobs: OrderedDict[bytes, bytes] = OrderedDict()
        self._reading: dict[bytes, Future[bytes]] = {}
        self._bytes = 0

    def get(self, digest: bytes) -> bytes:
        """A blob; raises what the store raises."""
        with self._lock:
            cached = self._blobs.get(digest)
            if cached is not None:
                self._blobs.move_to_end(digest)
                return cached
            reading = self._reading.get(digest)
            mine = reading is None
            if reading is None:
                reading = self._reading[digest] = Future()
        if mine:
            self._read(digest, reading)
        return reading.result()

    def _read(self, digest: bytes, reading: Future[bytes]) -> None:
        try:
            blob = self._store.get(digest)
        except BaseException as error:
            with self._lock:
                del self._reading[digest]
            reading.set_exception(error)
            return
        with self._lock:
            del self._reading[digest]
            self._keep(digest, blob)
        reading.set_result(blob)

    def _keep(self, digest: bytes, blob: bytes) -> None:
        if len(blob) > self._max_bytes:
            return
        self._blobs[digest] = blob
        self._bytes += len(blob)
        while self._bytes > self._max_bytes:
            _, forgotten = self._blobs.popitem(last=False)
            self._bytes -= len(forgotten)
