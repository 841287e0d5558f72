"""FedBuff: buffered asynchronous aggregation (Nguyen et al., AISTATS 2022, Algorithm 1)."""

from dataclasses import dataclass

from server.coordination.tasks import Outcome
from server.strategies.strategy import RoundState, Step


def missing_tasks(offered: int, running: int, concurrency: int) -> int:
    """Tasks to start so that ``concurrency`` are always on their way.

    >>> missing_tasks(offered=10, running=85, concurrency=100)
    5
    """
    return max(0, concurrency - offered - running)


def buffer_step(held: int, buffer_size: int) -> int:
    """Aggregate when the buffer is full; whole buckets are taken, so it may hold a few more."""
    return Step.AGGREGATE if held >= buffer_size else Step.WAIT


def oldest_live(version: int, max_staleness: int) -> int:
    """Oldest base version that is at most ``max_staleness`` behind the newest.

    >>> oldest_live(version=12, max_staleness=10)
    2
    """
    return max(0, version - max_staleness)


def staleness_weight(staleness: int, exponent: float = 0.5) -> float:
    """Return ``(1 + staleness) ** -exponent``; 1.0 for a fresh update (FedBuff, section 4).

    >>> staleness_weight(3)
    0.5
    """
    return float((1.0 + staleness) ** -exponent)


@dataclass(frozen=True, slots=True)
class FedBuff:
    """Keep ``concurrency`` tasks running, aggregate every ``buffer_size`` updates."""

    buffer_size: int
    concurrency: int
    max_staleness: int
    staleness_exponent: float = 0.5
    pins_base_version: bool = False
    late_outcome: Outcome = Outcome.STALE
    late_reason: str = "max_staleness"
    needs_training_results: bool = False

    def tasks_to_start(self, state: RoundState) -> int:
        """See `missing_tasks`."""
        return missing_tasks(state.offered, state.running, self.concurrency)

    def next_step(self, state: RoundState) -> Step:
        """See `buffer_step`."""
        return Step(buffer_step(state.held, self.buffer_size))

    def deadline_s(self, state: RoundState) -> float | None:  # noqa: ARG002 - arrivals decide
        """None: only arrivals fill a buffer."""
        return None

    def oldest_live_version(self, version: int) -> int:
        """Versions at most ``max_staleness`` behind the newest."""
        return oldest_live(version, self.max_staleness)

    def base_weight(self, staleness: int) -> float:
        """See `staleness_weight`."""
        return staleness_weight(staleness, self.staleness_exponent)

    def task_timeout_s(self, task_timeout_s: float) -> float:
        """The job's own limit."""
        return task_timeout_s
