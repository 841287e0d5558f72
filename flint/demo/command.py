"""A ``flint`` command in a process of its own: what it loads is gone when it ends."""

import subprocess
import sys
from pathlib import Path
from typing import Self

from device_runtime.errors import FlintError


class DemoJobFailed(FlintError):
    """A step or a job of the demo failed."""

    code = "FLN-1255"
    exit_code = 1


class FlintCommand:
    """Started on entering; ended, if it must be, on leaving.

    Args:
        arguments: Of ``flint``, without ``--home``.
        home: Data directory it is for.
    """

    def __init__(self, arguments: list[str], home: Path) -> None:
        self._arguments = arguments
        self._home = home

    def __enter__(self) -> Self:
        """Start it."""
        command = [sys.executable, "-P", "-m", "flint", *self._arguments, "--home", str(self._home)]
        self._process = subprocess.Popen(  # noqa: S603 - the command is our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for the demo, which ends it
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def output(self) -> str:
        """Wait for its end; returns what it printed.

        Raises:
            DemoJobFailed: If it failed; with what it said.
        """
        printed, said = self._process.communicate()
        if self._process.returncode != 0:
            lines = said.strip().splitlines() or ["it said nothing"]
            raise DemoJobFailed(f"`flint {' '.join(self._arguments)}` failed: {lines[-1]}")
        return printed
