"""A command of this machine, bounded in time and in what it may print."""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

_CHUNK_BYTES = 64 * 1024
_REAP_S = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended.

    Attributes:
        code: Its exit status; None if it was ended for taking too long or printing too much.
        timed_out: Whether it took too long.
    """

    code: int | None
    output: bytes
    errors: bytes
    timed_out: bool = False

    @property
    def said(self) -> str:
        """The last line it printed, of errors first; for a message."""
        for text in (self.errors, self.output):
            lines = text.decode("utf-8", "replace").strip().splitlines()
            if lines:
                return "".join(c if c.isprintable() else " " for c in lines[-1])[:200].strip()
        return ""


class BoundedRunner:
    """Runs commands one after another; `stop` ends the one at work, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, command: Sequence[str], *, timeout_s: float, max_bytes: int) -> Finished:
        """Run a command to its end, its deadline, or its output's limit.

        Args:
            max_bytes: Kept of each of its streams; one that prints more is ended.

        Raises:
            FileNotFoundError: If there is no such program.
            OSError: If it cannot be started.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            if self._stopped:
                return Finished(None, b"", b"it was stopped")
            process = self._process = subprocess.Popen(  # noqa: S603 - a list, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            output, errors, in_time = _read(process, deadline_s, max_bytes)
            if not in_time:
                return Finished(None, output, errors, timed_out=time.monotonic() >= deadline_s)
            try:
                code = process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                return Finished(None, output, errors, timed_out=True)
            return Finished(code, output, errors)
        finally:
            _end(process)
            with self._lock:
                self._process = None

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End what is at work, and start nothing more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _kill(self._process)


def _read(
    process: subprocess.Popen[bytes], deadline_s: float, max_bytes: int
) -> tuple[bytes, bytes, bool]:
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("a process without pipes")
    streams = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    output, errors = streams.values()
    complete = True
    with selectors.DefaultSelector() as selector:
        for descriptor in streams:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left_s = deadline_s - time.monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready:
                complete = False
                break
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fd)
                streams[key.fd] += chunk
            if max(len(output), len(errors)) > max_bytes:
                complete = False
                break
    return bytes(output[: max_bytes + 1]), bytes(errors[:max_bytes]), complete


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _kill(process)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait(_REAP_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has just ended
