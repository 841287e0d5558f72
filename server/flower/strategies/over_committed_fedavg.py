"""FedAvg with over-commitment for a Flower ServerApp (McMahan 2017, Bonawitz 2019)."""

from dataclasses import dataclass
from typing import Any

from server.flower.strategies.coordinated import CoordinatedStrategy


@dataclass(kw_only=True, eq=False)
class OverCommittedFedAvg(CoordinatedStrategy):
    """Ask ``cohort_size * over_commitment`` nodes, aggregate the first ``cohort_size`` replies.

    The algorithm is `server.strategies.fedavg`, the very one that FLINT deploys and dry-runs. A
    round that is abandoned is no round of ``num_rounds``.

    Attributes:
        cohort_size: Updates that make a round.
        over_commitment: Share of nodes asked beyond that; 1 asks no more than are needed.
        round_deadline_s: At this time a round takes the updates that are there.
        min_updates: With fewer at the deadline the round is abandoned, and begins anew.
    """

    cohort_size: int
    over_commitment: float = 1.3
    round_deadline_s: float = 600.0
    min_updates: int = 1

    def job_settings(self) -> dict[str, Any]:
        """The ``strategy`` block of a job file, less what all strategies share."""
        return {
            "name": "fedavg",
            "cohort_size": self.cohort_size,
            "over_commitment": self.over_commitment,
            "round_deadline_s": self.round_deadline_s,
            "min_updates": self.min_updates,
        }

    @property
    def needed_nodes(self) -> int:
        """A cohort, so that no round has to wait for its deadline."""
        return self.cohort_size

    @property
    def evaluates_beside_training(self) -> bool:
        """False: a round ends with its evaluation, as Flower's own do."""
        return False
