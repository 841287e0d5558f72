"""What those who watch a job see: live progress, and every aggregation."""

from dataclasses import dataclass
from typing import Protocol

from server.coordination.events import Event
from server.coordination.versions import JobTotals


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What a user watching a job sees.

    Attributes:
        metric: Of the newest evaluated version; None before the first evaluation.
        in_flight: Tasks running on devices.
        offered: Granted tasks waiting for a device to check in.
    """

    version: int
    metric: float | None
    metric_version: int | None
    totals: JobTotals
    in_flight: int
    offered: int
    held: int


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregation, as observers see it.

    Attributes:
        staleness: Versions each update was behind, one entry an update.
        aggregation_s: Wall-clock seconds from the release to the stored version.
    """

    version: int
    updates: int
    staleness: tuple[int, ...]
    aggregation_s: float
    mean_loss_after: float | None


class JobObserver(Protocol):
    """Who watches a job: metrics, live progress, a dry-run's trajectory."""

    def on_event(self, event: Event) -> None:
        """Something happened in the fleet."""
        ...

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """A version was stored."""
        ...

    def on_progress(self, progress: JobProgress) -> None:
        """Counts changed; called after every event, so it must be cheap."""
        ...


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended."""

    reason: str
    progress: JobProgress
