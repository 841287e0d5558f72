"""One server a data directory: the claim on it, held for as long as the server lives."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_runtime.errors import FlintError
from server.operations.guardian import Guardian

_TAKE_OVER_TIMEOUT_S = 15.0
_PROBE_TIMEOUT_S = 1.0


class AlreadyRunning(FlintError):
    """Another server runs in this data directory."""

    code = "FLN-1210"


class UnusableHome(FlintError):
    """The data directory cannot be made or written to."""

    code = "FLN-1213"


@dataclass(frozen=True, slots=True)
class HomeClaim:
    """Proof that this process is the one server in ``home``."""

    home: Path
    guardian: Guardian


@contextmanager
def claim_home(home: Path) -> Iterator[HomeClaim]:
    """Claim a data directory, making it where needed, with a guardian over this process.

    The lock is the kernel's, so it goes with its holders. The guardian holds it too: after a
    ``kill -9`` of the server it is free when the guardian has cleaned up, which is waited for.

    Raises:
        AlreadyRunning: If another server holds it.
        UnusableHome: If the directory cannot be made or written to.
    """
    descriptor = _open_lock(home)
    try:
        _lock(descriptor, home)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        guardian = Guardian.start([descriptor])
        try:
            yield HomeClaim(home, guardian)
        finally:
            guardian.dismiss()
    finally:
        os.close(descriptor)


def running_server(home: Path) -> int | None:
    """Process id of the server in ``home``; None when none runs."""
    try:
        descriptor = os.open(_lock_path(home), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


@contextmanager
def no_server_runs(home: Path) -> Iterator[bool]:
    """Whether no server runs in ``home``; where none does, none starts until the block ends.

    Raises:
        UnusableHome: If the directory cannot be made or written to.
    """
    descriptor = _open_lock(home)
    try:
        yield _lock_unless_served(descriptor)
    finally:
        os.close(descriptor)


def _lock_unless_served(descriptor: int) -> bool:
    deadline_s = time.monotonic() + _PROBE_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if holder is not None and _is_alive(holder):
                return False
            time.sleep(0.02)  # no server, only a look for one; or one that is just starting
        else:
            # A server that starts meanwhile waits, rather than take a dead one for its rival.
            os.ftruncate(descriptor, 0)
            return True
    return False


def _open_lock(home: Path) -> int:
    try:
        path = _lock_path(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UnusableHome(
            f"cannot use data directory {home} ({error.strerror}); make it writable for this user "
            "or point FLINT_HOME (or --home) at another"
        ) from error


def _lock(descriptor: int, home: Path) -> None:
    deadline_s = time.monotonic() + _TAKE_OVER_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            known_alive = holder is not None and _is_alive(holder)
            if known_alive or time.monotonic() > deadline_s:
                raise AlreadyRunning(
                    f"a FLINT server is already running in {home} (process {holder}); use it, stop "
                    "it, or give this one a data directory of its own with --home"
                ) from None
            time.sleep(0.1)
        else:
            return


def _holder(descriptor: int) -> int | None:
    try:
        return int(os.pread(descriptor, 32, 0))
    except ValueError:  # between locking the file and writing to it
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    # A killed process that its parent has not collected is still listed, as a zombie.
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _lock_path(home: Path) -> Path:
    return home / "run" / "server.lock"
