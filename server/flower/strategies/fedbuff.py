"""FedBuff for a Flower ServerApp: buffered asynchronous aggregation (Nguyen 2022)."""

from dataclasses import dataclass
from typing import Any, Literal

from server.flower.strategies.coordinated import CoordinatedStrategy


@dataclass(kw_only=True, eq=False)
class FedBuff(CoordinatedStrategy):
    """Keep ``concurrency`` nodes training, aggregate every ``buffer_size`` updates.

    No node is waited for: each is sent the newest version as soon as it is idle, and an update from
    an older one counts ``(1 + staleness) ** -staleness_exponent``. The algorithm is
    `server.strategies.fedbuff`, the very one that FLINT deploys and dry-runs.

    Attributes:
        buffer_size: Updates in one aggregation, which is one round.
        concurrency: Tasks under way at a time; a node has one at most.
        max_staleness: An update from a version further behind is not counted.
        staleness_exponent: 0.5 as in the paper; 0 counts all updates alike.
    """

    buffer_size: int
    concurrency: int
    max_staleness: int = 10
    staleness_exponent: float = 0.5
    weighting: Literal["examples", "uniform"] = "uniform"

    def job_settings(self) -> dict[str, Any]:
        """The ``strategy`` block of a job file, less what all strategies share."""
        return {
            "name": "fedbuff",
            "buffer_size": self.buffer_size,
            "concurrency": self.concurrency,
            "max_staleness": self.max_staleness,
            "staleness_weight": {"name": "polynomial", "exponent": self.staleness_exponent},
        }

    @property
    def needed_nodes(self) -> int:
        """One: an idle node is enough for a task."""
        return 1

    @property
    def evaluates_beside_training(self) -> bool:
        """True: waiting for the slowest node to evaluate would make rounds of it again."""
        return True
