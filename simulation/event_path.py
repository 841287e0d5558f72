"""Which way a dry-run's events go, and why: ahead on the compiled engine, or one by one."""

from dataclasses import dataclass

from server.job import FedAvgSettings, FedBuffSettings, Job
from server.strategies import make_strategy
from simulation.update_training import decides_on_results


@dataclass(frozen=True, slots=True)
class EventPath:
    """A way through a run's events; both give the same run to the bit.

    Attributes:
        is_compiled: On the compiled engine (`simulation.timeline`), else on the plain event loop:
            the production coordinator on the virtual fleet.
        why: For users.
    """

    is_compiled: bool
    why: str

    @property
    def sentence(self) -> str:
        """What a run says of it."""
        way = "compiled engine" if self.is_compiled else "plain event loop, the slower way"
        return f"events: {way}, because {self.why}"


def choose_event_path(job: Job, *, trains: bool) -> EventPath:
    """The compiled engine, unless something that is decided is not known to it.

    Args:
        trains: Whether updates are trained; what hangs on trained updates is not decided else.
    """
    if not isinstance(job.strategy, FedAvgSettings | FedBuffSettings):
        return EventPath(False, f"the decisions of {job.strategy.name} are not compiled")
    if not trains:
        return EventPath(True, f"the decisions of {job.strategy.name} are compiled")
    if decides_on_results(job):
        return EventPath(
            False,
            "privacy.robustness.max_update_norm decides on trained updates, so every update is "
            "trained when it arrives (lock-step), not only those that are aggregated",
        )
    if make_strategy(job.strategy).needs_training_results:
        return EventPath(False, f"{job.strategy.name} decides on what clients learned")
    return EventPath(
        True,
        "nothing that decides about tasks hangs on what is learnt; updates are trained behind it",
    )
