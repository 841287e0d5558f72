"""Short codes that devices give for ending a task, kept few: each becomes a label and a counter."""

import re
import threading

_CODE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MOST = 64
OTHER = "other"


class DeviceReasons:
    """Lets the first distinct codes through and calls every further one ``other``.

    Devices are not trusted to keep their vocabulary small.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def admit(self, reason: str) -> str:
        """The code to count under."""
        if not _CODE.fullmatch(reason):
            return OTHER
        with self._lock:
            if reason not in self._known:
                if len(self._known) >= self._most:
                    return OTHER
                self._known.add(reason)
        return reason
