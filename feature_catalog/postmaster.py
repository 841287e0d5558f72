"""The process behind a Postgres data directory: alive, really ours, or a stale file.

``postmaster.pid`` alone proves nothing: after ``kill -9`` or a reboot its number may belong to any
process. A postmaster is alive when its process runs a program called postgres in that directory.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

_PROC = Path("/proc")


def postmaster_pid(pgdata: Path) -> int | None:
    """Process id of the live server of a data directory, or None.

    A pid file that is missing, truncated, or names a process that is no such server is stale.
    """
    try:
        pid = int((pgdata / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if pid > 0 and _is_postgres_in(pid, pgdata) else None


def remove_stale_locks(pgdata: Path, socket: Path, deadline_s: float) -> bool:
    """Remove what a dead server left, once no process of that server is there any more.

    Postgres itself removes stale lock files, but not when the number in them was given to another
    process of the same user, or when the dead server is a zombie nobody waits for.

    Args:
        socket: Its socket, in a directory of its own.
        deadline_s: `time.monotonic` until which to wait for the dead server's children, which
            end by themselves when they notice.

    Returns:
        Whether the way is free for a new server.
    """
    while postmaster_pid(pgdata) is None:
        if not _processes_in(pgdata):
            for path in (
                pgdata / "postmaster.pid",
                socket,
                socket.with_name(f"{socket.name}.lock"),
            ):
                path.unlink(missing_ok=True)
            return True
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return False


def stop_postmaster(pgdata: Path, timeout_s: float) -> bool:
    """Stop the live server of a data directory and wait until it is gone.

    First the fast way (running transactions are rolled back, a checkpoint is written); when that
    takes longer than ``timeout_s``, the immediate way (the next start recovers from the log).

    Returns:
        Whether no server is left.
    """
    for number in (signal.SIGINT, signal.SIGQUIT):
        pid = postmaster_pid(pgdata)
        if pid is None:
            return True
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            # The pid file goes before the process does; both must be gone before a new start.
            if not _is_postgres_in(pid, pgdata):
                return True
            time.sleep(0.02)
    return postmaster_pid(pgdata) is None


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits for its parent does not."""
    if _PROC.is_dir():
        # Its state, not its command line: that of a server that is starting can be empty.
        try:
            status = (_PROC / str(pid) / "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        state = status.rpartition(b")")[2].split()[0]  # after its name, which may hold anything
        return state not in {b"Z", b"X"}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postgres_in(pid: int, pgdata: Path) -> bool:
    if not _PROC.is_dir():
        shown = subprocess.run(  # noqa: S603 - a number, no shell
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - wherever the system keeps it
            capture_output=True,
            text=True,
            check=False,
        )
        return "postgres" in shown.stdout and str(pgdata) in shown.stdout
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        place = (_PROC / str(pid) / "cwd").readlink()
    except OSError:
        return False
    # A zombie has an empty command line. A child of the server calls itself "postgres: ...".
    return Path(os.fsdecode(words[0])).name.startswith("postgres") and place == pgdata.resolve()


def _processes_in(pgdata: Path) -> list[int]:
    """Every process of a server of this directory, its children included (Linux; else none)."""
    if not _PROC.is_dir():
        return []
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _is_postgres_in(pid, pgdata)]
