"""Devices whose tasks end badly again and again are given none for a while, longer every time."""

from collections import OrderedDict

from server.gateway.held_back import HeldBack, HeldBackReason

_MOST_DEVICES = 100_000


class Setbacks:
    """Counts a device's setbacks in a row: tasks failed, interrupted, never heard of again.

    A task handed out once more is one as well: its device has lost it, perhaps by crashing over it.
    Phones are interrupted often and mean no harm, so a few in a row are free. A back-off begins at
    the device's next check-in; one update that is taken ends the row. In bounded memory, of this
    process: a device forgotten, or met by another gateway, begins anew.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(
        self,
        *,
        free: int = 5,
        first_s: float = 60.0,
        longest_s: float = 6 * 3600.0,
        most_devices: int = _MOST_DEVICES,
    ) -> None:
        """Assemble.

        Args:
            free: Setbacks in a row before there is a back-off.
            first_s: The first back-off; each further setback doubles it.
            longest_s: The longest.
            most_devices: Remembered; those with a setback longest ago are forgotten first.
        """
        self._free = free
        self._first_s = first_s
        self._longest_s = longest_s
        self._most_devices = most_devices
        self._row: OrderedDict[str, tuple[int, float | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._row)

    def note(self, device_id: str) -> None:
        """One more setback."""
        count, _ = self._row.pop(device_id, (0, None))
        self._row[device_id] = (count + 1, None)
        if len(self._row) > self._most_devices:
            self._row.popitem(last=False)

    def clear(self, device_id: str) -> None:
        """An update was taken."""
        self._row.pop(device_id, None)

    def back_off(self, device_id: str, now_s: float) -> HeldBack | None:
        """Whether this device, checking in, gets no task yet, and for how long."""
        count, until_s = self._row.get(device_id, (0, None))
        if count < self._free:
            return None
        if until_s is None:
            doubled = self._first_s * 2.0 ** min(count - self._free, 60)
            until_s = now_s + min(doubled, self._longest_s)
            self._row[device_id] = (count, until_s)
        if now_s >= until_s:
            return None
        return HeldBack(HeldBackReason.SETBACKS_IN_A_ROW, until_s - now_s)
