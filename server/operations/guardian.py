"""The guardian: a small process that cleans up when the supervisor is killed outright.

The supervisor holds the other end of its standard input and writes one line for each process
group it starts. When that pipe closes without the word ``done``, the supervisor died: the guardian
ends the groups and stops the embedded Postgres, which the kernel's death signal does not reach
(it is a daemon, and so are its helpers). It also holds the lock of the data directory until it is
through, so that a new server waits for the old one's ports.

Each line is ``group PID``, ``gone PID``, ``postgres DIR`` or ``done``.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

_GRACE_S = 3.0


class Guardian:
    """The supervisor's handle on its guardian."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @classmethod
    def start(cls, held_descriptors: Iterable[int] = ()) -> Self:
        """Start the guardian; it keeps ``held_descriptors`` open until it ends."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "server.operations.guardian"],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=tuple(held_descriptors),
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
        )
        return cls(process)

    def watch_group(self, pid: int) -> None:
        """The process group ``pid`` must not outlive this process."""
        self._tell(f"group {pid}")

    def forget_group(self, pid: int) -> None:
        """The process group ``pid`` has ended; its number may be used again."""
        self._tell(f"gone {pid}")

    def watch_postgres(self, data_dir: Path) -> None:
        """The embedded Postgres in ``data_dir`` must not outlive this process."""
        self._tell(f"postgres {data_dir}")

    def dismiss(self) -> None:
        """All is stopped in good order: end the guardian."""
        self._tell("done")
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            return
        # A guardian that was itself killed takes nothing away but the second line of defence.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def main() -> None:
    """Read what to guard until the supervisor says ``done`` or dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    data_dir: Path | None = None
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "done":
            return
        if word == "group":
            groups.add(int(rest))
        elif word == "gone":
            groups.discard(int(rest))
        elif word == "postgres":
            data_dir = Path(rest)
    _end_groups(groups)
    if data_dir is not None:
        from feature_catalog.embedded import EmbeddedPostgres

        EmbeddedPostgres(data_dir).stop()


def _end_groups(groups: set[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = {group for group in groups if _signal_group(group, number)}
        deadline_s = time.monotonic() + _GRACE_S
        while alive and time.monotonic() < deadline_s:
            time.sleep(0.05)
            alive = {group for group in alive if _signal_group(group, 0)}


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when no such group is left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
