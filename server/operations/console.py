"""What the operator sees: the supervisor's own lines, and every process's log lines, prefixed."""

import re
import sys
import threading
from pathlib import Path
from typing import TextIO

_NAME_WIDTH = 11
_CHUNK_BYTES = 65_536
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Console:
    """Prefixed lines on a stream.

    Logs are followed as files rather than read through pipes: a terminal that stands still then
    never stops a server process from writing its log.

    Args:
        quiet: Show the supervisor's own lines only; logs are in their files all the same.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream if stream is not None else sys.stderr
        self._lock = threading.Lock()
        self._followed: dict[Path, _FollowedLog] = {}

    def say(self, line: str) -> None:
        """One line of the supervisor's own."""
        self._write("flint", line)

    def follow(self, name: str, log: Path) -> None:
        """Show what is appended to ``log`` from now on."""
        if not self._quiet:
            self._followed[log] = _FollowedLog(name, log)

    def show_news(self) -> None:
        """Print the lines that were appended to the followed logs since the last call."""
        for followed in self._followed.values():
            for line in followed.new_lines():
                self._write(followed.name, line)

    def _write(self, name: str, line: str) -> None:
        with self._lock:
            print(f"{name:<{_NAME_WIDTH}} | {line}", file=self._stream, flush=True)


class _FollowedLog:
    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._partial = b""

    def new_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        if self._path.stat().st_size < self._position:  # it was trimmed
            self._position = 0
        with self._path.open("rb") as log:
            log.seek(self._position)
            chunk = log.read(_CHUNK_BYTES)
        self._position += len(chunk)
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        return [_COLOURS.sub("", line.decode(errors="replace")).rstrip() for line in lines]
