"""Blobs on disk by their SHA-256, shared by every identity and process of one host."""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PARTIAL_SUFFIX = ".partial"
_PARTIAL_MAX_AGE_S = 3600.0


class BlobRefused(Exception):
    """Fetched bytes are not the blob that was asked for."""


class BlobCache:
    """Content-addressed files, at most ``max_bytes`` of them, least recently used out first.

    Readers verify the digest, so a damaged file is fetched again instead of used. Files appear by
    renaming, so no process ever sees half a blob; a file that is evicted while another process has
    it mapped stays readable there.
    """

    def __init__(
        self, directory: Path, max_bytes: int, *, partial_max_age_s: float = _PARTIAL_MAX_AGE_S
    ) -> None:
        """Open or make the cache.

        Args:
            directory: Folder of its own.
            max_bytes: Bound on what is kept, and on one blob.
            partial_max_age_s: For how long half a blob is kept for the rest of it to come.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._partial_max_age_s = partial_max_age_s
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned_partials()

    def path(self, digest: bytes) -> Path | None:
        """File of a blob, verified and marked as just used; None when it is not here whole."""
        path = self._path(digest)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
            if found != digest:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def read(self, digest: bytes) -> bytes | None:
        """Contents of a blob, verified; None when it is not here whole."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).digest() != digest:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def put(self, data: bytes) -> bytes:
        """Keep a blob; returns its digest."""
        digest = hashlib.sha256(data).digest()
        self.receive(digest, [data])
        return digest

    def partial_bytes(self, digest: bytes) -> int:
        """Bytes of a blob received so far by this process: where to resume."""
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def adopt_partial(self, digest: bytes) -> None:
        """Take up what a process that has ended had received of a blob, if this one has nothing."""
        own = self._partial(digest)
        if own.exists():
            return
        for partial in self._directory.glob(f"{digest.hex()}.*{_PARTIAL_SUFFIX}"):
            process = partial.name.removesuffix(_PARTIAL_SUFFIX).rpartition(".")[2]
            if process.isdecimal() and not _is_running(int(process)):
                with contextlib.suppress(FileNotFoundError):  # taken up by another just now
                    partial.replace(own)
                    return

    def forget_partial(self, digest: bytes) -> None:
        """Delete what this process has received of a blob."""
        self._partial(digest).unlink(missing_ok=True)

    def receive(self, digest: bytes, chunks: Iterable[bytes]) -> Path:
        """Append chunks to what was received of a blob, and keep it once they end.

        An error raised by ``chunks`` passes through; what came before it stays for `partial_bytes`.

        Returns:
            The blob's file.

        Raises:
            BlobRefused: If the whole is not what ``digest`` names, or larger than the cache.
        """
        partial = self._partial(digest)
        self._append(partial, chunks)
        with partial.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
        if found != digest:
            partial.unlink()
            raise BlobRefused(
                f"fetched bytes are {found.hex()[:12]}..., not {digest.hex()[:12]}..."
            )
        path = self._path(digest)
        partial.replace(path)
        self._evict(keep=path)
        return path

    def _append(self, partial: Path, chunks: Iterable[bytes]) -> None:
        with partial.open("ab") as file:
            size = file.tell()
            for chunk in chunks:
                size += len(chunk)
                if size > self._max_bytes:
                    break
                file.write(chunk)
        if size > self._max_bytes:
            partial.unlink()
            raise BlobRefused(f"a blob of more than the cache's {self._max_bytes} bytes")

    def _evict(self, keep: Path) -> None:
        files = sorted(self._blobs(), key=lambda entry: entry[0])
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self._max_bytes:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size

    def _blobs(self) -> Iterator[tuple[float, int, Path]]:
        for entry in os.scandir(self._directory):
            if entry.name.endswith(_PARTIAL_SUFFIX):
                continue
            with contextlib.suppress(FileNotFoundError):  # evicted by another process just now
                status = entry.stat()
                yield status.st_mtime, status.st_size, Path(entry.path)

    def _remove_abandoned_partials(self) -> None:
        oldest = time.time() - self._partial_max_age_s
        for partial in self._directory.glob(f"*{_PARTIAL_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if partial.stat().st_mtime < oldest:
                    partial.unlink()

    def _path(self, digest: bytes) -> Path:
        return self._directory / digest.hex()

    def _partial(self, digest: bytes) -> Path:
        return self._directory / f"{digest.hex()}.{os.getpid()}{_PARTIAL_SUFFIX}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
