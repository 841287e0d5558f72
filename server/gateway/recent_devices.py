"""Which devices checked in lately: the population that pace steering and selection reckon with."""

from collections import OrderedDict
from collections.abc import Iterable


class RecentDevices:
    """Distinct devices within a sliding window, with how often each was seen.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def see(self, device_id: str, now_s: float) -> int:
        """Note a check-in; returns its ordinal for this device, from 0 while it stays recent."""
        _, times = self._seen.pop(device_id, (0.0, 0))
        self._seen[device_id] = (now_s, times + 1)
        return times

    def times(self, device_id: str) -> int:
        """How often a device was seen; 0 when it is not recent."""
        return self._seen.get(device_id, (0.0, 0))[1]

    def forget_before(self, then_s: float) -> None:
        """Forget devices last seen before ``then_s``."""
        while self._seen:
            device_id, (seen_s, _) = next(iter(self._seen.items()))
            if seen_s >= then_s:
                return
            del self._seen[device_id]

    def clear(self) -> None:
        """Forget all."""
        self._seen.clear()

    def entries(self) -> tuple[tuple[str, float, int], ...]:
        """Device, when it was last seen and how often; least recent first. For a checkpoint."""
        return tuple((device_id, *seen) for device_id, seen in self._seen.items())

    def restore(self, entries: Iterable[tuple[str, float, int]]) -> None:
        """Take up what a checkpoint holds, in place of everything else."""
        self._seen = OrderedDict((device_id, (seen_s, n)) for device_id, seen_s, n in entries)
