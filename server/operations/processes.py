"""One supervised process: started, waited for, watched, started again with back-off, stopped."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from device_runtime.errors import FlintError
from server.operations.guardian import Guardian

_LAUNCHER = Path(__file__).with_name("launch.py")
_TAIL_LINES = 20
_FIRST_BACK_OFF_S = 1.0
_LONGEST_BACK_OFF_S = 30.0
_BACK_OFF_HALF_LIFE_S = 5.0
_TICK_S = 0.05
_MAX_LOG_BYTES = 32 * 2**20


class ProcessFailed(FlintError):
    """A server process did not start."""

    code = "FLN-1211"


class ProcessState(StrEnum):
    """Where a process is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to run one process and how to tell that it serves.

    Attributes:
        is_ready: Asked a few times a second after the start; may take up to a second.
        environment: Added to the supervisor's own.
        start_timeout_s: From its start until ``is_ready`` must have said yes.
        stop_timeout_s: From the request to stop until it is killed.
        reads_once: A file it reads at its start only; it is started anew when that is replaced.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 10.0
    reads_once: Path | None = None


class SupervisedProcess:
    """Runs a `ProcessSpec`, its output going straight to a log file.

    All methods are to be called from one thread, which must live as long as the process: the
    kernel's death signal is bound to the thread that started it.
    """

    def __init__(
        self, spec: ProcessSpec, log: Path, guardian: Guardian, say: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self.log = log
        self.state = ProcessState.STOPPED
        self.restarts = 0
        self.end = ""
        self._guardian = guardian
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._restart_at_s = 0.0
        self._ready_s: float | None = None
        self._back_off_s = _FIRST_BACK_OFF_S
        self._log_start_bytes = 0
        self._has_read: tuple[int, int] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start it; `tend` sees it become ready."""
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *self.spec.command]
        self._log_start_bytes = self.log.stat().st_size if self.log.exists() else 0
        self._has_read = _identity(self.spec.reads_once)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands are our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.spec.environment},
                process_group=0,  # a Ctrl-C is for the supervisor, which stops all in order
            )
        self._guardian.watch_group(self._process.pid)
        self._started_s = time.monotonic()
        self.state = ProcessState.STARTING

    def tend(self) -> None:
        """Look after it once: notice readiness and its end, start it again when it is time."""
        now_s = time.monotonic()
        if self.state is ProcessState.WAITING:
            if now_s >= self._restart_at_s:
                self.restarts += 1
                self.start()
            return
        if self._process is None:
            return
        if self._process.poll() is not None:
            self._note_end(self._how_it_ended())
        elif self.state is ProcessState.STARTING:
            if self.spec.is_ready():
                self.state = ProcessState.READY
                self._ready_s = now_s
                self._say(f"{self.spec.name} ready after {now_s - self._started_s:.1f} s")
            elif now_s - self._started_s > self.spec.start_timeout_s:
                self._note_end(f"was not ready after {self.spec.start_timeout_s:g} s")

    def restart_later(self) -> None:
        """After its end: have `tend` start it again, later every time it ends soon.

        While it serves, what earlier ends have added to the wait decays.
        """
        self.state = ProcessState.WAITING
        now_s = time.monotonic()
        if self._ready_s is not None:
            half_lives = min((now_s - self._ready_s) / _BACK_OFF_HALF_LIFE_S, 60.0)
            self._back_off_s = max(_FIRST_BACK_OFF_S, self._back_off_s * 0.5**half_lives)
            self._ready_s = None
        self._restart_at_s = now_s + self._back_off_s
        self._say(f"{self.spec.name} {self.end}; starting it again in {self._back_off_s:.0f} s")
        self._back_off_s = min(2 * self._back_off_s, _LONGEST_BACK_OFF_S)

    def failure(self) -> ProcessFailed:
        """What to tell the user when it did not start: how it ended and the end of its log."""
        tail = self._log_tail()
        return ProcessFailed(
            f"the {self.spec.name} process did not start: it {self.end}; "
            f"its log, {self.log}, ends with:\n{tail}\n"
        )

    def stop(self, hurry: threading.Event) -> None:
        """Ask it to end; kill it and everything it started when time or patience runs out.

        Args:
            hurry: When set, there is no waiting any more.
        """
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            deadline_s = time.monotonic() + self.spec.stop_timeout_s
            while process.poll() is None and time.monotonic() < deadline_s:
                if hurry.wait(_TICK_S):
                    break
            if process.poll() is None:
                self._say(f"{self.spec.name} did not stop in time and is killed")
        self._kill()
        self.state = ProcessState.STOPPED

    def must_read_again(self) -> bool:
        """Whether it serves with a file that was replaced since."""
        if self.spec.reads_once is None or self.state is not ProcessState.READY:
            return False
        return _identity(self.spec.reads_once) != self._has_read

    def trim_log(self) -> None:
        """Keep the log bounded: move its content to ``<log>.1`` when it is large."""
        if self.log.exists() and self.log.stat().st_size > _MAX_LOG_BYTES:
            # Copied, not renamed: the process keeps writing to the file it was given.
            shutil.copyfile(self.log, self.log.with_name(self.log.name + ".1"))
            os.truncate(self.log, 0)
            self._log_start_bytes = 0

    def _note_end(self, end: str) -> None:
        self.end = end
        self._kill()
        self.state = ProcessState.ENDED

    def _how_it_ended(self) -> str:
        code = self._process.returncode if self._process is not None else 0
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _kill(self) -> None:
        """End the whole process group and collect the process."""
        if self._process is None:
            return
        pid = self._process.pid
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(pid, signal.SIGKILL)
        self._process.wait()
        self._guardian.forget_group(pid)
        self._process = None

    def _log_tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(self._log_start_bytes, self.log.stat().st_size - 16_384))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:]) or "  (nothing)"


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Changes when a file is replaced; None if there is none."""
    try:
        status = path.stat() if path is not None else None
    except FileNotFoundError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns)
