"""The blobs that devices fetch: small ones out of memory, large ones out of files."""

import functools
import hashlib
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from device_runtime.protocol import device_pb2 as pb
from feature_catalog.blobs import CorruptBlob
from server.gateway.blob_cache import CACHE_BYTES, BlobCache, BlobReader

IN_MEMORY_BYTES = 8 * 2**20
"""A larger blob is read from its file a chunk at a time; the kernel keeps what is asked for."""

CHUNK_BYTES = 2**20
"""Of a blob, in one message. A link that breaks loses what has come of one."""

_SHARED_CHUNKS = 16
_OPEN_FILES = 16
_KNOWN_SIZES = 10_000
_COPY_BYTES = 2**20


class BlobSource(BlobReader, Protocol):
    """The half of a blob store that gives bytes back, whole or in a file."""

    def size(self, digest: bytes) -> int:
        """Bytes of a stored blob."""
        ...

    def local_path(self, digest: bytes) -> Path | None:
        """Its file, checked; None when the store has none."""
        ...

    def open(self, digest: bytes) -> BinaryIO:
        """Open it for streaming."""
        ...


class ServedBlob(Protocol):
    """A blob to read chunks of, from several threads at once."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        ...

    def read(self, offset: int, count: int) -> bytes:
        """At most ``count`` bytes from ``offset`` on."""
        ...

    def chunk(self, offset: int) -> bytes:
        """At most `CHUNK_BYTES` from ``offset`` on as they are sent: a serialised `BlobChunk`."""
        ...


@dataclass(frozen=True, slots=True)
class _InMemory:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]

    def chunk(self, offset: int) -> bytes:
        return _shared_chunk(self.data, offset)


class _InFile:
    """Reads need no position of the file; it is closed when nobody reads it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        weakref.finalize(self, os.close, descriptor)

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def chunk(self, offset: int) -> bytes:
        return _serialised(self.read(offset, CHUNK_BYTES), self.size)


class ServedBlobs:
    """Memory is bounded by the cache of small blobs, whatever model versions weigh."""

    def __init__(
        self,
        store: BlobSource,
        folder: Path,
        *,
        max_bytes: int = CACHE_BYTES,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        """Assemble.

        Args:
            store: Where blobs are.
            folder: On a disk; gets copies, without a name, of large blobs of a store that is none.
            max_bytes: Of small blobs in memory.
            in_memory_bytes: Up to which a blob is small.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._store = store
        self._folder = folder
        self._small = BlobCache(store, max_bytes)
        self._in_memory_bytes = in_memory_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[bytes, int] = OrderedDict()
        self._files: OrderedDict[bytes, _InFile] = OrderedDict()
        self._opening: dict[bytes, threading.Lock] = {}

    def open(self, digest: bytes) -> ServedBlob:
        """A blob; raises what the store raises."""
        if self._size(digest) <= self._in_memory_bytes:
            return _InMemory(self._small.get(digest))
        with self._lock:
            opening = self._opening.setdefault(digest, threading.Lock())
        with opening:  # many devices ask for a new version at once; one of them has it checked
            with self._lock:
                file = self._files.get(digest)
                if file is not None:
                    self._files.move_to_end(digest)
                    return file
            file = _InFile(self._open_checked(digest))
            with self._lock:
                self._files[digest] = file
                if len(self._files) > _OPEN_FILES:
                    forgotten, _ = self._files.popitem(last=False)
                    self._opening.pop(forgotten, None)
            return file

    def _size(self, digest: bytes) -> int:
        with self._lock:
            size = self._sizes.get(digest)
        if size is None:
            size = self._store.size(digest)
            with self._lock:
                self._sizes[digest] = size
                if len(self._sizes) > _KNOWN_SIZES:
                    self._sizes.popitem(last=False)
        return size

    def _open_checked(self, digest: bytes) -> int:
        path = self._store.local_path(digest)
        if path is not None:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with tempfile.TemporaryFile(dir=self._folder) as copy, self._store.open(digest) as source:
            found = hashlib.sha256()
            while chunk := source.read(_COPY_BYTES):
                found.update(chunk)
                copy.write(chunk)
            copy.flush()
            if found.digest() != digest:
                raise CorruptBlob(
                    f"blob {digest.hex()} is damaged: its bytes have another digest; restore it "
                    "from a backup"
                )
            return os.dup(copy.fileno())


@functools.lru_cache(_SHARED_CHUNKS)
def _shared_chunk(data: bytes, offset: int) -> bytes:
    """Every device fetches the newest version: it is put into its message once, not for each."""
    return _serialised(data[offset : offset + CHUNK_BYTES], len(data))


def _serialised(data: bytes, total_bytes: int) -> bytes:
    return pb.BlobChunk(data=data, total_bytes=total_bytes).SerializeToString()
