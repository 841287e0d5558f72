"""The devices that check in: how many there are, who is eligible, when each should come back."""

from collections.abc import Iterable, Mapping

from server.coordination.selection import draw
from server.gateway.pace import PaceSteering
from server.gateway.recent_devices import RecentDevices

_LEAST_WINDOW_S = 60.0


class Population:
    """Counts distinct devices over as long as the pace lets them stay away.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self, pace: PaceSteering) -> None:
        self._pace = pace
        self._seen = RecentDevices()
        self._eligible = RecentDevices()
        self._gateways = 1

    def share(self, gateways: int) -> None:
        """So many gateways have about as many devices each; the rate aimed at is of all of them."""
        self._gateways = gateways

    def see(self, device_id: str, now_s: float, open_slots: int) -> int:
        """Note a check-in; returns its ordinal for this device."""
        ordinal = self._seen.see(device_id, now_s)
        # Idle devices are told to stay away longest; a shorter memory would forget them meanwhile.
        idle_s = self.interval_s(open_slots=0)
        self._seen.forget_before(now_s - max(_LEAST_WINDOW_S, 2 * idle_s))
        self._eligible.forget_before(now_s - self.interval_s(open_slots))
        return ordinal

    def __len__(self) -> int:
        """Distinct devices seen lately."""
        return len(self._seen)

    def check_ins(self, device_id: str) -> int:
        """How often a device checked in lately."""
        return self._seen.times(device_id)

    def see_eligible(self, device_id: str, now_s: float) -> int:
        """Note a device that could take a task; returns how many could in the last interval."""
        self._eligible.see(device_id, now_s)
        return len(self._eligible)

    def forget_eligible(self) -> None:
        """Another job is open, with criteria of its own."""
        self._eligible.clear()

    def come_back_after_s(self, device_id: str, ordinal: int, seed: int, open_slots: int) -> float:
        """When this device should check in again."""
        jitter = draw(seed, device_id, ordinal, purpose="pace")
        return self._pace.jittered(self.interval_s(open_slots), jitter)

    def interval_s(self, open_slots: int) -> float:
        """Mean interval between two check-ins of one device, as things are."""
        devices = len(self._seen) * self._gateways
        return self._pace.interval_s(recent_devices=devices, open_slots=open_slots)

    def state(self) -> dict[str, tuple[tuple[str, float, int], ...]]:
        """What a checkpoint of a dry-run keeps of it."""
        return {"seen": self._seen.entries(), "eligible": self._eligible.entries()}

    def restore(self, state: Mapping[str, Iterable[tuple[str, float, int]]]) -> None:
        """Take up what `state` returned."""
        self._seen.restore(state["seen"])
        self._eligible.restore(state["eligible"])
