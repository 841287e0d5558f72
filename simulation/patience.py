"""When a dry-run is given up: no update that counts has come for a month of virtual time."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from device_runtime.errors import FlintError
from simulation.traces.criteria import DailyHours

PATIENCE_S = 30 * 86_400.0


class FleetExhausted(FlintError):
    """No client can ever bring another update; the run ends with what it has."""

    code = "FLN-1730"


def trace_ended(now_s: float, hours: DailyHours) -> FleetExhausted:
    """Why nobody can come any more: the trace has no windows left, within the hours allowed."""
    within = "" if hours.is_always else ", within participation.state.allowed_hours"
    return FleetExhausted(
        f"after {now_s / 3600.0:.1f} virtual hours no client can check in any more: the "
        f"availability trace has ended{within}; set availability.repeat_every_s to begin it anew"
    )


class Patience:
    """What has come since the last aggregation. An update that is dropped again does not count."""

    def __init__(self) -> None:
        self._update_s = self._release_s = 0.0
        self._ends: Counter[str] = Counter()
        self._dropped = 0

    def ends_before(self, at_s: float) -> bool:
        """Whether nobody waits until then."""
        return at_s > self._update_s + PATIENCE_S

    def arrived(self, at_s: float) -> None:
        """An update is held."""
        self._update_s = at_s
        self._ends.clear()

    def ended(self, reason: str) -> None:
        """A task ended without one."""
        self._ends[reason] += 1

    def lost(self, held_since_s: Iterable[float]) -> None:
        """Updates that were held came to nothing.

        Args:
            held_since_s: When the others arrived that are still held.
        """
        self._update_s = max(held_since_s, default=self._release_s)

    def dropped(self, updates: int, held_since_s: Iterable[float]) -> None:
        """The coordinator does not want updates that were held; see `lost`."""
        if updates:
            self._dropped += updates
            self.lost(held_since_s)

    def released(self, at_s: float) -> None:
        """An aggregation has come about."""
        self._release_s = at_s
        self._dropped = 0

    def exhausted(self) -> FleetExhausted:
        """Why nobody waits any longer."""
        days = f"{PATIENCE_S / 86_400:.0f} virtual days"
        if self._dropped:
            return FleetExhausted(
                f"no aggregation has come about for {days}: {self._dropped} updates arrived, in "
                "rounds that were abandoned for want of others; lower strategy.min_updates, "
                "lengthen strategy.round_deadline_s, or give more clients"
            )
        ends = ", ".join(f"{n} by {reason}" for reason, n in self._ends.most_common())
        return FleetExhausted(
            f"no update has arrived for {days} (tasks that ended meanwhile: {ends or 'none'}); "
            "lower what a task asks of a device, or raise client.task_timeout_s"
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "update_s": self._update_s,
            "release_s": self._release_s,
            "ends": dict(self._ends),
            "dropped": self._dropped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after `state`."""
        self._update_s, self._release_s = state["update_s"], state["release_s"]
        self._ends = Counter(state["ends"])
        self._dropped = state["dropped"]
