"""The blob store: bytes named by their SHA-256, in a directory or any store fsspec reaches."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from device_runtime.errors import FlintError

_CHUNK_BYTES = 2**20
_DIGEST_BYTES = 32
_DRAFT = ".new-"
_NAME = re.compile(r"[0-9a-f]{64}")


class CorruptBlob(FlintError):
    """A stored blob's bytes are not those it was named for."""

    code = "FLN-1235"


class MissingBlob(FlintError):
    """A blob that a record points at is not in the store."""

    code = "FLN-1236"


class BlobStoreUnreachable(FlintError):
    """The blob store cannot be read or written."""

    code = "FLN-1237"


class BlobStore:
    """Content-addressed blobs at ``<url>/ab/abcdef...``: written once, never changed.

    On a local directory a blob appears whole or not at all: it is written beside its place,
    flushed to disk and renamed. Object stores give the same by themselves.

    Args:
        url: Directory or fsspec URL (``file://``, ``s3://``, ``gcs://``, ``memory://``).

    Raises:
        BlobStoreUnreachable: If the URL is of no known kind.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BlobStoreUnreachable(
                f"the blob store {url} cannot be used ({error}); give a directory, or a URL whose "
                "fsspec package is installed"
            ) from error
        self._url = url
        self._is_local = isinstance(self._files, LocalFileSystem)

    def put(self, data: bytes) -> bytes:
        """Store bytes, unless they are there already; returns their digest, 32 bytes.

        Raises:
            BlobStoreUnreachable: If they cannot be written.
        """
        digest = hashlib.sha256(data).digest()
        try:
            if self._is_local:
                if not self._is_intact(digest):
                    self._write_local([data])
            elif not self._files.exists(self._path(digest)):
                self._files.pipe_file(self._path(digest), data)
        except OSError as error:
            raise self._unreachable(error) from error
        return digest

    def put_file(self, path: Path) -> bytes:
        """Store a file's bytes without reading it into memory; returns their digest, 32 bytes.

        Args:
            path: Must not change meanwhile.

        Raises:
            BlobStoreUnreachable: If they cannot be written.
        """
        with path.open("rb") as source:
            try:
                if self._is_local:
                    return self._write_local(iter(lambda: source.read(_CHUNK_BYTES), b""))
                digest = hashlib.file_digest(source, "sha256").digest()
                if not self._files.exists(self._path(digest)):
                    self._files.put_file(str(path), self._path(digest))
            except OSError as error:
                raise self._unreachable(error) from error
        return digest

    def put_stream(self, source: BinaryIO) -> bytes:
        """Store what a stream gives without holding it in memory; returns its digest, 32 bytes.

        Raises:
            BlobStoreUnreachable: If it cannot be written.
        """
        if not self._is_local:
            with tempfile.NamedTemporaryFile() as spool:
                shutil.copyfileobj(source, spool, _CHUNK_BYTES)
                spool.flush()
                return self.put_file(Path(spool.name))
        try:
            return self._write_local(iter(lambda: source.read(_CHUNK_BYTES), b""))
        except OSError as error:
            raise self._unreachable(error) from error

    def digests(self) -> Iterator[bytes]:
        """Every blob there is, 32 bytes each, in no order.

        Raises:
            BlobStoreUnreachable: If the store cannot be listed.
        """
        try:
            found = self._files.find(self._root) if self._files.exists(self._root) else []
        except OSError as error:
            raise self._unreachable(error) from error
        for path in found:
            name = path.rpartition("/")[2]
            if _NAME.fullmatch(name):
                yield bytes.fromhex(name)

    def get(self, digest: bytes) -> bytes:
        """Fetch a blob and check it.

        Raises:
            MissingBlob: If it is not stored.
            CorruptBlob: If the stored bytes have another digest.
            BlobStoreUnreachable: If they cannot be read.
        """
        with self.open(digest) as source:
            try:
                data = source.read()
            except OSError as error:
                raise self._unreachable(error) from error
        if hashlib.sha256(data).digest() != digest:
            raise self._corrupt(digest)
        return data

    def open(self, digest: bytes) -> BinaryIO:
        """Open a blob for streaming; whoever reads it to the end checks the digest.

        Raises:
            MissingBlob: If it is not stored.
            BlobStoreUnreachable: If it cannot be opened.
        """
        try:
            return cast(BinaryIO, self._files.open(self._path(digest), "rb"))
        except FileNotFoundError as error:
            raise self._missing(digest) from error
        except OSError as error:
            raise self._unreachable(error) from error

    def exists(self, digest: bytes) -> bool:
        """Whether a blob is stored."""
        return bool(self._files.exists(self._path(digest)))

    def size(self, digest: bytes) -> int:
        """Bytes of a stored blob.

        Raises:
            MissingBlob: If it is not stored.
        """
        try:
            return int(self._files.size(self._path(digest)))
        except FileNotFoundError as error:
            raise self._missing(digest) from error

    def local_path(self, digest: bytes) -> Path | None:
        """File of a blob to map into memory, checked; None when the store is not a directory.

        Raises:
            MissingBlob: If it is not stored.
            CorruptBlob: If the stored bytes have another digest.
        """
        if not self._is_local:
            return None
        path = Path(self._path(digest))
        if not path.exists():
            raise self._missing(digest)
        if not self._is_intact(digest):
            raise self._corrupt(digest)
        return path

    def delete(self, digest: bytes) -> None:
        """Remove a blob; one that is not there is removed already.

        Equal bytes are one blob, whoever put them: only blobs that begin with an id of their owner
        may be deleted, and only after the row that pointed at them does no more.

        Raises:
            BlobStoreUnreachable: If it cannot be removed.
        """
        try:
            self._files.rm_file(self._path(digest))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreachable(error) from error

    def remove_drafts(self, older_than_s: float = 3600.0) -> int:
        """Remove what processes that were killed while they wrote have left in a local store.

        Args:
            older_than_s: So that nothing is removed that is just being written.

        Returns:
            How many drafts are gone.
        """
        removed, oldest_s = 0, time.time() - older_than_s
        for draft in Path(self._root).glob(f"{_DRAFT}*") if self._is_local else ():
            with contextlib.suppress(FileNotFoundError):
                if draft.stat().st_mtime < oldest_s:
                    draft.unlink()
                    removed += 1
        return removed

    def _path(self, digest: bytes) -> str:
        if len(digest) != _DIGEST_BYTES:
            raise ValueError(f"a digest has {_DIGEST_BYTES} bytes, this has {len(digest)}")
        name = digest.hex()
        return f"{self._root}/{name[:2]}/{name}"

    def _is_intact(self, digest: bytes) -> bool:
        try:
            with Path(self._path(digest)).open("rb") as stored:
                return hashlib.file_digest(stored, "sha256").digest() == digest
        except FileNotFoundError:
            return False

    def _write_local(self, chunks: Iterable[bytes]) -> bytes:
        root = Path(self._root)
        root.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=root, prefix=_DRAFT)
        try:
            digest = hashlib.sha256()
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            path = Path(self._path(digest.digest()))
            path.parent.mkdir(exist_ok=True)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)
        return digest.digest()

    def _missing(self, digest: bytes) -> MissingBlob:
        return MissingBlob(
            f"blob {digest.hex()} is not in the blob store {self._url}; restore it from a backup, "
            "or check that this is the store the database belongs to"
        )

    def _corrupt(self, digest: bytes) -> CorruptBlob:
        return CorruptBlob(
            f"blob {digest.hex()} in {self._url} is damaged: its bytes have another digest; "
            "restore it from a backup"
        )

    def _unreachable(self, error: OSError) -> BlobStoreUnreachable:
        return BlobStoreUnreachable(
            f"the blob store {self._url} cannot be used ({error}); check that it exists, is "
            "writable and has space"
        )


def _flush_directory(path: Path) -> None:
    """Make a rename in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
