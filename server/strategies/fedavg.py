"""FedAvg: synchronous rounds with over-commitment.

McMahan et al., AISTATS 2017, Algorithm 1; over-commitment, deadline and abandoned rounds as in
Bonawitz et al., "Towards Federated Learning at Scale", MLSys 2019, section 2.2.
"""

from dataclasses import dataclass
from math import ceil

from server.coordination.tasks import Outcome
from server.strategies.strategy import RoundState, Step


def round_tasks(cohort_size: int, over_commitment: float) -> int:
    """Tasks to start for one round: the cohort times the over-commitment, rounded up.

    >>> round_tasks(10, 1.1)
    11
    """
    # 10 * 1.1 is 11.000000000000002 in binary; the margin keeps a whole product whole.
    return ceil(cohort_size * over_commitment - 1e-9)


def missing_round_tasks(granted: int, lost: int, tasks: int) -> int:
    """The whole round's tasks when it begins, then others for those lost with a gateway.

    Args:
        granted: In this round so far.
        lost: Tasks whose gateway died.
        tasks: Of a round, see `round_tasks`.

    >>> missing_round_tasks(granted=0, lost=0, tasks=11)
    11
    """
    return max(0, lost - (granted - tasks)) if granted else tasks


def round_step(
    held: int,
    unfinished: int,
    now_s: float,
    deadline_s: float,
    cohort_size: int,
    min_updates: int,
) -> int:
    """Decide a round: the first ``cohort_size`` updates make it, the deadline takes what is there.

    Args:
        held: Updates of this round so far.
        unfinished: Tasks of this round offered, running or lost with a gateway. When none is left,
            no more will come, so the round is decided at once.
        now_s: The fleet's clock.
        deadline_s: On the same clock, so that a clock that stops there is at the deadline,
            whatever rounding there is in its distance from the round's start.

    Returns:
        A `Step`.
    """
    if held >= cohort_size:
        return Step.AGGREGATE
    if now_s >= deadline_s or unfinished == 0:
        return Step.AGGREGATE if held >= min_updates else Step.ABANDON
    return Step.WAIT


@dataclass(frozen=True, slots=True)
class FedAvg:
    """Start ``cohort_size * over_commitment`` tasks, aggregate the first ``cohort_size``."""

    cohort_size: int
    over_commitment: float
    round_deadline_s: float
    min_updates: int
    pins_base_version: bool = True
    late_outcome: Outcome = Outcome.OVER_COMMITTED
    late_reason: str = "round_closed"
    needs_training_results: bool = False

    def tasks_to_start(self, state: RoundState) -> int:
        """See `missing_round_tasks`.

        Lost ones may be heard of again, from devices that keep their updates; but a device that
        never got the answer to its check-in does not even know that it has a task.
        """
        tasks = round_tasks(self.cohort_size, self.over_commitment)
        return missing_round_tasks(state.granted, state.lost, tasks)

    def next_step(self, state: RoundState) -> Step:
        """See `round_step`."""
        if not state.granted:
            return Step.WAIT
        return Step(
            round_step(
                state.held,
                state.offered + state.running + state.lost,
                state.now_s,
                self.deadline_s(state),
                self.cohort_size,
                self.min_updates,
            )
        )

    def deadline_s(self, state: RoundState) -> float:
        """The round's deadline."""
        return state.started_s + self.round_deadline_s

    def oldest_live_version(self, version: int) -> int:
        """Only the newest: a round's updates count in that round or never."""
        return version

    def base_weight(self, staleness: int) -> float:  # noqa: ARG002 - always 0 in a round
        """Always 1."""
        return 1.0

    def task_timeout_s(self, task_timeout_s: float) -> float:
        """At most the round's deadline."""
        return min(task_timeout_s, self.round_deadline_s)
