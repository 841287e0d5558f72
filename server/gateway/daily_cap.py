"""How many tasks a device is given in a day, also when its own settings would allow more."""

import datetime as dt
import threading
from collections import OrderedDict
from typing import Protocol

from server.gateway.held_back import HeldBack, HeldBackReason

_DAY_S = 24 * 3600.0
_LONGEST_WAIT_S = 6 * 3600.0
_MOST_DEVICES = 200_000


class TaskHistory(Protocol):
    """Where ended tasks outlive a gateway: the catalog's task outcomes."""

    def count_tasks(self, device_id: str, since: dt.datetime) -> int:
        """Tasks of a device that have ended since then.

        Raises:
            OutcomesUnreachable: If it cannot be told now.
        """
        ...


class DailyCap:
    """Counts the tasks handed to each device in the current day, UTC.

    Stored outcomes are asked once a device and day, so a restart forgets nothing but tasks that
    run at that moment. Bounded: devices met longest ago are asked for again. Safe for several
    threads.
    """

    def __init__(
        self, max_tasks: int | None, history: TaskHistory, most_devices: int = _MOST_DEVICES
    ) -> None:
        """Assemble.

        Args:
            max_tasks: Tasks a device and day; None for any number.
            history: Of ended tasks.
            most_devices: Remembered at once.
        """
        self._max_tasks = max_tasks
        self._history = history
        self._most_devices = most_devices
        self._lock = threading.Lock()
        self._days: OrderedDict[str, tuple[int, int, str]] = OrderedDict()

    def check(self, device_id: str, now_s: float) -> HeldBack | None:
        """Whether a device has had its share of today.

        Raises:
            OutcomesUnreachable: If that cannot be told now.
        """
        if self._max_tasks is None:
            return None
        day = int(now_s // _DAY_S)
        with self._lock:
            known = self._days.get(device_id)
        if known is None or known[0] != day:
            since = dt.datetime.fromtimestamp(day * _DAY_S, dt.UTC)
            had = self._history.count_tasks(device_id, since)
            with self._lock:
                # A task may have been handed out meanwhile by another thread.
                known = self._days.setdefault(device_id, (day, had, ""))
                if known[0] != day:
                    known = self._days[device_id] = (day, had, "")
                while len(self._days) > self._most_devices:
                    self._days.popitem(last=False)
        if known[1] < self._max_tasks:
            return None
        wait_s = min((day + 1) * _DAY_S - now_s, _LONGEST_WAIT_S)
        return HeldBack(HeldBackReason.DAILY_PARTICIPATION, wait_s)

    def note(self, device_id: str, task_id: str, now_s: float) -> None:
        """A task was handed out; handed out once more it is the same one."""
        if self._max_tasks is None:
            return
        day = int(now_s // _DAY_S)
        with self._lock:
            then, had, newest = self._days.pop(device_id, (day, 0, ""))
            if then != day:
                had = 0
            if newest != task_id:
                had += 1
            self._days[device_id] = (day, had, task_id)
