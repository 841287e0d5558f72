"""Runs devices by the time each is due next, until told to stop."""

import heapq
import itertools
import json
import logging
import resource
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable

from device_runtime.errors import FlintError
from device_runtime.host import DeviceHost
from device_runtime.pacing import Pacing
from device_runtime.runner import DeviceRunner
from device_runtime.training import peak_memory_bytes

_log = logging.getLogger(__name__)
_STOP_GRACE_S = 5.0


class DeviceLoop:
    """A heap of devices by due time; one thread steps them.

    One thread is enough for a core: training holds no other device up for longer than a slice, and
    more cores are used by more processes.
    """

    def __init__(
        self, runners: Iterable[DeviceRunner], *, max_tasks: int | None, tolerant: bool
    ) -> None:
        """Prepare; every device is due at once.

        Args:
            runners: Devices.
            max_tasks: End after this many finished tasks, all devices together.
            tolerant: Log a device's fault and try it again hours later, so that one broken
                device does not stop a fleet; else the fault ends the loop.
        """
        self._order = itertools.count()
        now_s = time.monotonic()
        self._due = [(now_s, next(self._order), runner) for runner in runners]
        self._runners = [runner for _, _, runner in self._due]
        self._max_tasks = max_tasks
        self._tolerant = tolerant
        self._broken_wait_s = Pacing().refused_s

    @property
    def devices(self) -> int:
        """How many there are."""
        return len(self._runners)

    @property
    def finished_tasks(self) -> int:
        """Tasks finished so far."""
        return sum(runner.finished_tasks for runner in self._runners)

    @property
    def enrolled(self) -> int:
        """Devices a gateway knows, whenever they enrolled."""
        return sum(runner.is_enrolled for runner in self._runners)

    @property
    def in_flight(self) -> int:
        """Devices with a task in hand."""
        return sum(runner.has_task for runner in self._runners)

    def run(self, stop: threading.Event) -> None:
        """Step whoever is due, until ``stop`` is set or ``max_tasks`` are finished.

        Raises:
            FlintError: A device's fault, unless tolerant.
        """
        while not stop.is_set() and self._due:
            due_s, _, runner = self._due[0]
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                stop.wait(min(wait_s, threading.TIMEOUT_MAX))
                continue
            heapq.heappop(self._due)
            before = runner.finished_tasks
            next_s = self._step(runner)
            heapq.heappush(self._due, (time.monotonic() + next_s, next(self._order), runner))
            if runner.finished_tasks > before and self._is_enough():
                return

    def _step(self, runner: DeviceRunner) -> float:
        try:
            return runner.step()
        except (FlintError, OSError, sqlite3.Error) as error:
            if not self._tolerant:
                raise
            _log.exception("a device is left alone for a while: %s", error)
            return self._broken_wait_s

    def _is_enough(self) -> bool:
        return self._max_tasks is not None and self.finished_tasks >= self._max_tasks


def run_until_stopped(loop: DeviceLoop, host: DeviceHost, report_every_s: float | None) -> None:
    """Run ``loop`` in a thread until it ends, or until SIGTERM or SIGINT.

    The step in hand is finished, unless it waits for the gateway for longer than five seconds.
    Called from the main thread.

    Args:
        report_every_s: Print a progress line to stdout so often, and a last one at the end.

    Raises:
        FlintError: What ended the loop.
    """
    endings = {signal.SIGTERM, signal.SIGINT}
    # Waited for, not handled: a handler could not take the locks that stopping needs.
    signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    started_s = time.monotonic()
    worker = _Worker(loop)
    worker.start()
    try:
        while worker.is_alive():
            wait_s = report_every_s or threading.TIMEOUT_MAX
            if signal.sigtimedwait(endings, min(wait_s, threading.TIMEOUT_MAX)) is not None:
                break
            _report(loop, host, time.monotonic() - started_s)
    finally:
        worker.stop.set()
        worker.join(_STOP_GRACE_S)
        host.disconnect()
        worker.join()
    if report_every_s is not None:
        _report(loop, host, time.monotonic() - started_s)
    if worker.error is not None:
        raise worker.error


class _Worker(threading.Thread):
    """Runs a loop; wakes the main thread when it ends by itself."""

    def __init__(self, loop: DeviceLoop) -> None:
        super().__init__(name="devices")
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._loop = loop

    def run(self) -> None:
        try:
            self._loop.run(self.stop)
        except Exception as error:
            self.error = error
        finally:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _report(loop: DeviceLoop, host: DeviceHost, elapsed_s: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line = {
        "unix_s": round(time.time(), 3),
        "elapsed_s": round(elapsed_s, 3),
        "devices": loop.devices,
        "enrolled": loop.enrolled,
        "in_flight": loop.in_flight,
        "finished_tasks": loop.finished_tasks,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_memory_bytes": peak_memory_bytes(),
        "counts": dict(host.counts),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
