"""What a strategy decides, and on what: counts, versions and times, never arrays or clients."""

from enum import IntEnum
from typing import NamedTuple, Protocol

from server.coordination.tasks import Outcome


class Step(IntEnum):
    """What to do with the updates held now; an integer, so that compiled decisions return it."""

    WAIT = 0
    AGGREGATE = 1
    ABANDON = 2


class RoundState(NamedTuple):
    """All that a decision may depend on.

    A tuple, for a dry-run asks for two decisions at each of millions of events, and to make a
    frozen dataclass takes as long as to decide.

    Attributes:
        version: Newest model version, counted in aggregations.
        started_s: When collecting for the next version began, on the fleet's clock.
        now_s: The fleet's clock.
        granted: Tasks granted since ``started_s``.
        offered: Granted tasks that no client has started yet.
        running: Tasks started and not ended.
        held: Updates folded and not yet aggregated.
        lost: Tasks whose gateway died and that may be heard of again.
    """

    version: int
    started_s: float
    now_s: float
    granted: int
    offered: int
    running: int
    held: int
    lost: int = 0


class Strategy(Protocol):
    """When to start tasks, when to aggregate, how much each base version counts.

    Every method is a pure function of its arguments: a dry-run computes events ahead of training
    and, where a result changes them, again. Those of FedAvg and FedBuff are thin calls of functions
    over numbers in their own modules, and the simulator compiles these very functions; any other
    strategy is asked as it stands.
    """

    @property
    def pins_base_version(self) -> bool:
        """Tasks train on the version they were granted for, not on the newest at their start."""
        ...

    @property
    def late_outcome(self) -> Outcome:
        """What becomes of an update whose base version is no longer live."""
        ...

    @property
    def late_reason(self) -> str:
        """Short code that goes with `late_outcome`."""
        ...

    @property
    def needs_training_results(self) -> bool:
        """Decisions depend on what clients learned, so events cannot run ahead of training.

        Each update is then trained when it arrives. Such decisions need not be pure.
        """
        ...

    def tasks_to_start(self, state: RoundState) -> int:
        """How many more tasks to grant now."""
        ...

    def next_step(self, state: RoundState) -> Step:
        """Whether to go on collecting, aggregate what is held, or abandon it."""
        ...

    def deadline_s(self, state: RoundState) -> float | None:
        """When `next_step` must be asked again though nothing happened; None for never.

        At that time it must decide something, or name a later one.
        """
        ...

    def oldest_live_version(self, version: int) -> int:
        """Oldest base version whose updates may still count; it never falls as versions grow."""
        ...

    def base_weight(self, staleness: int) -> float:
        """Factor on all updates whose base version is ``staleness`` versions old."""
        ...

    def task_timeout_s(self, task_timeout_s: float) -> float:
        """How long one task may take, given the job's own limit."""
        ...
