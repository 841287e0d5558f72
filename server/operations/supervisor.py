"""The supervisor behind `flint up`: starts the server processes, watches them, stops them."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from device_runtime.errors import FlintError
from server.operations.console import Console
from server.operations.home_claim import HomeClaim, claim_home, running_server
from server.operations.processes import ProcessSpec, ProcessState, SupervisedProcess
from server.operations.settings import ServerSettings

_TICK_S = 0.1
_DATABASE_TICKS = 10
_SLOW_TICKS = 50
_SAME_REQUEST_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Database(Protocol):
    """An embedded database the supervisor keeps up, and stops last."""

    data_dir: Path

    def start(self) -> str:
        """Start it, or attach to it where it runs."""
        ...

    def stop(self) -> None:
        """Stop it."""
        ...

    def is_running(self) -> bool:
        """Whether it answers."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process as `status` reports it.

    Attributes:
        restarts: How often it was started again after it had ended by itself.
    """

    name: str
    state: str
    pid: int | None
    restarts: int


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What runs in a data directory. Without a server: no pid, no processes."""

    pid: int | None
    processes: tuple[ProcessStatus, ...]

    @property
    def running(self) -> bool:
        """Whether a server runs at all."""
        return self.pid is not None

    @property
    def ready(self) -> bool:
        """Whether all its processes serve."""
        serving = [p.state == ProcessState.READY.value for p in self.processes]
        return self.running and bool(serving) and all(serving)


def read_status(home: Path) -> ServerStatus:
    """What the supervisor in ``home`` last noted of its processes."""
    pid = running_server(home)
    if pid is None:
        return ServerStatus(None, ())
    try:
        raw = json.loads(_status_path(home).read_text())
        processes = tuple(ProcessStatus(**one) for one in raw["processes"])
        noted_by = raw["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return ServerStatus(pid, ())
    return ServerStatus(pid, processes if noted_by == pid else ())


class Supervisor:
    """Runs the server processes of one deployment until it is stopped.

    Start order is the order of ``specs``; they stop in the reverse order, the database last.

    Args:
        database: Embedded Postgres to keep up and to stop at the end; None for one of the user's.
        claim: This process's claim on the data directory; taken here when not given.
        renew: Renews certificates that are due, and is called now and then; says what it renewed.
        renew_every_s: How often.
    """

    def __init__(
        self,
        settings: ServerSettings,
        specs: Sequence[ProcessSpec],
        *,
        database: Database | None = None,
        claim: HomeClaim | None = None,
        console: Console | None = None,
        renew: Callable[[], Collection[str]] = tuple,
        renew_every_s: float = 600.0,
    ) -> None:
        self.settings = settings
        self._renew = renew
        self._renew_every_s = renew_every_s
        self._renewed_s = time.monotonic()
        self._specs = tuple(specs)
        self._database = database
        self._claim = claim
        self._console = console if console is not None else Console(quiet=True)
        self._processes: list[SupervisedProcess] = []
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._last_status = ""
        self._asked_s = 0.0

    def start(self) -> None:
        """Start everything and return when all of it serves.

        Raises:
            AlreadyRunning: If another server runs in the data directory.
            ProcessFailed: If a process does not start; what had started is stopped again.
        """
        # A thread of its own, because the kernel ends our children with the thread that made them.
        self._thread = threading.Thread(target=self._live, name="supervisor", daemon=True)
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def run(self) -> None:
        """Start everything, serve until SIGINT, SIGTERM or SIGHUP, then stop in order.

        Raises:
            AlreadyRunning, ProcessFailed: See `start`.
        """
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            self.start()
            if not self._stop.is_set():
                self._console.say("all is up; Ctrl-C stops it")
            self._ended.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop everything and return when it has ended. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def status(self) -> ServerStatus:
        """What runs now."""
        return read_status(self.settings.home)

    # -- the supervising thread ------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with ExitStack() as stack:
                claim = self._claim or stack.enter_context(claim_home(self.settings.home))
                if self._database is not None:
                    claim.guardian.watch_postgres(self._database.data_dir)
                try:
                    self._start_all(claim)
                    self._settled.set()
                    self._watch()
                finally:
                    self._stop_all()
        except BaseException as error:
            self._failure = error
        finally:
            self._settled.set()
            self._ended.set()

    def _start_all(self, claim: HomeClaim) -> None:
        self.settings.logs.mkdir(parents=True, exist_ok=True)
        for spec in self._specs:
            if self._stop.is_set():
                return
            log = self.settings.logs / f"{spec.name}.log"
            process = SupervisedProcess(spec, log, claim.guardian, self._console.say)
            self._processes.append(process)
            self._console.follow(spec.name, log)
            process.start()
            while process.state is ProcessState.STARTING and not self._stop.wait(_TICK_S):
                process.tend()
                self._console.show_news()
            self._note_status()
            if process.state is ProcessState.ENDED:
                raise process.failure()

    def _watch(self) -> None:
        ticks = 0
        while not self._stop.wait(_TICK_S):
            ticks += 1
            for process in self._processes:
                process.tend()
                if process.state is ProcessState.ENDED:
                    process.restart_later()
            self._console.show_news()
            self._note_status()
            if ticks % _DATABASE_TICKS == 0:
                self._tend_database()
            if ticks % _SLOW_TICKS == 0:
                self._tend_slowly()

    def _tend_slowly(self) -> None:
        self._tend_certificates()
        for process in self._processes:
            process.trim_log()

    def _tend_database(self) -> None:
        if self._database is not None and not self._database.is_running():
            self._console.say("the database has ended; starting it again")
            try:
                self._database.start()
            except FlintError as error:  # tried again in a while; the others wait for it
                self._console.say(str(error))

    def _tend_certificates(self) -> None:
        """Renew what is due; start anew who would go on with what was renewed, whoever did so."""
        if time.monotonic() - self._renewed_s >= self._renew_every_s:
            self._renewed_s = time.monotonic()
            try:
                renewed = self._renew()
            except (FlintError, OSError) as error:  # tried again in a while; an alert tells
                self._console.say(f"certificates cannot be renewed: {error}")
            else:
                if renewed:
                    self._console.say(f"renewed certificates: {', '.join(renewed)}")
        for process in self._processes:
            if process.must_read_again():
                self._console.say(f"{process.spec.name} is started anew: its certificate is new")
                process.stop(self._hurry)
                process.start()

    def _stop_all(self) -> None:
        for process in reversed(self._processes):
            process.stop(self._hurry)
            self._console.show_news()
            self._note_status()
        if self._database is not None:
            self._database.stop()
        if self._processes:
            self._console.say("stopped")

    def _note_status(self) -> None:
        noted = [
            ProcessStatus(p.spec.name, p.state.value, p.pid, p.restarts) for p in self._processes
        ]
        # Those to come are named too: a server is not ready when the first of them is.
        to_come = [
            ProcessStatus(spec.name, ProcessState.STOPPED.value, None, 0)
            for spec in self._specs[len(noted) :]
        ]
        processes = [asdict(process) for process in (*noted, *to_come)]
        text = json.dumps({"pid": os.getpid(), "processes": processes}, indent=2)
        if text == self._last_status:
            return
        self._last_status = text
        path = _status_path(self.settings.home)
        draft = path.with_name(path.name + ".new")
        try:
            draft.write_text(text)
            draft.replace(path)
        except OSError as error:  # a full disk must not end the server
            self._console.say(f"cannot note the processes' status in {path}: {error.strerror}")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            if time.monotonic() - self._asked_s < _SAME_REQUEST_S:
                return  # sent to us and to our process group: one request, not a second
            self._console.say("stopping at once")
            self._hurry.set()
            return
        self._console.say(f"{signal.Signals(number).name}: stopping; once more to do it at once")
        self._asked_s = time.monotonic()
        self._stop.set()


def _status_path(home: Path) -> Path:
    return home / "run" / "status.json"
