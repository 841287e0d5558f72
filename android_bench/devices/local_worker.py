"""One run in a fresh process of this machine: started, watched, throttled, and its answer read."""

import contextlib
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from android_bench.devices.memory_cap import memory_capped
from android_bench.devices.throttle import throttled
from android_bench.package import BenchPackage
from android_bench.protocol import (
    MAX_RESULT_BYTES,
    RESULT_FILE,
    SPEC_FILE,
    BenchResult,
    BenchSpec,
)
from device_runtime.errors import FlintError

WORKER = (sys.executable, "-P", "-m", "android_bench.worker")
TIMEOUT_S = 900.0
_SAID_MOST_BYTES = 64 * 1024
_LOG_TAIL_BYTES = 2000
_MOST_BYTES = 256 * 2**20


class WorkerFailed(Exception):
    """A run gave nothing; the text says why, as a reason."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a worker runs under.

    Attributes:
        core: It is pinned to.
        duty: Share of the core it gets within its measuring window; None leaves it alone.
        memory_cap_mb: Above which it is killed, where the machine lets us; None for no cap.
    """

    core: int
    duty: float | None = None
    memory_cap_mb: float | None = None


class LocalWorker:
    """Runs workers one at a time.

    Args:
        command: Of the worker, without its options.
        timeout_s: After which it is killed.
    """

    def __init__(self, command: Sequence[str] = WORKER, timeout_s: float = TIMEOUT_S) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, spec: BenchSpec, package: BenchPackage, conditions: Conditions) -> BenchResult:
        """One run.

        Args:
            spec: Of one repeat.

        Raises:
            WorkerFailed: If it could not be started, hung, died, or answered rubbish or about
                something else.
        """
        output = Path(tempfile.mkdtemp(prefix="flint-bench-"))
        try:
            (output / SPEC_FILE).write_text(spec.to_json())
            self._watch(output, package, conditions)
            return _read_answer(output / RESULT_FILE, spec)
        finally:
            shutil.rmtree(output, ignore_errors=True)

    def close(self) -> None:
        """Kill the worker that runs, if any, and start no other."""
        with self._lock:
            self._closed = True
            if self._running is not None:
                self._running.kill()

    def _watch(self, output: Path, package: BenchPackage, conditions: Conditions) -> None:
        options = ["--package", str(package.folder), "--output", str(output)]
        options += ["--core", str(conditions.core)]
        is_throttled = conditions.duty is not None and conditions.duty < 1.0
        options += ["--throttled"] if is_throttled else []
        log = output / "worker.log"
        deadline_s = time.monotonic() + self._timeout_s
        with (
            log.open("wb") as errors,
            self._started(options, errors, talks=is_throttled) as process,
            memory_capped(process.pid, conditions.memory_cap_mb) as is_capped,
        ):
            try:
                if is_throttled and conditions.duty is not None:
                    self._throttle(process, conditions.duty, deadline_s)
                code = process.wait(max(0.0, deadline_s - time.monotonic()))
            except (subprocess.TimeoutExpired, TimeoutError):
                process.kill()
                process.wait()
                raise WorkerFailed(
                    f"the worker hung: killed after {self._timeout_s:g} s; if it only needs "
                    "longer, give it more (--timeout-s)"
                ) from None
        if self._closed:
            raise WorkerFailed("the benchmark was stopped")
        if is_capped and code == -signal.SIGKILL:
            raise WorkerFailed(
                f"the worker was killed by SIGKILL, as one that takes more than the "
                f"{conditions.memory_cap_mb:g} MB this profile allows an app"
            )
        if code != 0:
            raise WorkerFailed(_death(code, log))

    def _throttle(self, process: "subprocess.Popen[bytes]", duty: float, deadline_s: float) -> None:
        """Wait for the measuring window, and hold the worker to its share until the window ends."""
        said, told = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stdin)  # both pipes
        lines = _Lines(said.fileno(), deadline_s)
        if not lines.wait_for(b"ready"):
            return  # it has died; its exit code says how
        with throttled(process.pid, duty):
            with contextlib.suppress(BrokenPipeError):
                told.write(b"go\n")
                told.flush()
            lines.wait_for(b"done")

    @contextlib.contextmanager
    def _started(
        self, options: Sequence[str], errors: BinaryIO, *, talks: bool
    ) -> "Iterator[subprocess.Popen[bytes]]":
        with self._lock:
            if self._closed:
                raise WorkerFailed("the benchmark was stopped")
            try:
                process = subprocess.Popen(  # noqa: S603 - our own worker
                    [*self._command, *options],
                    stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if talks else subprocess.DEVNULL,
                    stderr=errors,
                    env=_environment(),
                    start_new_session=True,  # Ctrl-C is ours to pass on
                )
                # A worker gone mad must not fill the disk.
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
            except OSError as error:
                raise WorkerFailed(f"the worker cannot be started ({error})") from error
            self._running = process
        try:
            yield process
        finally:
            process.kill()  # nothing, where it has ended
            process.communicate()
            with self._lock:
                self._running = None


class _Lines:
    """Lines of a pipe, until a deadline; of a worker that talks much only the last are kept."""

    def __init__(self, handle: int, deadline_s: float) -> None:
        self._handle, self._deadline_s = handle, deadline_s
        self._said = b""

    def wait_for(self, word: bytes) -> bool:
        """Whether a line that is this word came before the pipe was closed.

        Raises:
            TimeoutError: If neither happens before the deadline.
        """
        while True:
            line, newline, rest = self._said.partition(b"\n")
            if newline:
                self._said = rest
                if line.strip() == word:
                    return True
                continue
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._handle], [], [], left_s)[0]:
                raise TimeoutError
            said = os.read(self._handle, 4096)
            if not said:
                return False
            self._said = (self._said + said)[-_SAID_MOST_BYTES:]


def _environment() -> dict[str, str]:
    """Ours, with numpy and LiteRT on one thread, and nothing that would slow Python down."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def _read_answer(path: Path, spec: BenchSpec) -> BenchResult:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RESULT_BYTES + 1)
    except OSError as error:
        raise WorkerFailed("the worker ended without a result file") from error
    try:
        result = BenchResult.from_json(data, source="the worker's result")
        result.check_answers(spec, source="the worker's result")
    except FlintError as error:
        raise WorkerFailed(str(error)) from error
    if not result.runs:
        reasons = "; ".join(result.validity.reasons)
        raise WorkerFailed(f"the worker's result has no run: {reasons}")
    return result


def _death(code: int, log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        data = file.read().decode("utf-8", "replace").strip()
    last = data.splitlines()[-1] if data else "it said nothing"
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"the worker was killed by {name}: {last}"
    return f"the worker ended with exit code {code}: {last}"
